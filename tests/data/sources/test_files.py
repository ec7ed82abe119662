"""Sources of files: what is refused where it is given, masks that are white on black, default devices."""

import pickle
import warnings

import pytest
import torch

from _folders import mask_of, save_image, save_mask
from fewshotseg.data import ConcatSource, EpisodeDataset, SubsetSource
from fewshotseg.data.sources.files import FileSource


def source_of(root, *masks, **options):
    """A source of one image for each mask; a mask is the classes of its columns."""
    files = [save_mask(root / f"{i}.png", mask_of(*columns)) for i, columns in enumerate(masks)]
    images = [save_image(root / f"{i}.jpg") for i in range(len(masks))]
    return FileSource(images, files, cache=root / "cache", **options)


def test_files_of_any_place_and_name(tmp_path):
    image = save_image(tmp_path / "x" / "photo.webp")
    mask = save_mask(tmp_path / "y" / "photo_label.png", mask_of(5))
    source = FileSource([str(image)], [mask])
    assert (source.ids, source.class_areas) == (("photo",), [{5: 4}])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], []), ValueError, "images must hold at least one path, got none"),
        ((["a.jpg", "b.jpg"], ["a.png"]), ValueError, "equally many, got 2, 1 and 2"),
        ((["a.jpg"], ["a.png"], ["a", "b"]), ValueError, "equally many, got 1, 1 and 2"),
        ((["x/a.jpg", "y/a.jpg"], ["a.png", "b.png"]), ValueError, "ids must differ, got 'a' more than once"),
        (([f"{i % 50}.jpg" for i in range(999)], ["a"] * 999), ValueError, "got '0', '1', '2', '3', '4', and 45 more"),
        (("a.jpg", ["a.png"]), TypeError, "images must be paths, got str"),
        ((["a.jpg"], "a.png"), TypeError, "masks must be paths, got str"),
        (([None], ["a.png"]), TypeError, "every item of images must be a path, got NoneType"),
        ((["a.jpg"], [b"a.png"]), TypeError, "every item of masks must be a path, got bytes"),
        ((["a.jpg"], ["a.png"], "a"), TypeError, "ids must be a sequence of strings, got 'a'"),
        ((["a.jpg"], ["a.png"], [1]), TypeError, r"ids must be a sequence of strings, got \[1\]"),
    ],
)
def test_impossible_files_are_refused(arguments, error, message):
    images, masks, *ids = arguments
    with pytest.raises(error, match=message):
        FileSource(images, masks, ids=ids[0] if ids else None)


@pytest.mark.parametrize("names", [{"1": "x"}, {1.0: "x"}, {True: "x"}, {1: 5}, {1: None}])
def test_class_names_are_whole_numbers_and_strings(names):
    with pytest.raises(TypeError, match="class_names must be whole numbers with their names, got"):
        FileSource(["a.jpg"], ["a.png"], class_names=names)


class TestWhiteOnBlack:
    """Masks of 0 and 255: void, unless it can only be the object."""

    @pytest.mark.parametrize(("names", "class_id"), [({7: "mug"}, 7), (None, 1)])
    def test_of_one_class_white_is_the_class(self, tmp_path, names, class_id):
        source = source_of(tmp_path, (255, 255), (), (255,), class_names=names)
        for _ in range(2):  # the second time from the index
            with pytest.warns(UserWarning, match=f"255, which is void otherwise, is taken as class {class_id}$"):
                assert source.class_areas == [{class_id: 8}, {}, {class_id: 4}]
            assert source.load(0).mask.unique().tolist() == [0, class_id]
            assert source.load(1).mask.unique().tolist() == [0]
            source = source_of(tmp_path, (255, 255), (), (255,), class_names=names)

    def test_loading_alone_says_the_same(self, tmp_path):
        assert source_of(tmp_path, (255,), class_names={7: "mug"}).load(0).mask.unique().tolist() == [0, 7]

    @pytest.mark.parametrize("names", [{7: "mug"}, None, {7: "mug", 8: "cup"}])
    def test_where_a_class_shows_white_is_void(self, tmp_path, names):
        source = source_of(tmp_path, (255, 255), (7, 255), class_names=names)
        assert source.load(0).mask.unique().tolist() == [0, 255]
        assert source.class_areas == [{}, {7: 4}]

    def test_of_several_classes_it_is_refused(self, tmp_path):
        source = source_of(tmp_path, (255,), (), class_names={1: "cat", 2: "dog"})
        with pytest.raises(ValueError, match=r"masks must show classes, but in .*0\.png and all others .* 255 is void"):
            _ = source.class_areas

    def test_a_mask_that_shows_a_class_is_loaded_without_a_look_at_the_others(self, tmp_path):
        source = source_of(tmp_path, (1,), (255,))
        source.masks[1].write_bytes(b"rubbish")
        assert source.load(0).mask.unique().tolist() == [0, 1]

    def test_masks_of_nothing_show_nothing(self, tmp_path):
        assert source_of(tmp_path, (), ()).class_areas == [{}, {}]

    def test_copies_for_workers_know_it_too(self, tmp_path):
        source = source_of(tmp_path, (255,), (255,), class_names={7: "mug"})
        with pytest.warns(UserWarning, match="255"):
            _ = source.class_areas
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            copy = pickle.loads(pickle.dumps(source))
            assert copy.load(1).mask.unique().tolist() == [0, 7]
            assert copy.class_areas == [{7: 4}, {7: 4}]


def test_a_default_device_does_not_matter(tmp_path):
    source = source_of(tmp_path, (1,), (2,), (1,), (2,))
    white = source_of(tmp_path / "white", (255,), class_names={1: "mug"})
    torch.set_default_device("meta")  # stands in for an accelerator
    try:
        assert source.class_areas == [{1: 4}, {2: 4}, {1: 4}, {2: 4}]
        sources = [source, SubsetSource(source, [0]), ConcatSource(source), white]
        assert {str(part.device) for each in sources for part in each.load(0)} == {"cpu"}
        episode = EpisodeDataset(source, [1, 2], length=3)[0]
        assert {str(part.device) for part in episode[:4]} == {"cpu"}
    finally:
        torch.set_default_device(None)
