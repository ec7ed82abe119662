"""Folds of own images: what trains and what tests never meet."""

import argparse
import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from _folders import make_classwise, make_folder, make_part_of_coco, make_voc, save_image, save_mask
from _tiny_source import TinySource
from fewshotseg import SCNetConfig
from fewshotseg.cli.settings import add_data_arguments, data_settings
from fewshotseg.data import COCO_CLASSES, PASCAL_CLASSES, PROTOCOLS, coco20i, pascal5i
from fewshotseg.training.benchmark import (
    TESTED,
    Benchmark,
    DataSettings,
    draw_test,
    hold_out,
    open_benchmark,
    quarter,
)


def settings(benchmark, *options):
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_data_arguments(parser)
    given = vars(parser.parse_args([str(option) for option in options]))
    return data_settings(given, {"benchmark": benchmark, "protocol": TESTED[benchmark]})


def test_folders_share_neither_images_nor_classes(tmp_path):
    first = make_folder(tmp_path / "first", {"a": [1], "b": [1, 3], "c": [3], "d": [2, 4], "e": [4]})
    second = make_folder(tmp_path / "second", {"f": [1], "g": [2], "h": [3, 4], "i": [9]})
    train, test, split = open_benchmark(settings("folders", "--data", first, second, "--fold", 2))
    assert split == ((1, 2, 4), (3,))
    assert list(test.ids) == ["b", "c"]
    assert list(train.ids) == ["a", "d", "e", "f", "g", "i"]


def test_a_quarter_of_twenty_classes_is_a_fold_of_pascal():
    assert [quarter(range(1, 21), fold) for fold in range(4)] == [pascal5i(fold) for fold in range(4)]
    assert sorted(c for fold in range(4) for c in quarter([1, 2, 3, 5, 8, 9], fold).novel) == [1, 2, 3, 5, 8, 9]


def test_a_part_of_coco_has_the_folds_of_coco_that_enough_images_show(tmp_path):
    # Classes 1, 5 and 9 are novel in fold 0, of which too few images show 5 and none shows 9.
    shown = [*([[1]] * 5), [1, 5], *([[2]] * 2), [5, 2], [3]]
    part = make_part_of_coco(tmp_path / "part", shown)
    train, test, split = open_benchmark(settings("folders", "--data", part, "--fold", 0))
    assert split == ((2,), (1,))  # one image of class 3 has no other to be its support
    assert list(test.ids) == ["000", "001", "002", "003", "004", "005", "008"]
    assert list(train.ids) == ["006", "007", "009"]
    assert train.class_names == COCO_CLASSES
    assert open_benchmark(settings("folders", "--data", part, "--fold", "all")).split == ((1, 2, 5), ())
    with pytest.raises(ValueError, match=r"fold must be one of COCO-20i with a class that 6 images .*, got 3"):
        open_benchmark(settings("folders", "--data", part, "--fold", 3))


def test_classes_of_voc_are_those_of_coco_beside_a_part_of_it(tmp_path):
    part = make_part_of_coco(tmp_path / "part", [*([[5]] * 6), [2], [8]])
    voc = make_folder(tmp_path / "voc", {"plane": [1], "bicycles": [2], "both": [1, 2], "cyclist": [2, 255]})
    rows = "".join(f"{class_id},{name}\n" for class_id, name in PASCAL_CLASSES.items())
    (voc / "classes.csv").write_text(f"id,name\n{rows}")
    train, _, split = open_benchmark(settings("folders", "--data", part, voc))
    assert split == ((2,), (5,))  # an aeroplane, 1 of VOC, is an airplane, 5 of COCO
    assert list(train.ids) == ["006", "007", "bicycles", "cyclist"]
    assert train.load(3).mask.unique().tolist() == [0, 2, 255]
    kept = open_benchmark(settings("folders", "--data", part, voc, "--novel", "ignore")).train
    assert list(kept.ids)[2:] == ["bicycles", "both", "cyclist", "plane"]
    assert kept.class_areas[3] == {5: 4, 2: 4}
    assert kept.load(3).mask[:, :3].unique(dim=0).tolist() == [[5, 2, 0]]


