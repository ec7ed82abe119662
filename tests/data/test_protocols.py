import dataclasses
import re

import pytest

from fewshotseg.data.protocols import (
    HSNET_PASCAL,
    PFENET_COCO,
    PFENET_PASCAL,
    PROTOCOLS,
    SCNET_COCO,
    SCNET_PASCAL,
)

HASHES = {
    "pfenet-pascal": "8231d2acfe72",
    "pfenet-coco": "97c82ec700c2",
    "scnet-pascal": "8231d2acfe72",
    "scnet-coco": "ae1e5ea55b5c",
    "hsnet-pascal": "3e26ce3b8b86",
    "hsnet-coco": "c7d7a8fe19bf",
    "patnet-deepglobe": "4d9c7ed52869",
    "patnet-isic": "2ac4604f067d",
    "patnet-chestx": "b4094a45910c",
    "patnet-fss1000": "ed491deadecb",
    "abcdfss-suim": "a228bada4e0e",
}


def test_hashes_are_the_same_for_ever():
    assert {name: protocol.hash() for name, protocol in PROTOCOLS.items()} == HASHES


def test_protocols_are_found_by_their_names():
    assert list(PROTOCOLS) == [protocol.name for protocol in PROTOCOLS.values()]
    assert PROTOCOLS["pfenet-pascal"] is PFENET_PASCAL


def test_equal_measurements_have_equal_hashes_whatever_their_names():
    assert SCNET_PASCAL.hash() == PFENET_PASCAL.hash()
    assert SCNET_COCO.hash() != PFENET_COCO.hash()


CHANGES = {
    "benchmark": "COCO-20i",
    "split": "interleaved",
    "train_images": "others",
    "test_images": "others",
    "novel_in_training": "drop",
    "min_area": 1,
    "episodes": 1000,
    "workers": 4,
    "max_passes": 10,
    "seeds": (321, 322),
    "train_size": 417,
    "test_size": 417,
    "test_resize": "hsnet_eval",
    "scoring": "resized",
}


def test_every_field_but_the_name_changes_the_hash():
    variants = [dataclasses.replace(PFENET_PASCAL, **{name: value}) for name, value in CHANGES.items()]
    variants += [PFENET_PASCAL, dataclasses.replace(PFENET_PASCAL, draw="number", workers=None, max_passes=None)]
    assert len({variant.hash() for variant in variants}) == len(variants)
    fields = {field.name for field in dataclasses.fields(PFENET_PASCAL)}
    assert fields == {*CHANGES, "name", "draw"}
    assert dataclasses.replace(PFENET_PASCAL, name="other").hash() == PFENET_PASCAL.hash()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=str)
def test_printing_shows_every_field_and_the_hash(protocol):
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in str(protocol).splitlines())
    assert set(lines) == {field.name for field in dataclasses.fields(protocol)} | {"hash"}
    assert lines["hash"] == protocol.hash()
    assert lines["episodes"] == str(protocol.episodes)
    assert lines["seeds"] == ", ".join(map(str, protocol.seeds))


def test_protocols_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PFENET_PASCAL.episodes = 5
    with pytest.raises(TypeError):
        PROTOCOLS["mine"] = PFENET_PASCAL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": "VOC"}, "benchmark must be one of 'PASCAL-5i', 'COCO-20i', 'DeepGlobe', .*, got 'VOC'"),
        ({"split": "random"}, "split must be one of"),
        ({"novel_in_training": "keep"}, "novel_in_training must be one of 'background', 'ignore', 'drop'"),
        ({"draw": "numpy"}, "draw must be one of"),
        ({"test_resize": "resize"}, "test_resize must be one of"),
        ({"scoring": "padded"}, "scoring must be one of"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"min_area": 0}, "min_area must be at least 1"),
        ({"train_size": 0}, "train_size must be at least 1"),
        ({"seeds": ()}, "seeds must hold at least one seed, got none"),
        ({"seeds": (3, 4, 3)}, "seeds must be different, got"),
        ({"seeds": (1, -1)}, "every number of seeds must be at least 0, got -1"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"max_passes": 0}, "max_passes must be at least 1, got 0"),
        ({"workers": None}, "workers must be set for PFENet's draws"),
        ({"max_passes": None}, "max_passes must be set for PFENet's draws"),
        ({"draw": "number"}, "workers must be set for PFENet's draws and None otherwise, got 8"),
    ],
)
def test_impossible_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PFENET_PASCAL, **change)


@pytest.mark.parametrize("name", ["min_area", "episodes", "train_size", "test_size", "workers", "max_passes"])
@pytest.mark.parametrize("value", ["5", 5.0, True, float("nan"), [5]])
def test_numbers_are_whole(name, value):
    with pytest.raises(TypeError, match=f"{name} must be an integer, got"):
        dataclasses.replace(PFENET_PASCAL, **{name: value})


@pytest.mark.parametrize("seeds", [3, "12", [1, 2], None, ("a",), (1.0,), (True,), ((1,),)])
def test_seeds_are_a_tuple_of_whole_numbers(seeds):
    with pytest.raises(TypeError, match="seeds must be"):
        dataclasses.replace(PFENET_PASCAL, seeds=seeds)


@pytest.mark.parametrize("name", ["name", "train_images", "test_images"])
def test_names_are_strings(name):
    with pytest.raises(TypeError, match=f"{name} must be a string, got int"):
        dataclasses.replace(PFENET_PASCAL, **{name: 5})


def test_the_numbers_are_those_of_the_papers():
    assert (PFENET_PASCAL.episodes, PFENET_PASCAL.test_size, PFENET_PASCAL.workers) == (5001, 473, 8)
    assert (PFENET_COCO.episodes, PFENET_COCO.test_size, PFENET_COCO.workers) == (20001, 641, 16)
    assert (SCNET_COCO.episodes, SCNET_COCO.train_size, SCNET_COCO.split) == (20001, 473, "interleaved")
    assert (HSNET_PASCAL.episodes, HSNET_PASCAL.test_size, HSNET_PASCAL.min_area) == (1000, 400, 2048)


def test_cross_domain_sets_are_tested_as_patnet_tests_them():
    names = ["patnet-deepglobe", "patnet-isic", "patnet-chestx", "patnet-fss1000", "abcdfss-suim"]
    protocols = [PROTOCOLS[name] for name in names]
    assert {(each.test_size, each.test_resize, each.scoring, each.min_area) for each in protocols} == {
        (400, "hsnet_eval", "resized", 1)
    }
    assert [each.episodes for each in protocols] == [600, 600, 600, 2400, 1650]
    assert {each.split for each in protocols} == {"all novel"}
    assert len({each.hash() for each in protocols}) == 5
