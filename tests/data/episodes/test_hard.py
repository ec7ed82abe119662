"""Hard episodes: what they are, how many, and that the same number is always the same episode."""

from collections import Counter

import pytest

from fewshotseg.data import EpisodeDataset, SyntheticSource
from fewshotseg.data.episodes.hard import MIN_PIXELS, HardSpecs

SOURCE = SyntheticSource(60, num_classes=4, size=96)
CLASSES = [1, 2, 4]
AREAS = dict(zip(SOURCE.ids, SOURCE.class_areas, strict=True))


def specs(share=1.0, *, shots=1, length=400, seed=3, classes=CLASSES):
    usual = EpisodeDataset(SOURCE, classes, shots=shots, length=length, seed=seed).specs
    return usual, HardSpecs(usual, SOURCE, classes, share=share, seed=seed)


def kind(spec):
    if spec.query in spec.supports:
        return "same image"
    if spec.class_id not in AREAS[spec.query]:
        return "absent"
    large = [c for c in CLASSES if AREAS[spec.query].get(c, 0) >= MIN_PIXELS]
    return "two classes" if spec.class_id in large and len(large) > 1 else "usual"


@pytest.mark.parametrize("shots", [1, 3])
def test_each_is_one_of_three_kinds(shots):
    _, hard = specs(shots=shots)
    counts = Counter(map(kind, hard))
    assert counts.keys() == {"two classes", "absent", "same image"}
    assert counts["two classes"] == pytest.approx(200, abs=40)
    assert counts["absent"] == pytest.approx(100, abs=35)
    for spec in hard:
        assert spec.class_id in CLASSES
        assert len(set(spec.supports)) == shots
        assert all(spec.class_id in AREAS[support] for support in spec.supports)
    assert {spec.class_id for spec in hard} == set(CLASSES)


def test_a_share_is_exchanged_and_the_rest_stays():
    usual, hard = specs(0.25)
    changed = sum(one != other for one, other in zip(usual, hard, strict=True))
    assert changed == pytest.approx(100, abs=35)
    assert list(specs(0.0)[1]) == list(usual)


def test_a_number_is_always_the_same_episode():
    _, hard = specs(length=400)
    _, longer = specs(length=800)
    backwards = [longer[number] for number in reversed(range(400))]
    assert backwards[::-1] == list(hard) == hard[:]
    assert hard[-1] == hard[399]
    assert list(specs(seed=4)[1]) != list(hard)
    with pytest.raises(IndexError):
        hard[400]


def test_masks_of_an_absent_class_are_empty():
    episodes = EpisodeDataset(SOURCE, CLASSES, length=100)
    episodes.specs = HardSpecs(episodes.specs, SOURCE, CLASSES, share=1.0, seed=0)
    for number, spec in enumerate(episodes.specs):
        if kind(spec) == "absent":
            episode = episodes[number]
            assert not (episode.query_mask == 1).any()
            assert (episode.support_masks == 1).any()
            return
    raise AssertionError("no such episode")


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match=r"share must be from 0 to 1, got 1.5"):
        specs(1.5)
    with pytest.raises(ValueError, match="share of hard episodes must be 0 where no image shows two classes, got "):
        specs(classes=[1])