def test_voc_is_read_for_its_protocol(tmp_path):
    voc = make_voc(tmp_path, train=("t1", "t2"), val=("v1",))
    benchmark = open_benchmark(settings("pascal", "--data", voc, "--train-list", "train", "--fold", 3))
    assert (list(benchmark.train.ids), list(benchmark.test.ids)) == (["t1", "t2"], ["v1"])
    dropped = open_benchmark(settings("pascal", "--data", voc, "--train-list", "train", "--fold", 3, "--novel", "drop"))
    assert list(dropped.train.ids) == []  # every mask shows class 20
    assert benchmark.listed(1) == 0
    assert open_benchmark(settings("pascal", "--data", voc, "--train-list", "train")).listed(4) == 2
    with pytest.raises(ValueError, match="split 'pfenet' needs"):
        open_benchmark(settings("pascal", "--data", voc))
    with pytest.raises(ValueError, match="split 'trainaug' needs"):
        open_benchmark(settings("pascal", "--data", voc, "--protocol", "hsnet-pascal"))


def test_synthetic_images_differ_and_their_folds_are_pascals():
    train, test, split = open_benchmark(settings("synthetic", "--images", 30, "--fold", 1, "--size", 49))
    assert split == pascal5i(1)
    assert (len(train.ids), len(test.ids)) == (30, 10)
    assert not set(train.ids) & set(test.ids)
    assert train.load(0).image.shape == (3, 48, 48)
    assert any(set(areas) & set(split.novel) for areas in train.class_areas)
    dropped = open_benchmark(settings("synthetic", "--images", 30, "--fold", 1, "--novel", "drop")).train
    assert not any(set(areas) & set(split.novel) for areas in dropped.class_areas)


def test_held_out_classes_and_their_images_leave_the_training():
    areas = [{1: 5}, {1: 5, 2: 5}, {2: 9}, {3: 9, 4: 1}, {4: 5, 5: 5}, {1: 1, 6: 5}, {3: 3}]
    source = TinySource(areas)
    training, validation = hold_out(Benchmark(source, "test", quarter([1, 2, 3, 4, 5, 6, 7], 3)))
    assert training.split == ((1, 2, 3, 4), (6, 7))
    assert validation.split == ((1, 2, 3, 4), (5,))
    assert training.test == "test"
    assert list(training.train.ids) == ["image-000", "image-001", "image-002", "image-003", "image-005", "image-006"]
    assert list(validation.test.ids) == ["image-004"]
    assert training.train is validation.train


def test_of_few_classes_one_is_held_out():
    source = TinySource([{1: 5}, {1: 5, 2: 5}, {2: 9}, {3: 9}, {4: 5}])
    training, validation = hold_out(Benchmark(source, source, quarter([1, 2, 3, 4], 3)))
    assert training.split == ((1, 2), (4,))
    assert validation.split == ((1, 2), (3,))
    assert list(validation.test.ids) == ["image-003"]


