"""The test that looks like the world: known for answers that follow their examples, and for those that do not."""

import json
from types import SimpleNamespace

import pytest
import torch
from torchvision import tv_tensors

import fewshotseg as fs
import world
import world_table
from _folders import make_part_of_coco
from fewshotseg.data import COCO_CLASSES, Sample

PERSON, PLANE, BICYCLE, CAR = 1, 5, 2, 3
SHOWN = [*([[PERSON]] * 4), [PERSON, PLANE], [PERSON, PLANE], *([[PLANE]] * 4), [BICYCLE], [CAR, BICYCLE]]


@pytest.fixture
def part(tmp_path):
    return make_part_of_coco(tmp_path / "part", SHOWN, size=(60, 48))


class Painted:
    """Photographs in which every class has its own grey."""

    class_names = COCO_CLASSES
    ids = tuple(str(number) for number in range(len(SHOWN)))
    class_areas = tuple(dict.fromkeys(shown, 480) for shown in SHOWN)

    def load(self, index):
        mask = torch.zeros(48, 60, dtype=torch.long)
        for column, class_id in enumerate(SHOWN[index]):
            mask[:, 10 * column : 10 * column + 10] = class_id
        return Sample(tv_tensors.Image(10 * mask.to(torch.uint8).expand(3, -1, -1)), tv_tensors.Mask(mask))


