import csv
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from _tiny_source import TinySource
from fewshotseg.data.episodes.lists import episodes_hash
from fewshotseg.data.episodes.pfenet import pfenet_episodes

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

MIN_AREA = 20


def make_source(num_images=60, classes=(1, 2, 3, 4), seed=0):
    """Some images without a class of the fold, some with small objects only, some with several classes."""
    stream = random.Random(seed)
    areas = []
    for _ in range(num_images):
        shown = [class_id for class_id in (*classes, 9) if stream.random() < 0.45]
        areas.append({class_id: stream.choice([3, MIN_AREA - 1, MIN_AREA, 35]) for class_id in shown})
    return TinySource(areas, size=(16, 16))


class OriginalLoader(Dataset):
    """The original's data set, step by step: lists from label arrays, draws from Python's global generator."""

    def __init__(self, source, class_ids, shots):
        self.labels = [source.load(index).mask.numpy() for index in range(len(source.ids))]
        self.class_ids, self.shots = class_ids, shots
        self.queries, self.files = [], {class_id: [] for class_id in class_ids}
        for index, label in enumerate(self.labels):
            values = [value for value in np.unique(label).tolist() if value not in (0, 255) and value in class_ids]
            values = [value for value in values if (label == value).sum() >= MIN_AREA]
            if values:
                self.queries.append(index)
            for value in values:
                self.files[value].append(index)

    def __len__(self):
        return len(self.queries)

    def __getitem__(self, position):
        query = self.queries[position]
        values = [value for value in np.unique(self.labels[query]).tolist() if value in self.class_ids]
        chosen = values[random.randint(1, len(values)) - 1]
        files, used, supports = self.files[chosen], [], []
        for _ in range(self.shots):
            place = random.randint(1, len(files)) - 1
            support = query
            while support == query or place in used:
                place = random.randint(1, len(files)) - 1
                support = files[place]
            used.append(place)
            supports.append(support)
        return query, chosen, supports


def original_episodes(source, class_ids, *, shots, workers, passes, seed=321):
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(seed)
            torch.manual_seed(seed)
            data = OriginalLoader(source, class_ids, shots)
            loader = DataLoader(data, num_workers=workers, collate_fn=lambda items: items[0])
            episodes = [episode for _ in range(passes) for episode in loader]
        finally:
            random.setstate(state)
    return [
        (chosen, source.ids[query], tuple(source.ids[support] for support in supports))
        for query, chosen, supports in episodes
    ]


@pytest.mark.parametrize("shots", [1, 2, 5])
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_equal_to_a_loader_with_real_workers(workers, shots):
    source = make_source()
    episodes = pfenet_episodes(source, [3, 1, 4, 2], shots=shots, workers=workers, max_passes=3, min_area=MIN_AREA)
    assert episodes == original_episodes(source, [1, 2, 3, 4], shots=shots, workers=workers, passes=3)
    assert len({spec.class_id for spec in episodes}) == 4


def test_equal_with_another_seed_and_fewer_images_than_workers():
    source = TinySource([{1: MIN_AREA, 2: 5}, {1: 40}, {1: MIN_AREA}, {2: MIN_AREA}, {2: 30}, {2: 1}], size=(16, 16))
    episodes = pfenet_episodes(source, [1, 2], workers=7, max_passes=2, min_area=MIN_AREA, seed=5)
    assert episodes == original_episodes(source, [1, 2], shots=1, workers=7, passes=2, seed=5)


def test_small_objects_are_queries_but_never_supports():
    source = make_source()
    areas = dict(zip(source.ids, source.class_areas, strict=True))
    episodes = pfenet_episodes(source, [1, 2, 3, 4], min_area=MIN_AREA)
    assert any(areas[spec.query][spec.class_id] < MIN_AREA for spec in episodes)
    assert all(areas[support][spec.class_id] >= MIN_AREA for spec in episodes for support in spec.supports)
    large = {name for name in source.ids if any(areas[name].get(c, 0) >= MIN_AREA for c in (1, 2, 3, 4))}
    assert {spec.query for spec in episodes} == large != set(source.ids)


def test_length_and_passes_bound_the_list():
    source = make_source()
    one_pass = pfenet_episodes(source, [1, 2], min_area=MIN_AREA, max_passes=1)
    assert 0 < len(one_pass) < 60
    assert len(pfenet_episodes(source, [1, 2], min_area=MIN_AREA)) == 20 * len(one_pass)
    assert len(pfenet_episodes(source, [1, 2], min_area=MIN_AREA, max_passes=1000)) == 5001
    assert pfenet_episodes(source, [1, 2], min_area=MIN_AREA, length=7) == one_pass[:7]