def test_pfenets_draws_and_this_packages():
    source = TinySource([{1: 10, 2: 4}, {1: 9}, {2: 8}, {1: 5, 2: 5}])
    benchmark = Benchmark(source, source, quarter([1, 2, 3, 4, 5, 6, 7, 8], 0))
    protocol = settings("synthetic", "--episodes", 7, "--size", 33).protocol
    model = SimpleNamespace(config=SCNetConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    drawn = draw_test(benchmark, protocol, model, shots=1, seed=3)
    assert len(drawn) == 7
    assert drawn[0].query_image.shape == (3, 33, 33)
    assert -1 <= drawn[0].query_image.min() < drawn[0].query_image.max() <= 1  # by the model's own mean and std
    pfenet = PROTOCOLS["pfenet-pascal"].__class__(
        **{**vars(PROTOCOLS["pfenet-pascal"]), "min_area": 5, "max_passes": 2}
    )
    passes = draw_test(benchmark, pfenet, model, shots=1, seed=321)
    assert [spec.query for spec in passes.specs] == ["image-000", "image-001", "image-002", "image-003"] * 2


def test_changed_protocols_have_names_and_hashes_of_their_own():
    plain = settings("pascal", "--data", "voc")
    assert plain.protocol == PROTOCOLS["scnet-pascal"]
    changed = settings("pascal", "--data", "voc", "--protocol", "pfenet-pascal", "--seeds", 1, 2, "--episodes", 5001)
    assert changed.protocol.name == "pfenet-pascal with seeds (1, 2)"
    assert changed.protocol.hash() != plain.protocol.hash() == PROTOCOLS["pfenet-pascal"].hash()
    coco = settings("coco", "--data", "coco", "--fold", 2)
    assert (coco.protocol.name, coco.fold) == ("scnet-coco", 2)
    assert coco20i(2, layout=coco.protocol.split).novel[:2] == (3, 7)


@pytest.mark.parametrize(
    ("benchmark", "options", "message"),
    [
        ("folders", [], "data must be at least one folder for folders, got 0"),
        ("pascal", ["--data", "a", "b"], "data must be one folder for pascal, got 2"),
        ("coco", ["--data", "a", "--protocol", "pfenet-pascal"], "protocol must be one of coco's, got pfenet-pascal"),
        ("folders", ["--data", "a", "--protocol", "scnet-pascal"], "protocol must be one of folders's"),
        ("folders", ["--data", "a", "--novel", "background"], "novel must be 'drop' for one folder"),
        ("pascal", ["--data", "a", "--fold", "all"], "fold must be 0 to 3 for pascal, got 'all'"),
    ],
)
def test_settings_that_exclude_each_other(benchmark, options, message):
    with pytest.raises(ValueError, match=message):
        settings(benchmark, *options)


def test_a_fault_of_the_settings_is_not_hidden_by_a_default():
    with pytest.raises(TypeError, match="protocol"):
        DataSettings(benchmark="synthetic")


def test_settings_survive_a_checkpoint():
    given = settings("folders", "--data", "a", "b", "--fold", "all", "--seeds", 1, 2)
    assert DataSettings.from_dict(json.loads(json.dumps(asdict(given)))) == given
    with pytest.raises(ValueError, match="data must be the settings of a training run"):
        DataSettings.from_dict({"benchmark": "synthetic"})


def test_a_fold_without_a_novel_class_says_which_have_one(tmp_path):
    three = make_folder(tmp_path / "three", {f"{c}{n}": [c] for c in (1, 2, 3) for n in range(2)})
    with pytest.raises(
        ValueError, match=r"fold must be 1 or 2 or 3 to test on a class .* or 'all' to train on every .*got 0"
    ):
        open_benchmark(settings("folders", "--data", three))
    assert open_benchmark(settings("folders", "--data", three, "--fold", 2)).split == ((1, 3), (2,))
    assert open_benchmark(settings("folders", "--data", three, "--fold", "all")).split == ((1, 2, 3), ())
    one = make_folder(tmp_path / "one", {"a": [1], "b": [1]})
    with pytest.raises(ValueError, match=r"fold must be 3 to test .*: 1 class dealt to four folds .*, got 0"):
        open_benchmark(settings("folders", "--data", one))
    assert open_benchmark(settings("folders", "--data", one, "--fold", 3)).split == ((), (1,))
    none = make_folder(tmp_path / "none", {"a": [], "b": []})
    with pytest.raises(ValueError, match="data must have masks that show a class"):
        open_benchmark(settings("folders", "--data", none, "--fold", "all"))


# Data of other domains

COUNTS = {"deepglobe": 6, "isic": 3, "chestx": 1, "suim": 7}


@pytest.mark.parametrize("name", COUNTS)
def test_all_classes_of_another_domain_are_novel(name, tmp_path):
    classes = [f"class {number}" for number in range(COUNTS[name])]
    given = settings(name, "--data", make_classwise(tmp_path / "all", classes), "--episodes", 12, "--size", 33)
    train, test, split = open_benchmark(given)
    assert split == ((), tuple(range(1, COUNTS[name] + 1)))
    assert (len(train.ids), len(test.ids)) == (0, 3 * COUNTS[name])
    episodes = draw_test(
        open_benchmark(given),
        given.protocol,
        SimpleNamespace(config=SCNetConfig(mean=(0, 0, 0), std=(1, 1, 1))),
        shots=2,
        seed=0,
    )
    assert len(episodes) == 12
    assert episodes[0].query_image.shape == (3, 33, 33)  # stretched, not padded
    assert not (episodes[0].query_mask == 255).any()


def test_the_test_classes_of_fss_1000(tmp_path):
    for number in range(240):
        save_image(tmp_path / f"class {number:03}" / "1.jpg")
        save_mask(tmp_path / f"class {number:03}" / "1.png", [[255] * 6] * 4, palette=False)
    benchmark = open_benchmark(settings("fss1000", "--data", tmp_path))
    assert len(benchmark.split.novel) == len(benchmark.test.ids) == 240


def test_another_number_of_classes_is_refused(tmp_path):
    root = make_classwise(tmp_path, ["a", "b"])
    with pytest.raises(ValueError, match=r"data must be a folder with the 6 class\(es\) .* with 2: a, b$"):
        open_benchmark(settings("deepglobe", "--data", root))


def test_other_domains_have_neither_folds_nor_other_protocols(tmp_path):
    with pytest.raises(ValueError, match="fold must be 0 for isic, which has no others, got 2"):
        settings("isic", "--data", tmp_path, "--fold", 2)
    with pytest.raises(ValueError, match="protocol must be one of isic's, got patnet-deepglobe"):
        settings("isic", "--data", tmp_path, "--protocol", "patnet-deepglobe")
    with pytest.raises(ValueError, match="data must be one folder for suim, got 0"):
        settings("suim")
