"""Faster forms of a frozen backbone: norms folded, supports cropped to their masks, features cached."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fewshotseg.models.backbones import AnyBackbone, StagedBackbone
from fewshotseg.models.fast.cropping import masked_high, masked_mid
from fewshotseg.models.fast.feature_memory import FeatureMemory, image_by_image
from fewshotseg.models.fast.folding import folded
from fewshotseg.models.fast.state import State, is_real
from fewshotseg.models.fast.untouched import treats_images_alone
from fewshotseg.models.frozen import FrozenBackbone, FrozenWholeBackbone, frozen_steps
from fewshotseg.ops._precision import autocast_dtype, is_eager_cpu, is_in_graph


class FastBackbone:
    """The faster form of a backbone, rebuilt whenever the backbone has changed.

    Args:
        backbone: A module that follows `Backbone`; a `WholeBackbone` has no faster form.
    """

    def __init__(self, backbone: AnyBackbone) -> None:
        self.backbone = backbone
        self._made: dict[tuple[torch.dtype | None, bool], tuple[State, FrozenBackbone]] = {}

    def current(self) -> FrozenBackbone:
        """Return the steps of the backbone as it is now, in the faster form if possible."""
        backbone: Any = self.backbone
        if is_in_graph() or not isinstance(backbone, StagedBackbone) or backbone.training:
            return frozen_steps(backbone)
        weight = next(backbone.parameters(), None)
        # Under vmap and other transforms of torch.func weights may be others at each call.
        if weight is None or not is_real(weight) or torch._C._functorch.peek_interpreter_stack() is not None:
            return frozen_steps(backbone)
        dtype = autocast_dtype(weight.device) if weight.dtype == torch.float32 else None
        kind = dtype, torch.backends.cudnn.allow_tf32  # what the faster form depends on besides the backbone
        made = self._made.get(kind)
        if made is None or not made[0].holds():
            state, network = State(backbone), folded(backbone, dtype)
            made = state, frozen_steps(backbone) if network is None else FoldedBackbone(network)
            self._made[kind] = made
        return made[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> "FastBackbone":
        """Copy for the copied backbone, without the faster form."""
        return FastBackbone(memo.get(id(self.backbone), self.backbone))

    def __reduce__(self) -> tuple[type["FastBackbone"], tuple[AnyBackbone]]:
        """Pickle without the faster form."""
        return FastBackbone, (self.backbone,)


class FoldedBackbone(FrozenBackbone):
    """Runs a folded backbone; on a CPU image by image, which is faster there, and supports only around their masks."""

    @override
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._run(self.backbone.mid, images)

    @override
    def maps_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        return self._run(lambda *inputs: masked_mid(self.backbone, *inputs), images, masks)

    @override
    def high(self, deepest: Tensor) -> Tensor:
        (high,) = self._run(lambda maps: (self.backbone.high(maps),), deepest)
        return high

    @override
    def high_of_masked(self, deepest: Tensor, foreground: Tensor) -> Tensor:
        (high,) = self._run(lambda *inputs: (masked_high(self.backbone, *inputs),), deepest, foreground)
        return high

    @torch.no_grad()
    def _run(self, step: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        if inputs[0].shape[0] == 1 or not is_eager_cpu(inputs[0]):
            return step(*inputs)
        return image_by_image(step, *inputs)


def cached_steps(frozen: FrozenBackbone, backbone: AnyBackbone, memory: FeatureMemory) -> FrozenBackbone:
    """Make steps of a backbone that take their results from a cache where it has them.

    Args:
        frozen: Computes the features that are not cached.
        backbone: The backbone; features are cached under a digest of its weights and settings.
        memory: The cache.

    Returns:
        ``frozen`` itself where an image may have other features each time, or its pixels cannot be read.
    """
    network: Any = backbone
    # In training mode norms and dropout give different features each time.
    if is_in_graph() or any(module.training for module in network.modules()) or not treats_images_alone(network):
        return frozen
    digest = memory.digest_of(backbone)
    if digest is None:
        return frozen
    whole = isinstance(frozen, FrozenWholeBackbone)
    return (CachedWholeBackbone if whole else CachedBackbone)(frozen, backbone, memory, digest)


class _Cached(FrozenBackbone):
    def __init__(self, frozen: FrozenBackbone, backbone: AnyBackbone, memory: FeatureMemory, digest: bytes) -> None:
        super().__init__(backbone)
        self._frozen, self._memory, self._network = frozen, memory, digest


class CachedBackbone(_Cached):
    """Runs both steps of a `Backbone` with a cache; see `cached_steps`."""

    @override
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._memory(("mid", self._network), self._frozen.maps, images)

    @override
    def high(self, deepest: Tensor) -> Tensor:
        (high,) = self._memory(("high", self._network), lambda maps: (self._frozen.high(maps),), deepest)
        return high

    @override
    def high_of_masked(self, deepest: Tensor, foreground: Tensor) -> Tensor:
        def step(*inputs: Tensor) -> tuple[Tensor, ...]:
            return (self._frozen.high_of_masked(*inputs),)

        (high,) = self._memory(("masked", self._network), step, deepest, foreground)
        return high


class CachedWholeBackbone(_Cached, FrozenWholeBackbone):
    """Runs a `WholeBackbone` with a cache; see `cached_steps`."""

    @override
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._memory(("whole", self._network), self._frozen.maps, images)
