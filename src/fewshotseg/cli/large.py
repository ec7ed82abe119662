"""Runs a predictor on photographs of any size and shape, and resizes the result to the photograph's own size.

A large photograph is first reduced to a few times the model's size, so that memory does not grow with it. A strip, such
as a panorama, is predicted in overlapping pieces, as it would shrink to a few rows of the feature grid otherwise.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshotseg._regions import weak_regions
from fewshotseg.ops import resize_bilinear

OVERSAMPLING = 2
"""A photograph is reduced to no less than this many times the model's size."""

STRIP = 3
"""A photograph whose sides have a larger ratio is predicted in pieces twice as long as wide."""

MOST_PIECES = 64
BAND = 256
"""Rows of the mask that are computed at a time."""


class Scores(NamedTuple):
    """The model's prediction for a photograph, at its reduced size.

    Attributes:
        probability: ``(K, h, w)`` float32, the probability of each class.
        presence: How sure the model is that each class is present, from 0 to 1.
    """

    probability: Tensor
    presence: list[float]


class Answer(NamedTuple):
    """The prediction at the photograph's own size ``(H, W)``.

    Attributes:
        mask: ``(H, W)`` uint8: 0 background, 1, 2, ... the classes.
        probability: ``(H, W)`` uint8, that of the most probable class times 255; None if it was not asked for.
        presence: As in `Scores`.
        found: For each class whether its presence reaches the minimum.
    """

    mask: Tensor
    probability: Tensor | None
    presence: list[float]
    found: list[bool]


def factor_for(size: tuple[int, int], side: int) -> int:
    """Compute the whole factor to reduce a photograph by, from its height and width and the model's size.

    Example:
        >>> factor_for((3000, 4000), 473), factor_for((1000, 1500), 473), factor_for((60, 2000), 473)
        (4, 1, 1)
    """
    return max(1, max(_piece(size)) // (OVERSAMPLING * side))


def ask(predictor: Any, pixels: Tensor) -> Scores:
    """Predict a photograph, or a strip in pieces; where these overlap, the piece whose middle is nearer weighs more.

    Args:
        predictor: A `fewshotseg.FewShotPredictor` that has its examples.
        pixels: ``(3, h, w)`` uint8, reduced or not.
    """
    height, width = size = (pixels.shape[1], pixels.shape[2])
    piece = _piece(size)
    if piece == size:
        return _predict(predictor, pixels)
    axis = 1 if height > width else 2
    ramp = torch.arange(1, max(piece) + 1).minimum(torch.arange(max(piece), 0, -1)).float()  # highest in the middle
    ramp = ramp[None, :, None] if axis == 1 else ramp[None, None]
    total: Tensor | None = None
    weight = torch.zeros(1, *((height, 1) if axis == 1 else (1, width)))
    most: list[float] = []
    for start in _starts(max(size), max(piece)):
        found = _predict(predictor, pixels.narrow(axis, start, max(piece)))
        total = torch.zeros(len(found.presence), height, width) if total is None else total
        total.narrow(axis, start, max(piece)).add_(found.probability * ramp)
        weight.narrow(axis, start, max(piece)).add_(ramp)
        most = [max(pair) for pair in zip(most or found.presence, found.presence, strict=True)]
    assert total is not None
    return Scores(total / weight, most)


def answer(
    scores: Scores,
    size: tuple[int, int],
    threshold: float,
    *,
    peak: float = 0.0,
    min_presence: float = 0.0,
    probability: bool = True,
) -> Answer:
    """Resize a prediction to the photograph's own size and apply the threshold, a few rows at a time.

    Args:
        scores: The prediction.
        size: Height and width of the photograph.
        threshold: A pixel whose most probable class has a probability above this gets that class.
        peak: Regions whose largest probability is not above this are left out of the mask.
        min_presence: Classes with a presence below this, 0 to 1, are left out of the mask.
        probability: Whether to return the probability too.
    """
    found = [each >= min_presence for each in scores.presence]
    ids = torch.tensor([number for number, each in enumerate(found, start=1) if each], dtype=torch.uint8)
    mask = torch.zeros(size, dtype=torch.uint8)
    certainty = torch.empty(size, dtype=torch.uint8) if probability else None
    odds = tuple(scores.probability.shape[1:]) != size
    maps = scores.probability.logit(eps=1e-6) if odds else scores.probability
    cut = math.log(threshold / (1 - threshold)) if odds else threshold
    if certainty is not None:
        for rows, band in _bands(maps, size):
            best = band.amax(dim=0)
            certainty[rows] = (255 * (best.sigmoid() if odds else best)).round().to(torch.uint8)
    if peak > threshold:
        maps = torch.where(weak_regions(scores.probability, threshold, peak), maps.clamp(max=cut), maps)
    for rows, band in _bands(maps, size):
        if len(ids) == 1:  # a tenth of the time
            mask[rows] = (band[ids[0].long() - 1] > cut) * ids[0]
        elif len(ids):
            best, label = (band if all(found) else band[ids.long() - 1]).max(dim=0)
            mask[rows] = (best > cut) * ids[label]
    return Answer(mask, certainty, scores.presence, found)


def _piece(size: tuple[int, int]) -> tuple[int, int]:
    """Compute the height and width of the pieces of a photograph: its own size, unless it is a strip."""
    short, long = sorted(size)
    if long <= STRIP * short:
        return size
    length = max(2 * short, -(-long * 3 // (2 * MOST_PIECES)))
    return (short, length) if size[0] == short else (length, short)


def _starts(whole: int, length: int) -> list[int]:
    """Compute where the pieces begin, so that neighbours overlap by at least a third."""
    count = -(-3 * (whole - length) // (2 * length)) + 1
    return [round(number * (whole - length) / max(count - 1, 1)) for number in range(count)]


def _predict(predictor: Any, pixels: Tensor) -> Scores:
    prediction = predictor.predict(pixels)
    probability: Tensor = prediction.probability
    probability = probability if probability.ndim == 3 else probability[None]
    return Scores(probability, prediction.presence.reshape(-1).tolist())


def _bands(maps: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Resize ``(K, h, w)`` maps as `fewshotseg.ops.resize_bilinear` does, and yield them in bands of rows."""
    height, width = size
    last = maps.shape[1] - 1
    for top in range(0, height, BAND):
        rows = slice(top, min(top + BAND, height))
        position = torch.arange(rows.start, rows.stop) * (last / max(height - 1, 1))
        above = position.long().clamp(max=last)
        below = (above + 1).clamp(max=last)
        lines = torch.lerp(maps[:, above], maps[:, below], (position - above).float()[None, :, None])
        yield rows, resize_bilinear(lines[None], (lines.shape[1], width))[0]
