"""A learned linear map of points and a memory of clutter, with which densities tell objects from backgrounds better."""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_at_least
from fewshotseg.models.backbones import AnyBackbone
from fewshotseg.models.config import MAX_CHANNELS
from fewshotseg.models.frozen import frozen_steps
from fewshotseg.ops import density_logits, sample_centroids, sample_nearest
from fewshotseg.ops._precision import at_least_float32, unit

KAPPA = 16.0
"""Concentration of the densities before training."""

STEP = 0.1
"""How far the map moves when its weights move by 1.

An optimizer like AdamW moves all weights equally fast. This map starts as the identity, which is a good map already,
and at the rate of the comparison head it would learn the classes of its training by heart.
"""

CLUTTER, CLUTTER_OF_IMAGE = 1024, 4
"""How many points of clutter are kept, and how many of them each query of a training step replaces."""

CLUTTER_SHARE = 0.2
"""Share of the clutter in the density of the background."""


class PointMap(nn.Module):
    """Computes the log-density of an object minus that of its background, after a learned linear map of all points.

    An example shows little of what else there is in the world, and whatever it does not show is easily taken for the
    object. So in evaluation mode a fifth of the background's density comes from clutter: points of the latest images of
    training.

    Before training the map is the identity and there is no clutter, so that it is `density_logits` at a lower
    concentration.

    Args:
        channels: Number of channels of the points, before the map and after it.

    Attributes:
        clutter: ``(1024, C)`` points of unit length; those that are still zero do not count.
        oldest: The row of ``clutter`` that is replaced next.
        linear: What is added to each point, before it is scaled by `STEP`.
        log_kappa: Log of the concentration, see `density_logits`.
        bias: Is added to the result.

    Example:
        >>> import torch
        >>> object_and_background = torch.eye(2)[None]  # B M C
        >>> shares = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> image = torch.tensor([[[[1.0, 0.0, 2.0]], [[0.0, 1.0, 2.0]]]])
        >>> PointMap(2)(image, object_and_background, *shares)
        tensor([[[[ 16., -16.,   0.]]]], grad_fn=<AddBackward0>)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_at_least("channels", channels, 1, MAX_CHANNELS)
        self.clutter: Tensor
        self.oldest: Tensor
        self.register_buffer("clutter", torch.zeros(CLUTTER, channels))
        self.register_buffer("oldest", torch.tensor(0))
        self.linear = nn.Linear(channels, channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.log_kappa = nn.Parameter(torch.tensor(math.log(KAPPA)))
        self.bias = nn.Parameter(torch.tensor(0.0))

    @override
    def forward(self, features: Tensor, points: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """Compute the logit of foreground at every location.

        Args:
            features: ``(B, C, h, w)`` of the images to segment.
            points: ``(B, M, C)``, of all examples together.
            foreground: ``(B, M)``, how much each point belongs to the object, from 0 to 1.
            background: ``(B, M)``, how much to the background. If nothing does, clutter is all the background.

        Returns:
            ``(B, 1, h, w)`` in at least float32.
        """
        if not self.training:  # a map that is learned with clutter tells an example from its own background less well
            points, foreground, background = self._with_clutter(points, foreground, background)
        locations = rearrange(unit(at_least_float32(features), dim=1), "b c h w -> b h w c")
        moved = rearrange(self.move(locations), "b h w c -> b c h w")
        examples = self.move(unit(at_least_float32(points), dim=2))
        densities = density_logits(moved, examples, foreground, background, kappa=self.log_kappa.exp())
        return densities[:, 1:] - densities[:, :1] + self.bias

    @torch.no_grad()
    def remember(self, features: Tensor, masks: Tensor, generator: torch.Generator | None = None) -> None:
        """Replace the oldest clutter with points of images, drawn uniformly where they are labelled.

        Args:
            features: ``(B, C, h, w)`` of the images.
            masks: ``(B, H, W)`` label masks.
            generator: Source of the random numbers; by default torch's.
        """
        points = rearrange(unit(at_least_float32(features), dim=1), "b c h w -> b (h w) c")
        labelled = sample_nearest(masks, (features.shape[2], features.shape[3])).flatten(1) != 255
        drawn = sample_centroids(points, CLUTTER_OF_IMAGE, valid=labelled, generator=generator)
        drawn = drawn.flatten(0, 1)[:CLUTTER].to(self.clutter.dtype)
        rows = (self.oldest + torch.arange(len(drawn), device=drawn.device)) % CLUTTER
        self.clutter.index_copy_(0, rows, drawn)
        self.oldest.add_(len(drawn)).remainder_(CLUTTER)

    def _with_clutter(self, points: Tensor, foreground: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Append the clutter to the points: ``(B, M + 1024, C)`` and twice ``(B, M + 1024)``."""
        batch = points.shape[0]
        clutter = self.clutter.to(points.dtype).expand(batch, -1, -1)
        background = at_least_float32(background)
        known = (self.clutter != 0).any(dim=1)  # K
        total = background.sum(dim=1, keepdim=True)  # B 1
        each = CLUTTER_SHARE / (1 - CLUTTER_SHARE) * total / known.sum().clamp_min(1)
        each = torch.where(total > 0, each, 1)
        scale = each.clamp_min(1)  # no weight may exceed 1
        nothing = foreground.new_zeros(batch, CLUTTER)
        return (
            torch.cat([points, clutter], dim=1),
            torch.cat([foreground, nothing], dim=1),
            torch.cat([background / scale, each / scale * known], dim=1),
        )

    def move(self, points: Tensor) -> Tensor:
        """Map points ``(..., C)`` of unit length."""
        step: Tensor = self.linear(points.to(self.linear.weight.dtype))
        return points + STEP * step


@torch.no_grad()
def point_channels(backbone: AnyBackbone) -> int:
    """Count the channels of the map that points are taken from, by running the backbone on a small image."""
    network: Any = backbone
    weight = next(network.parameters(), torch.empty(0))
    _, deepest = frozen_steps(network.eval()).mid(weight.new_zeros(1, 3, 64, 64))
    return deepest.shape[1]
