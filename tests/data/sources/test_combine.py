import numpy as np
import pytest
import torch

from _folders import make_folder
from _tiny_source import TinySource
from fewshotseg.data import EpisodeDataset
from fewshotseg.data.sources.combine import ConcatSource, RenumberedSource, SubsetSource, without_classes
from fewshotseg.data.sources.folder import FolderSource


@pytest.fixture
def source(tmp_path):
    make_folder(tmp_path / "one", {"a": (1,), "b": (2, 3), "c": (3,), "d": ()})
    return FolderSource(tmp_path / "one/images", tmp_path / "one/masks")


@pytest.fixture
def other(tmp_path):
    make_folder(tmp_path / "two", {"e": (4,), "f": (1,)})
    return FolderSource(tmp_path / "two/images", tmp_path / "two/masks")


def same(sample, expected):
    return sample.image.equal(expected.image) and sample.mask.equal(expected.mask)


def test_subset_keeps_order_and_content(source):
    subset = SubsetSource(source, [2, 0])
    assert subset.ids == ["c", "a"]
    assert subset.class_areas == [{3: 4}, {1: 4}]
    assert subset.class_names == source.class_names
    assert same(subset.load(0), source.load(2))
    assert same(subset.load(1), source.load(0))


def test_subset_may_be_empty(source):
    assert (SubsetSource(source, []).ids, SubsetSource(source, []).class_areas) == ([], [])


@pytest.mark.parametrize("index", [-1, 4])
def test_subset_of_other_positions_is_refused(source, index):
    with pytest.raises(IndexError, match=f"keep must have positions from 0 to 3, got {index}"):
        SubsetSource(source, [index])


def test_subset_with_repetitions_is_refused(source):
    with pytest.raises(ValueError, match="twice"):
        SubsetSource(source, [1, 1])


@pytest.mark.parametrize("index", [True, 1.0, "1", None])
def test_positions_are_whole_numbers(source, index):
    with pytest.raises(TypeError, match="keep must have positions, which are whole numbers, got"):
        SubsetSource(source, [index])


class TestPairs:
    """Lists of images with one of their classes, as HSNet publishes them."""

    def test_images_count_for_the_listed_classes_alone(self, source):
        listed = SubsetSource.from_pairs(source, [("c", 3), ("b", 3), ("c", 3)])
        assert (listed.ids, listed.class_areas) == (["c", "b"], [{3: 4}, {3: 4}])
        assert same(listed.load(1), source.load(1))
        assert SubsetSource(listed, [1]).class_areas == [{3: 4}]
        assert without_classes(listed, {3}).ids == []

    @pytest.mark.parametrize("text", ["b__02\nc__03\n", "b 2\r\n\r\nc\t3", "\ufeffb__2\nc__03"])
    def test_lists_in_files(self, source, tmp_path, text):
        (tmp_path / "fold0.txt").write_text(text)
        for path in (tmp_path / "fold0.txt", str(tmp_path / "fold0.txt")):
            assert SubsetSource.from_pairs(source, path).class_areas == [{2: 4}, {3: 4}]

    def test_episodes_come_from_the_list(self, source):
        listed = SubsetSource.from_pairs(source, [("b", 3), ("c", 3)])
        assert {EpisodeDataset(listed, [3], length=9).spec(i).query for i in range(9)} == {"b", "c"}
        with pytest.raises(ValueError, match=r"2 \(2\): 0"):
            EpisodeDataset(listed, [2])

    def test_all_pairs_that_are_not_there_are_named(self, source, tmp_path):
        with pytest.raises(ValueError, match="pairs has 2 faults: image 'b' does not hold class 1; image 'x' is "):
            SubsetSource.from_pairs(source, [("b", 1), ("b", 2), ("x", 1)])
        (tmp_path / "fold0.txt").write_text("b__02\nb__\nb\nb__two\n")
        with pytest.raises(ValueError, match=r"fold0\.txt has 3 faults: 'b__' must be an image id and a class id; "):
            SubsetSource.from_pairs(source, tmp_path / "fold0.txt")
        (tmp_path / "fold0.txt").write_text("")
        with pytest.raises(ValueError, match="it holds no pair"):
            SubsetSource.from_pairs(source, tmp_path / "fold0.txt")

    @pytest.mark.parametrize("pair", ["b2", ("b", "2"), ("b", True), ("b", 2, 2), (2, "b"), ("b", 2.0)])
    def test_other_things_are_no_pairs(self, source, pair):
        with pytest.raises(TypeError, match="pairs must be tuples of an image id and a class id, got"):
            SubsetSource.from_pairs(source, [pair])