def test_random_states_stay_as_they_were():
    before = torch.get_rng_state(), random.getstate()
    pfenet_episodes(make_source(), [1], min_area=MIN_AREA)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_where_the_original_would_search_for_ever_it_is_an_error():
    source = TinySource([{1: 30}, {1: 30}, {1: 30, 2: 30}, {2: 5}], size=(16, 16))
    assert pfenet_episodes(source, [1], shots=2, min_area=MIN_AREA)
    with pytest.raises(ValueError, match=r"at least 4 images .* got 1 \(class 1\): 3"):
        pfenet_episodes(source, [1], shots=3, min_area=MIN_AREA)
    with pytest.raises(ValueError, match=r"of 20 pixels or more, got 2 \(class 2\): 1"):
        pfenet_episodes(source, [1, 2], min_area=MIN_AREA)
    with pytest.raises(ValueError, match=r"got 1 \(class 1\): 0"):
        pfenet_episodes(source, [1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 0}, "shots must be at least 1"),
        ({"length": 0}, "length must be at least 1"),
        ({"max_passes": 0}, "max_passes must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"min_area": 0}, "min_area must be at least 1"),
        ({"class_ids": []}, "got no class"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pfenet_episodes(make_source(), **{"class_ids": [1], "min_area": MIN_AREA, **settings})


# Class, query and support of the first episodes of fold 0, 1 shot, 8 workers, on VOC 2012 val with masks whose longer
# side has 400 pixels; the hash is that of two passes.
FIRST = [
    (1, "2007_000033", "2008_003926"),
    (4, "2007_000061", "2009_000828"),
    (2, "2007_000129", "2007_005107"),
    (5, "2007_000346", "2010_004828"),
    (4, "2007_000529", "2009_000469"),
    (5, "2007_000559", "2009_002732"),
    (2, "2007_000572", "2009_002928"),
    (5, "2007_000762", "2009_005190"),
    (1, "2007_001288", "2007_001884"),
    (3, "2007_001289", "2009_004568"),
    (2, "2007_001311", "2009_002295"),
    (5, "2007_001408", "2007_004468"),
    (1, "2007_001568", "2007_005828"),
    (2, "2007_001630", "2008_008711"),
    (1, "2007_001761", "2008_001971"),
    (1, "2007_001884", "2009_001850"),
    (3, "2007_002094", "2011_003145"),
    (1, "2007_002266", "2010_005718"),
    (1, "2007_002376", "2008_003369"),
    (3, "2007_002400", "2007_009088"),
    (1, "2007_002619", "2010_002939"),
    (4, "2007_002719", "2009_003504"),
    (4, "2007_003131", "2009_000446"),
    (2, "2007_003188", "2008_002269"),
    (3, "2007_003349", "2010_003820"),
    (4, "2007_003571", "2010_005401"),
    (3, "2007_003682", "2009_001160"),
    (4, "2007_003861", "2010_003547"),
    (1, "2007_004052", "2010_003495"),
    (3, "2007_004143", "2009_003378"),
    (4, "2007_004241", "2010_005401"),
    (5, "2007_004468", "2010_004551"),
    (3, "2007_005074", "2011_001287"),
    (2, "2007_005107", "2011_002713"),
    (5, "2007_005294", "2007_000559"),
    (5, "2007_005304", "2009_000840"),
    (5, "2007_005428", "2009_002594"),
    (1, "2007_005509", "2009_002320"),
    (1, "2007_005600", "2010_005877"),
    (4, "2007_005705", "2007_007477"),
]
TWO_PASSES = "4a6e4736aa4eca5030e07a4a4de5bd57640c6f17558f774f33ab9df9c03fde09"


class Areas:
    """The areas of the masks in an ``index.csv``; images are not needed."""

    def __init__(self, folder):
        self.class_names, self.ids, self.class_areas = {}, [], []
        with (folder / "index.csv").open(newline="") as rows:
            for row in csv.DictReader(rows):
                with Image.open(folder / row["mask"]) as mask:
                    counts = np.bincount(np.asarray(mask).ravel(), minlength=256).tolist()
                self.ids.append(row["id"])
                self.class_areas.append({value: counts[value] for value in range(1, 255) if counts[value]})

    def load(self, index):
        raise AssertionError("no image is needed")


@pytest.mark.data
def test_equal_to_the_recorded_episodes_of_the_original():
    folder = Path(os.environ.get("FEWSHOTSEG_DATA", "")) / "voc12_val"
    if not folder.is_dir():
        pytest.skip("needs a folder in $FEWSHOTSEG_DATA that holds voc12_val")
    source = Areas(folder)
    episodes = pfenet_episodes(source, range(1, 6), max_passes=2)
    assert len(episodes) == 684
    assert [(class_id, query, *supports) for class_id, query, supports in episodes[:40]] == FIRST
    assert episodes_hash(episodes) == TWO_PASSES
