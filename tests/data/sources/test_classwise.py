import numpy as np
import pytest

from _folders import save_image, save_mask
from fewshotseg.cli import main
from fewshotseg.data import ClasswiseSource, EpisodeDataset, padded_eval
from fewshotseg.data.sources.faults import FaultyFilesError


def white(path, columns):
    """A mask of 6 x 4 with so many white columns."""
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[:, :columns] = 255
    return save_mask(path, mask, palette=False)


def add(root, name, stem, columns, places=("images", "masks"), ending=".jpg"):
    save_image(root / name / places[0] / f"{stem}{ending}")
    white(root / name / places[1] / f"{stem}.png", columns)


@pytest.mark.parametrize(
    "places",
    [
        ("images", "masks"),
        ("origin", "groundtruth"),
        ("test/origin", "test/groundtruth"),
        ("test/images", "test/masks"),
    ],
)
def test_folders_of_classes(tmp_path, places):
    for name, stem, columns in [("2", "b", 2), ("1", "a", 1), ("1", "c", 3)]:
        add(tmp_path, name, stem, columns, places)
    source = ClasswiseSource(tmp_path)
    assert source.ids == ("1/a", "1/c", "2/b")
    assert dict(source.class_names) == {1: "1", 2: "2"}
    assert source.class_areas == [{1: 4}, {1: 12}, {2: 8}]
    image, mask = source.load(2)
    assert image.shape == (3, 4, 6)
    assert mask.tolist() == [[2, 2, 0, 0, 0, 0]] * 4
    assert (source.passed_over, source.incomplete) == ((), ())


def test_classes_that_share_their_images(tmp_path):
    for stem in ("x", "y", "z"):
        save_image(tmp_path / "images" / f"{stem}.jpg")
    for name, stem, columns in [("WR", "x", 1), ("FV", "x", 2), ("FV", "y", 0)]:
        white(tmp_path / "masks" / name / f"{stem}.bmp", columns)
    source = ClasswiseSource(tmp_path)
    assert source.ids == ("FV/x", "FV/y", "WR/x")
    assert source.class_areas == [{1: 8}, {}, {2: 4}]
    assert source.images[0] == source.images[2] == tmp_path / "images" / "x.jpg"
    assert source.load(2).mask.unique().tolist() == [0, 2]


def test_images_and_masks_with_folders_of_classes(tmp_path):
    for name, stem, columns in [("b", "x", 1), ("a", "x", 2)]:
        save_image(tmp_path / "images" / name / f"{stem}.png")
        white(tmp_path / "masks" / name / f"{stem}.png", columns)
    assert ClasswiseSource(tmp_path).ids == ("a/x", "b/x")


def test_isic(tmp_path):
    for name, stem in [("2", "ISIC_07"), ("1", "ISIC_03")]:
        save_image(tmp_path / "ISIC2018_Task1-2_Training_Input" / name / f"{stem}.jpg")
    for stem in ("ISIC_03", "ISIC_07", "ISIC_99"):  # the last one's image is of no class
        white(tmp_path / "ISIC2018_Task1_Training_GroundTruth" / f"{stem}_segmentation.png", int(stem[-1]) % 6)
    source = ClasswiseSource(tmp_path)
    assert source.ids == ("1/ISIC_03", "2/ISIC_07")
    assert source.class_areas == [{1: 12}, {2: 4}]


def test_chest_x_rays(tmp_path):
    for stem in ("CHN_1_0", "MCU_2_1", "no_mask"):
        save_image(tmp_path / "CXR_png" / f"{stem}.png")
    white(tmp_path / "masks" / "CHN_1_0_mask.png", 2)
    white(tmp_path / "masks" / "MCU_2_1.png", 1)
    source = ClasswiseSource(tmp_path)
    assert source.ids == ("lung/CHN_1_0", "lung/MCU_2_1")
    assert source.class_areas == [{1: 8}, {1: 4}]
    assert source.passed_over == ()


def test_an_image_whose_own_name_ends_like_a_mask(tmp_path):
    add(tmp_path, "a", "gas_mask", 1)
    add(tmp_path, "a", "gas", 2)
    assert ClasswiseSource(tmp_path).class_areas == [{1: 8}, {1: 4}]


