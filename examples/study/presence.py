"""Fit the two numbers of a model's score of presence, on classes that it was not trained on, and test them on others.

    python examples/study/presence.py val2017/ instances_val2017.json --model scnet-lite0 --out presence.json \
        --without person car bus
    fewshotseg export run/last.pth mugs.pth --format model --presence 1.02 -2.51

Photographs with the object and photographs without it, as many of each, are asked for it by an example from another
photograph. A logistic function of what the model computes the score from is fitted to half of the classes, to answers
for photographs of which the object takes 2 % at least; the other half tests it. Examples are asked of their own
photographs too: how badly do those do elsewhere that are not found there?
"""

import argparse
import json
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import fewshotseg as fs
from fewshotseg.data import COCOSource, SegmentationSource

SHARE = 0.02
"""Of a photograph: smaller objects are examples for nobody, and what is not seen cannot be told from what is absent."""


class Answer(NamedTuple):
    """To one question: is the class in this photograph?

    Attributes:
        class_name: Of the example.
        evidence: What the score is computed from.
        share: Of the photograph that the class takes; 0 where it is absent.
        iou: With the mask, where the class is present.
        own_iou: Of the example with its own photograph.
    """

    class_name: str
    evidence: float
    share: float
    iou: float
    own_iou: float


def ask(predictor: fs.FewShotPredictor, source: SegmentationSource, class_id: int, examples: int) -> Iterator[Answer]:
    """Ask for a class in two photographs that show it and two that do not, by each of a few examples."""
    draw = random.Random(class_id)
    name = source.class_names[class_id]
    shares = {i: _share(source, i, class_id) for i, areas in enumerate(source.class_areas) if class_id in areas}
    without = [i for i in range(len(source.class_areas)) if i not in shares]
    large = [i for i, share in shares.items() if share >= SHARE]
    for example in draw.sample(large, min(examples, len(large))):
        others = [i for i in shares if i != example]
        if not others:
            continue
        image, mask = source.load(example)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of examples that are not found: they are counted
            predictor.set_support(image, (mask == class_id).long())
        ((own,),) = predictor.example_iou
        few = min(2, len(others))
        for i in [*draw.sample(others, few), *draw.sample(without, few)]:
            image, mask = source.load(i)
            found = predictor.predict(image)
            evidence = float(torch.logit(found.presence.double(), eps=1e-12))
            iou = _iou(found.mask == 1, mask == class_id) if i in shares else 0.0
            yield Answer(name, evidence, shares.get(i, 0.0), iou, own)


def fit(answers: Sequence[Answer]) -> tuple[float, float]:
    """Scale and bias of the logistic function that fits best, both kinds of photographs weighing the same."""
    evidence, present, weight = _columns(answers)
    numbers = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        said = numbers[0] * evidence + numbers[1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(said, present, weight)
        value.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        return value

    optimizer.step(loss)
    scale, bias = numbers.detach().tolist()
    return round(max(scale, 0.0), 3), round(bias, 3)


def auroc(answers: Sequence[Answer]) -> float:
    """How often a photograph with the object has the higher score of two, one with it and one without."""
    evidence, present, _ = _columns(answers)
    there, absent = evidence[present > 0], evidence[present == 0]
    higher = (there[:, None] > absent).double() + 0.5 * (there[:, None] == absent)
    return float(higher.mean())


def interval(answers: Sequence[Answer], draws: int = 1000) -> tuple[float, float]:
    """Where 95 % of the AUROCs lie if other classes had been drawn."""
    draw = random.Random(0)
    by_class: dict[str, list[Answer]] = {}
    for answer in answers:
        by_class.setdefault(answer.class_name, []).append(answer)
    names = [*by_class]
    found = sorted(
        auroc([a for name in draw.choices(names, k=len(names)) for a in by_class[name]]) for _ in range(draws)
    )
    return found[round(0.025 * draws)], found[round(0.975 * draws) - 1]


def calibration(answers: Sequence[Answer], numbers: tuple[float, float]) -> list[dict[str, float]]:
    """What was said, in fifths of the photographs, and how many of these show the object."""
    evidence, present, weight = _columns(answers)
    said = torch.sigmoid(numbers[0] * evidence + numbers[1])
    columns = {"said": said, "present": present}
    return [
        {name: float((column * weight)[part].sum() / weight[part].sum()) for name, column in columns.items()}
        for part in said.argsort().tensor_split(5)
    ]


def report(answers: Sequence[Answer]) -> dict[str, object]:
    """Fit on every other class, test on the rest, and count how examples do elsewhere that are not found at home."""
    names = sorted({answer.class_name for answer in answers})
    halves = [[a for a in answers if a.class_name in names[first::2]] for first in (0, 1)]
    seen = [[a for a in half if not 0 < a.share < SHARE] for half in halves]
    numbers = fit(seen[0])
    large = [a for a in halves[1] if a.share == 0 or a.share >= 0.1]
    elsewhere = {}
    for low, high in ((0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.6), (0.6, 1.01)):
        found = [a.iou for a in answers if a.share >= SHARE and low <= a.own_iou < high]
        elsewhere[f"{low:.1f}-{min(high, 1):.1f}"] = [len(found), sum(found) / max(len(found), 1)]
    return {
        "presence": numbers,
        "fitted to": {"classes": len(names[0::2]), "answers": len(seen[0])},
        "tested on": {"classes": len(names[1::2]), "answers": len(seen[1])},
        "AUROC, objects from 2 %": [auroc(seen[1]), *interval(seen[1])],
        "AUROC, objects from 10 %": [auroc(large), *interval(large)],
        "AUROC, objects of all sizes": [auroc(halves[1]), *interval(halves[1])],
        "calibration, objects from 2 %": calibration(seen[1], numbers),
        "IoU elsewhere by IoU at home": elsewhere,
    }


def _columns(answers: Sequence[Answer]) -> tuple[Tensor, Tensor, Tensor]:
    """Evidence; 1 where the object is present; weights with which both kinds of photographs count the same."""
    evidence, present = torch.tensor([(a.evidence, a.share > 0) for a in answers], dtype=torch.float64).T
    return evidence, present, torch.where(present > 0, 0.5 / present.mean(), 0.5 / (1 - present.mean()))


def _share(source: SegmentationSource, index: int, class_id: int) -> float:
    return float((source.load(index).mask == class_id).float().mean())


def _iou(answer: Tensor, target: Tensor) -> float:
    return float((answer & target).sum() / (answer | target).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, fit, test and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of the photographs")
    parser.add_argument("annotations", type=Path, help="COCO's instances_*.json")
    parser.add_argument("--model", required=True, help="a name, a file or a folder")
    parser.add_argument("--without", nargs="*", default=[], help="names of classes that the model was trained on")
    parser.add_argument("--examples", type=int, default=5, help="of each class (default: 5)")
    parser.add_argument("--out", type=Path, required=True, help="file of the report")
    options = parser.parse_args(arguments)
    source = COCOSource(options.images, options.annotations)
    predictor = fs.FewShotPredictor.from_pretrained(options.model)
    predictor.model.config = replace(predictor.model.config, presence=(1.0, 0.0))
    answers: list[Answer] = []
    for class_id, name in source.class_names.items():
        if name not in options.without:
            answers += ask(predictor, source, class_id, options.examples)
            print(f"{name}: {len(answers)} answers", flush=True)
    options.out.write_text(json.dumps(report(answers) | {"answers": answers}) + "\n")


if __name__ == "__main__":
    main()
