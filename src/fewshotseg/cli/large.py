"""Photographs of any size and shape: what the model is asked, and its answer at the photograph's own size.

A large photograph is asked at several times the model's size, so that memory does not grow with it; a strip, such as
a panorama, is asked in overlapping pieces, as it would be a few rows of cells otherwise.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshotseg.models.segmentation_model import threshold_of

OVERSAMPLING = 2
"""A photograph is reduced to this many times the model's size or more."""

STRIP = 3
"""A photograph that is longer than so many times its shorter side is asked in pieces twice as long as wide."""

MOST_PIECES = 64
BAND = 256
"""Rows of the answer that are computed at a time."""


class Answer(NamedTuple):
    """What was found in a photograph of ``(H, W)``.

    Attributes:
        mask: ``(H, W)`` uint8, 0 background, 1, 2, ... the classes.
        probability: ``(H, W)`` uint8 of the most probable class, 255 being certain.
        presence: How sure the model is that each class is there, from 0 to 1.
        found: Whether each class is present enough to be looked for.
    """

    mask: Tensor
    probability: Tensor
    presence: list[float]
    found: list[bool]


def factor_for(size: tuple[int, int], side: int) -> int:
    """By how much a photograph of that height and width may be reduced for a model of that size.

    Example:
        >>> factor_for((3000, 4000), 473), factor_for((1000, 1500), 473), factor_for((60, 2000), 473)
        (4, 1, 1)
    """
    return max(1, max(_piece(size)) // (OVERSAMPLING * side))


def ask(
    predictor: Any,
    pixels: Tensor,
    size: tuple[int, int],
    *,
    threshold: float | None = None,
    min_presence: float = 0.0,
) -> Answer:
    """Segment a photograph.

    Args:
        predictor: With its examples.
        pixels: ``(3, h, w)`` uint8, the photograph, reduced or not.
        size: ``(H, W)`` that the answer should have.
        threshold: As in `fewshotseg.FewShotPredictor.predict`.
        min_presence: Classes that are less present than that are left out of the mask.
    """
    probability, presence = in_pieces(predictor, pixels, threshold)
    found = [each >= min_presence for each in presence]
    mask, certainty = at_size(probability, size, threshold_of(predictor.model, threshold), found)
    return Answer(mask, certainty, presence, found)


def _piece(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the pieces of a photograph: its own, but for strips."""
    short, long = sorted(size)
    if long <= STRIP * short:
        return size
    length = max(2 * short, -(-long * 3 // (2 * MOST_PIECES)))
    return (short, length) if size[0] == short else (length, short)


def in_pieces(predictor: Any, pixels: Tensor, threshold: float | None) -> tuple[Tensor, list[float]]:
    """Probabilities ``(K, h, w)`` and presences; of pieces that overlap the mean, less of it towards their ends."""
    height, width = size = (pixels.shape[1], pixels.shape[2])
    piece = _piece(size)
    if piece == size:
        return _predict(predictor, pixels, threshold)
    axis = 1 if height > width else 2
    ramp = torch.arange(1, max(piece) + 1).minimum(torch.arange(max(piece), 0, -1)).float()  # highest in the middle
    ramp = ramp[None, :, None] if axis == 1 else ramp[None, None]
    total: Tensor | None = None
    weight = torch.zeros(1, *((height, 1) if axis == 1 else (1, width)))
    most: list[float] = []
    for start in _starts(max(size), max(piece)):
        found, presence = _predict(predictor, pixels.narrow(axis, start, max(piece)), threshold)
        total = torch.zeros(len(found), height, width) if total is None else total
        total.narrow(axis, start, max(piece)).add_(found * ramp)
        weight.narrow(axis, start, max(piece)).add_(ramp)
        most = [max(pair) for pair in zip(most or presence, presence, strict=True)]
    assert total is not None
    return total / weight, most


def _starts(whole: int, length: int) -> list[int]:
    """Where pieces begin, each of which overlaps the next by a third or more."""
    count = -(-3 * (whole - length) // (2 * length)) + 1
    return [round(number * (whole - length) / max(count - 1, 1)) for number in range(count)]


def _predict(predictor: Any, pixels: Tensor, threshold: float | None) -> tuple[Tensor, list[float]]:
    prediction = predictor.predict(pixels, threshold=threshold)
    probability: Tensor = prediction.probability
    probability = probability if probability.ndim == 3 else probability[None]
    presence = getattr(prediction, "presence", probability.flatten(1).amax(dim=1))
    return probability, torch.as_tensor(presence).reshape(-1).tolist()


def at_size(
    probability: Tensor, size: tuple[int, int], threshold: float, found: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """The mask and the largest probability, both ``(H, W)`` uint8, of probabilities ``(K, h, w)``."""
    mask, certainty = (torch.empty(size, dtype=torch.uint8) for _ in range(2))
    kept = torch.tensor(found)[:, None, None]
    for rows, band in _bands(probability, size):
        certainty[rows] = (255 * band.amax(dim=0)).round().to(torch.uint8)
        best, label = (band * kept).max(dim=0)
        mask[rows] = torch.where(best > threshold, label + 1, 0).to(torch.uint8)
    return mask, certainty


def _bands(probability: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the probabilities at another size, between whose samples the log of the odds is a straight line."""
    height, width = size
    same = tuple(probability.shape[1:]) == size
    scores = probability if same else probability.logit(eps=1e-6)
    last = scores.shape[1] - 1
    for top in range(0, height, BAND):
        rows = slice(top, min(top + BAND, height))
        if same:
            yield rows, probability[:, rows]
            continue
        position = torch.arange(rows.start, rows.stop) * (last / max(height - 1, 1))
        above = position.long().clamp(max=last)
        lines = torch.lerp(
            scores[:, above], scores[:, (above + 1).clamp(max=last)], (position - above).float()[None, :, None]
        )
        lines = F.interpolate(lines[None], size=(lines.shape[1], width), mode="bilinear", align_corners=True)[0]
        yield rows, lines.sigmoid()