def test_missing_partners_are_named(tmp_path):
    add(tmp_path, "a", "x", 1)
    add(tmp_path, "a", "y", 1)
    (tmp_path / "a/masks/y.png").unlink()
    (tmp_path / "a/images/x.jpg").unlink()
    source = ClasswiseSource(tmp_path)
    assert source.ids == ("a/x", "a/y")
    with pytest.raises(FileNotFoundError, match=r"images/x\.jpg is missing; .*masks/y\.png is missing"):
        _ = source.class_areas


def test_masks_that_are_not_white_are_refused_not_read_as_empty(tmp_path):
    add(tmp_path, "a", "x", 1)
    save_mask(tmp_path / "a/masks/x.png", [[0, 1, 1, 0, 0, 0]] * 4, palette=False)
    with pytest.raises(ValueError, match=r"x\.png must be white on black, from 128 on, got nothing brighter than 1"):
        ClasswiseSource(tmp_path).load(0)


def test_other_folders_and_files_are_passed_over(tmp_path):
    add(tmp_path, "a", "x", 1)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "b" / "images").mkdir(parents=True)  # without masks it is no class
    (tmp_path / "readme.txt").touch()
    (tmp_path / "a/images/notes.txt").touch()
    source = ClasswiseSource(tmp_path)
    assert source.class_names == {1: "a"}
    assert set(source.passed_over) == {tmp_path / name for name in ("b", "readme.txt", "a/images/notes.txt")}


def test_a_class_without_images_keeps_its_id(tmp_path):
    add(tmp_path, "c", "x", 1)
    for place in ("images", "masks"):
        (tmp_path / "b" / place).mkdir(parents=True)
    source = ClasswiseSource(tmp_path)
    assert source.class_names == {1: "b", 2: "c"}
    assert source.class_areas == [{2: 4}]
    assert source.incomplete == (f"{tmp_path / 'b/images'} holds no images",)


def test_files_of_one_name_are_refused_and_the_rest_can_be_checked(tmp_path):
    add(tmp_path, "a", "x", 1)
    save_image(tmp_path / "a/images/x.png")
    with pytest.raises(FaultyFilesError, match="must hold one file of each name") as error:
        ClasswiseSource(tmp_path)
    assert error.value.source.ids == ("a/x",)


def test_no_layout_is_refused_with_what_is_there(tmp_path):
    save_image(tmp_path / "a" / "x.jpg")
    with pytest.raises(ValueError, match=r"root must hold a folder for each class, .* got .* with a$"):
        ClasswiseSource(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"with nothing$"):
        ClasswiseSource(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        ClasswiseSource(tmp_path / "nowhere")


def test_episodes_of_shared_images_hold_one_class(tmp_path):
    for stem in "abcd":
        save_image(tmp_path / "images" / f"{stem}.jpg", (32, 32))
        for name, columns in [("FV", slice(0, 8)), ("WR", slice(16, 32))]:
            mask = np.zeros((32, 32), dtype=np.uint8)
            mask[:, columns] = 255
            save_mask(tmp_path / "masks" / name / f"{stem}.png", mask, palette=False)
    episodes = EpisodeDataset(ClasswiseSource(tmp_path), [1, 2], length=10, transform=padded_eval(32))
    for episode in map(episodes.__getitem__, range(10)):
        assert int((episode.query_mask == 1).sum()) == 32 * {1: 8, 2: 16}[episode.class_id]


def test_the_check_command(tmp_path, capsys):
    add(tmp_path, "a", "x", 1)
    add(tmp_path, "b", "y", 2)
    assert main(["check", "classwise", str(tmp_path)]) == 0
    assert "2 images with a mask" in capsys.readouterr().out
    save_mask(tmp_path / "b/masks/y.png", [[0, 1, 1, 0, 0, 0]] * 4, palette=False)
    assert main(["check", "classwise", str(tmp_path)]) == 1
    assert "must be white on black" in capsys.readouterr().err