class Predictor:
    """Answers with a function of the example's class and the image's class mask."""

    def __init__(self, answer):
        self.answer = answer

    def set_support(self, images, masks):
        (image,), (mask,) = images, masks
        self.class_id = int(image[0][mask == 1][0]) // 10

    def predict(self, image):
        probability = self.answer(self.class_id, image[0] // 10).float()
        return SimpleNamespace(mask=(probability > 0.5).long(), probability=probability, presence=probability.max())


def answers(answer):
    return list(world.ask(Predictor(answer), Painted(), [PERSON, PLANE], examples=3))


def test_answers_that_follow_their_examples():
    found = answers(lambda asked, mask: mask == asked)
    assert [a["class"] for a in found] == [PERSON] * 3 + [PLANE] * 3
    for answer in found:
        assert (answer["own"], answer["absent"], answer["present"]) == (1, [0, 0], [1, 1])
        assert answer["two"] == [1, 0, 1]


def test_answers_that_do_not():
    for answer in answers(lambda asked, mask: mask > 0):
        assert answer["absent"][0] == 1
        assert answer["absent"][1] > 0
        assert answer["two"] == [0.5, 0.5, 0.5]  # of two classes, the pixels of one are never higher


def numbers(**changes):
    """Of three classes, of which 1 and 5 are VOC's, and 25 is not."""
    report = {
        "per_class": {"person": 0.5, "airplane": 0.3, "umbrella": 0.1},
        "by_size": {
            "<2%": {"episode_miou": 0.25, "episodes": 8},
            "2-10%": {"episode_miou": None, "episodes": 0},
        },
    }
    answer = {"own": 0.5, "absent": [0.2, 0.0], "present": [0.4, 0.9], "two": [0.5, 0.25, 0.75]}
    nothing_else = {"own": 0.0, "absent": [0.7, 0.5], "present": None}
    return {
        "names": {1: "person", 5: "airplane", 25: "umbrella"},
        "1-shot": report,
        "5-shot": {**report, "per_class": {**report["per_class"], "umbrella": None}},
        "answers": [{"class": 1, **answer}, {"class": 5, **nothing_else}, {"class": 5, **answer}],
        **changes,
    }


def test_numbers_are_means_over_classes():
    found = {words: row([1, 5, 25]) for words, row in world_table.rows(numbers()).items()}
    assert found == pytest.approx(
        {
            "1-shot, mIoU, all (3 classes)": 30,
            "1-shot, mIoU, of VOC (2 classes)": 40,
            "1-shot, mIoU, others (1 classes)": 10,
            "1-shot, IoU of objects <2% (8 episodes)": 25,
            "5-shot, mIoU, all (2 classes)": 40,
            "5-shot, mIoU, of VOC (2 classes)": 40,
            "5-shot, mIoU, others (0 classes)": float("nan"),
            "5-shot, IoU of objects <2% (8 episodes)": 25,
            "present or absent, AUROC": 100,
            "absent, something is found, % of photographs": 25,
            "absent, share that is found, %": 12.5,
            "present (2 % or more), IoU": 40,
            "the example in its own photograph, IoU": 37.5,
            "one of two, IoU with it": 50,
            "one of two, IoU with the other": 25,
            "one of two, told apart, %": 75,
        },
        nan_ok=True,
    )


def test_brackets_hold_what_other_classes_would_give():
    row = world_table.rows(numbers())["1-shot, mIoU, all (3 classes)"]
    low, high = world_table.interval(row, [1, 5, 25])
    assert 10 <= low < 20
    assert 40 < high <= 50


def test_differences_are_of_the_same_classes():
    better = numbers()
    better["1-shot"] = {**better["1-shot"], "per_class": {"person": 0.6, "airplane": 0.4, "umbrella": 0.2}}
    lines = world_table.table(better, numbers()).splitlines()
    (line,) = [line for line in lines if "1-shot, mIoU, all" in line]
    assert "+10.0" in line
    with pytest.raises(ValueError, match="against must be a file of the same classes"):
        world_table.table(numbers(), {**numbers(), "names": {1: "person"}})


def test_any_model_is_measured_and_written(part, tmp_path, capsys, monkeypatch):
    model = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,)).eval()
    monkeypatch.setattr(
        world.fs.FewShotPredictor, "from_pretrained", lambda name, **_: fs.FewShotPredictor(model, size=33)
    )
    out = tmp_path / "out.json"
    given = [str(part), "--model", "any", "--folds", "0", "--episodes", "6", "--examples", "1", "--out", str(out)]
    world.main(given)
    found = json.loads(out.read_text())
    assert found["names"] == {"1": "person", "5": "airplane"}
    assert [found[f"{shots}-shot"]["episodes"] for shots in (1, 5)] == [6, 6]
    assert len(found["answers"]) == 2
    world.main([*given, "--against", str(out)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "difference" in line]
    assert len(line.split("|")) == 5
    assert json.loads(out.read_text())["1-shot"] == found["1-shot"]
    assert torch.is_grad_enabled()


def test_classes_that_a_model_knows_are_asked_for_in_photographs_that_it_does_not(tmp_path, monkeypatch):
    shown = [*([[PERSON, BICYCLE]] * 6), *([[PERSON]] * 6), *([[CAR]] * 6), [CAR, BICYCLE]]
    part = make_part_of_coco(tmp_path / "part", shown, size=(60, 48))
    asked = []

    def measured(predictor, source, class_ids, **_):
        asked.append(({*map(int, class_ids)}, [set(areas) for areas in source.class_areas]))
        return numbers()

    monkeypatch.setattr(world, "measure", measured)
    monkeypatch.setattr(world.fs.FewShotPredictor, "from_pretrained", lambda name, **_: None)
    given = [str(part), "--model", "any", "--folds", "1", "--out", str(tmp_path / "out.json")]
    world.main([*given, "--known"])
    assert asked == [({PERSON}, [{PERSON, BICYCLE}] * 6 + [{CAR, BICYCLE}])]
    world.main(given)
    assert asked[1][0] == {BICYCLE}
    assert len(asked[1][1]) == len(shown)


def test_a_folder_without_enough_photographs_is_one_sentence(part, tmp_path, capsys):
    with pytest.raises(SystemExit):
        world.main([str(part), "--model", "any", "--folds", "3", "--out", str(tmp_path / "x.json")])
    assert "data must be a folder of photographs that show a class asked for six times" in capsys.readouterr().err
