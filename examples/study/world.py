"""A test that looks like the world: photographs of COCO, all kinds of things, of any size, and things that are absent.

    python examples/study/world.py coco_mini --model scnet-lite0 --out world.json
    python examples/study/world.py coco_mini --model run/last.pth --size 641 --folds 0 --out other.json
    python examples/study/world.py coco_mini --model prototypes --folds 0 --against other.json --out free.json

The folder has images/ and instances.json. Asked for are the classes of folds of COCO-20i that six photographs show at
least; of a model that learned some classes of COCO, name the folds that it has not seen. With --known it is asked for
the classes that it has learned instead, in the photographs of these folds, which its training left out. Pixels are
counted at the photographs' own size, in the masks that people get. Brackets hold 95 % of what other draws of the
classes would give.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import fewshotseg as fs
from fewshotseg.cli.settings import TRAINING_FREE, training_free
from fewshotseg.data import EpisodeDataset, SegmentationSource, coco20i
from fewshotseg.training.benchmark import MIN_TESTED, KeptSource, open_folder, well_stocked, with_classes
from follow_support import iou
from measuring import Counted
from presence import SHARE
from world_table import SHOTS, table


def measure(
    predictor: fs.FewShotPredictor,
    source: SegmentationSource,
    class_ids: Sequence[int],
    *,
    episodes: int,
    examples: int,
) -> dict[str, Any]:
    """All numbers of a model, for JSON.

    Args:
        predictor: What answers.
        source: Photographs of COCO.
        class_ids: Those to ask for.
        episodes: How many with one example, and how many with five.
        examples: Of each class, for the questions of `ask`.
    """
    test = KeptSource(with_classes(source, class_ids))
    found: dict[str, Any] = {"names": {c: source.class_names[c] for c in class_ids}, "size": predictor.size}
    for shots in SHOTS:
        drawn = EpisodeDataset(test, class_ids, shots=shots, length=episodes, seed=0)
        metric = Counted(class_ids, class_names=source.class_names)
        for class_id, query, supports in drawn.specs:
            predictor.set_support(*zip(*(drawn.sample(support, class_id) for support in supports), strict=True))
            image, mask = drawn.sample(query, class_id)
            inside = predictor.predict(image).mask > 0
            metric.update(torch.stack([~inside, inside])[None].float(), mask[None], class_id)
        found[f"{shots}-shot"] = {**metric.compute().to_dict(), "counts": metric.episodes}
    return found | {"answers": [*ask(predictor, test, class_ids, examples)]}


def ask(
    predictor: fs.FewShotPredictor, source: SegmentationSource, class_ids: Sequence[int], examples: int
) -> Iterator[dict[str, Any]]:
    """Ask by an example for its own photograph, for others with and without it, and for one of two things in one.

    All but those without it show it on 2 % at least: what is smaller is an example for nobody.
    """
    masks = (source.load(i).mask.flatten() for i in range(len(source.ids)))
    shares = [mask.bincount(minlength=256) / len(mask) for mask in masks]
    shows = {c: [i for i, share in enumerate(shares) if share[c] >= SHARE] for c in class_ids}
    for class_id in class_ids:
        draw = random.Random(class_id)
        without = [i for i, areas in enumerate(source.class_areas) if class_id not in areas]
        for example in draw.sample(shows[class_id], min(examples, len(shows[class_id]))):
            others = [i for i in shows[class_id] if i != example]
            two = [(i, other) for other in class_ids for i in shows[other] if other != class_id and i in others]
            show(predictor, source, example, class_id)
            absent = predictor.predict(source.load(draw.choice(without)).image)
            answer = {
                "class": class_id,
                "own": _iou_at(predictor, source, example, class_id)[0],
                "absent": [float(absent.presence), float((absent.mask > 0).float().mean())],
                "present": _iou_at(predictor, source, draw.choice(others), class_id) if others else None,
            }
            if two:
                query, other = draw.choice(two)
                image, mask = source.load(query)
                found = predictor.predict(image)
                show(predictor, source, draw.choice([i for i in shows[other] if i != query] or [query]), other)
                higher = found.probability > predictor.predict(image).probability
                apart = [float((higher == own)[mask == c].float().mean()) for c, own in ((class_id, 1), (other, 0))]
                answer["two"] = [
                    iou(found.mask > 0, mask == class_id),
                    iou(found.mask > 0, mask == other),
                    fmean(apart),
                ]
            yield answer


def show(predictor: fs.FewShotPredictor, source: SegmentationSource, index: int, class_id: int) -> None:
    """Give the class in a photograph as the example."""
    image, mask = source.load(index)
    predictor.set_support([image], [(mask == class_id).long()])


def _iou_at(predictor: fs.FewShotPredictor, source: SegmentationSource, index: int, class_id: int) -> list[float]:
    image, mask = source.load(index)
    found = predictor.predict(image)
    return [iou(found.mask > 0, mask == class_id), float(found.presence)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="world.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", type=Path, help="a folder with images/ and instances.json")
    add("--model", required=True, help=f"a name, a file, or {TRAINING_FREE}: a model that needs no training")
    add("--settings", nargs="+", default=[], metavar="FIELD=VALUE", help=f"of {TRAINING_FREE}, such as score=cosine")
    add("--size", type=int, help="side in pixels (default: the model's)")
    add("--folds", type=int, nargs="+", choices=range(4), default=[0, 1, 2], help="of COCO-20i (default: 0 1 2)")
    add("--known", action="store_true", help="ask for all other classes, in photographs of these")
    add("--episodes", type=int, default=500, help="with one example, and with five (default: 500)")
    add("--examples", type=int, default=4, help="of each class, for questions one by one (default: 4)")
    add("--against", type=Path, help="a file of other numbers, to show differences")
    add("--out", type=Path, required=True, help="file of the numbers")
    options = parser.parse_args(arguments)
    try:
        source = open_folder(options.data)
        asked = novel = {c for fold in options.folds for c in coco20i(fold).novel}
        if options.known:
            source, asked = with_classes(source, novel), source.class_names.keys() - novel
        class_ids = well_stocked(source, sorted(asked), MIN_TESTED)
        if not class_ids:
            raise ValueError("data must be a folder of photographs that show a class asked for six times, got none")
        if options.model == TRAINING_FREE:
            model = training_free({"model": options.settings})
            predictor = fs.FewShotPredictor(model, size=options.size or model.config.image_size)
        else:
            size = options.size or "model"
            predictor = fs.FewShotPredictor.from_pretrained(options.model, size=size, check_examples=False)
        other = json.loads(options.against.read_text()) if options.against else None
        found = measure(predictor, source, class_ids, episodes=options.episodes, examples=options.examples)
        options.out.write_text(json.dumps({"model": options.model, "folds": options.folds, **found}) + "\n")
        print(table(json.loads(options.out.read_text()), other))
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