@pytest.mark.parametrize(
    ("classes", "left"), [({3}, ["a", "d"]), ({1, 2}, ["c", "d"]), (set(), ["a", "b", "c", "d"]), (range(1, 9), ["d"])]
)
def test_without_classes(source, classes, left):
    assert without_classes(source, classes).ids == left


@pytest.mark.parametrize("class_ids", ["12", 3, ["3"], [3.0], [True]])
def test_classes_to_leave_out_are_whole_numbers(source, class_ids):
    with pytest.raises(TypeError, match="class_ids must be"):
        without_classes(source, class_ids)


def test_positions_may_come_from_an_array(source):
    assert SubsetSource(source, np.array([2, 0])).ids == ["c", "a"]
    with pytest.raises(TypeError, match="keep must have positions, which are whole numbers, got True"):
        SubsetSource(source, np.array([True, False, True, False]))


def test_concatenation_keeps_order_and_content(source, other):
    both = ConcatSource(source, other)
    assert both.ids == ["a", "b", "c", "d", "e", "f"]
    assert both.class_areas == [*source.class_areas, *other.class_areas]
    assert both.class_names == {1: "1", 2: "2", 3: "3", 4: "4"}
    assert same(both.load(1), source.load(1))
    assert same(both.load(4), other.load(0))


def test_they_nest(source, other):
    both = without_classes(ConcatSource(SubsetSource(source, [3, 1]), other), {4})
    assert both.ids == ["d", "b", "f"]
    assert same(both.load(2), other.load(1))


def test_shared_ids_are_refused(source):
    with pytest.raises(ValueError, match="sources must not share ids, got 'a', 'b' more than once"):
        ConcatSource(SubsetSource(source, [0, 1]), SubsetSource(source, [0, 1]))


def test_two_names_of_a_class_are_refused(tmp_path, source):
    make_folder(tmp_path / "two", {"x": (1,)})
    renamed = FolderSource(tmp_path / "two/images", tmp_path / "two/masks", class_names={1: "cat"})
    with pytest.raises(ValueError, match="sources must agree on class 1, got '1' and 'cat'"):
        ConcatSource(source, renamed)


def test_nothing_cannot_be_concatenated():
    with pytest.raises(ValueError, match="at least one source"):
        ConcatSource()


def test_classes_have_other_ids(source):
    names = {3: "sky", 1: "cat", 2: "dog", 9: "cow"}
    renumbered = RenumberedSource(source, {1: 3, 2: 1, 3: 2}, names)
    assert (renumbered.class_names, renumbered.ids) == (names, source.ids)
    assert renumbered.class_areas == [{3: 4}, {1: 4, 2: 4}, {2: 4}, {}]
    assert renumbered.load(1).image.equal(source.load(1).image)
    new = torch.tensor([0, 3, 1, 2])
    assert renumbered.load(1).mask.equal(new[source.load(1).mask])
    assert type(renumbered.load(1).mask) is type(source.load(1).mask)


def test_void_and_background_keep_their_ids():
    void = TinySource([{4: 5}])
    mask = RenumberedSource(void, {4: 7}, {7: "tie"}).load(0).mask
    assert mask.unique().tolist() == [0, 7, 255]


@pytest.mark.parametrize("new_ids", [{1: 2, 2: 3}, {1: 2, 2: 2, 3: 1}, {1: 2, 2: 3, 3: 5}])
def test_ids_that_do_not_renumber_are_refused(source, new_ids):
    with pytest.raises(
        ValueError, match="new_ids must give each class of the source an id of its own that class_names"
    ):
        RenumberedSource(source, new_ids, {1: "a", 2: "b", 3: "c"})
