"""Does an answer follow its example, or does it find whatever stands out? Asked on photographs that show two classes.

    python examples/study/follow_support.py voc12_val --model run/last.pth       # of `fewshotseg train`
    python examples/study/follow_support.py voc12_val --model scnet-lite0        # of the package
    python examples/study/follow_support.py voc12_val --model prototypes-lite0   # nothing trained, for comparison

mIoU on images of a class cannot tell: who finds the main object without a look at the example scores well there. Here
each of two classes in an image is asked for by an example of it, then a class that the image does not show.
"""

import argparse
import random
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

import fewshotseg as fs
from fewshotseg.data import SegmentationSource
from fewshotseg.training.benchmark import open_folder


class Followed(NamedTuple):
    """What is found, on average.

    Attributes:
        asked: IoU of the answer with the class that was asked for.
        other: IoU of that answer with the other class.
        told_apart: Of the pixels of either class, the share whose probability is higher for the own example than for
            that of the other class; each class counts one half. One half is chance.
        absent: The share of the image that is answered to an example of a class that it does not show.
        questions: How many examples of classes in the image there were.
    """

    asked: float
    other: float
    told_apart: float
    absent: float
    questions: int


def measure(
    predictor: fs.FewShotPredictor,
    source: SegmentationSource,
    *,
    images: int = 100,
    min_share: float = 0.05,
    classes: Collection[int] | None = None,
) -> Followed:
    """Ask for each of two classes in an image, and for one that is not in it.

    Args:
        predictor: What answers.
        source: Photographs with masks.
        images: How many of those with exactly two classes, always the same ones.
        min_share: What each of them must at least cover of the classes' pixels in a mask.
        classes: Those to ask for, such as the novel ones of a fold; all by default.

    Raises:
        ValueError: If no image shows two classes, or some class is nowhere alone.
    """
    draw = random.Random(0)
    asked = set(source.class_names if classes is None else classes)
    alone = {c: [i for i, areas in enumerate(source.class_areas) if set(areas) == {c}] for c in source.class_names}
    alone = {class_id: found for class_id, found in alone.items() if found}
    two = [
        i
        for i, areas in enumerate(source.class_areas)
        if len(areas) == 2 and min(areas.values()) > min_share * sum(areas.values())
        if asked & set(areas) and alone.keys() > set(areas)
    ]
    if not two:
        raise ValueError("source must have images of two classes, and images of each of these and of a third alone")

    def ask(class_id: int, image: Tensor) -> Tensor:
        support, mask = source.load(draw.choice(alone[class_id]))
        predictor.set_support(support, torch.where(mask == 255, 255, (mask == class_id).long()))
        return predictor.predict(image).probability

    rows = []
    for i in draw.sample(two, min(images, len(two))):
        image, mask = source.load(i)
        first, second = sorted(source.class_areas[i])
        absent = draw.choice(sorted((alone.keys() & asked) - {first, second} or alone.keys() - {first, second}))
        found = {class_id: ask(class_id, image) for class_id in (first, second, absent)}
        known = mask != 255
        for own, other in ((first, second), (second, first)):
            if own not in asked:
                continue
            answer = (found[own] > 0.5) & known
            rows.append(
                (
                    iou(answer, mask == own),
                    iou(answer, mask == other),
                    float((found[own] > found[other])[mask == own].float().mean()),
                    float((found[absent] > 0.5).float().mean()),
                )
            )
    return Followed(*(fmean(column) for column in zip(*rows, strict=True)), len(rows))


def iou(answer: Tensor, target: Tensor) -> float:
    """Of two masks, of which the second holds something."""
    return float((answer & target).sum() / (answer | target).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="follow_support.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder with images/ and masks/, or VOC 2012")
    parser.add_argument("--model", required=True, help="a name or a file")
    parser.add_argument("--images", type=int, default=100, help="with two classes (default: 100)")
    parser.add_argument("--classes", type=int, nargs="+", help="ids of those to ask for (default: all)")
    parser.add_argument("--size", type=int, help="side in pixels (default: what the model was trained with)")
    options = parser.parse_args(arguments)
    try:
        predictor = fs.FewShotPredictor.from_pretrained(options.model, size=options.size or "model")
        found = measure(predictor, open_folder(options.data), images=options.images, classes=options.classes)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {str(error).splitlines()[0]}\n")
    for name, value in found._asdict().items():
        print(f"{name:<11}{value:.3f}" if isinstance(value, float) else f"{name:<11}{value}")


if __name__ == "__main__":
    main()
