"""A frozen backbone in a faster form: folded, around masks alone, image by image, or from memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fewshotseg.models.backbones import AnyBackbone, StagedBackbone
from fewshotseg.models.fast.cropping import masked_high, masked_mid
from fewshotseg.models.fast.feature_memory import FeatureMemory, image_by_image
from fewshotseg.models.fast.folding import folded
from fewshotseg.models.fast.state import State
from fewshotseg.models.frozen import FrozenBackbone, FrozenWholeBackbone, frozen_steps
from fewshotseg.ops._precision import is_eager_cpu


class FastBackbone:
    """The faster form of a backbone, made anew whenever the backbone has changed.

    Args:
        backbone: What follows `Backbone` or `WholeBackbone`; the second kind runs as it is.
    """

    def __init__(self, backbone: AnyBackbone) -> None:
        self.backbone = backbone
        self._made: dict[torch.dtype | None, tuple[State, FrozenBackbone]] = {}

    def current(self) -> FrozenBackbone:
        """The steps of the backbone as it is now: the faster form where it fits, the backbone itself elsewhere."""
        backbone: Any = self.backbone
        if torch.compiler.is_compiling() or not isinstance(backbone, StagedBackbone) or backbone.training:
            return frozen_steps(backbone)
        dtype = _autocast_dtype(next(backbone.parameters(), None))
        made = self._made.get(dtype)
        if made is None or not made[0].holds():
            state, network = State(backbone), folded(backbone, dtype)
            made = state, frozen_steps(backbone) if network is None else FoldedBackbone(network)
            self._made[dtype] = made
        return made[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> "FastBackbone":
        """Of a copied backbone."""
        return FastBackbone(memo.get(id(self.backbone), self.backbone))

    def __reduce__(self) -> tuple[type["FastBackbone"], tuple[AnyBackbone]]:
        """What is made from the backbone is not saved with it."""
        return FastBackbone, (self.backbone,)


class FoldedBackbone(FrozenBackbone):
    """The steps of a folded backbone; on a CPU image by image, which is faster there, and around masks alone."""

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


def _autocast_dtype(weight: Tensor | None) -> torch.dtype | None:
    """The dtype that autocast would bring this float32 weight to at every call; None where it would not."""
    if weight is None or weight.dtype != torch.float32 or not torch.is_autocast_enabled(weight.device.type):
        return None
    return torch.get_autocast_dtype(weight.device.type)


def remembering_steps(frozen: FrozenBackbone, backbone: AnyBackbone, memory: FeatureMemory) -> FrozenBackbone:
    """The steps of a backbone, each from memory where the memory has its result.

    Args:
        frozen: What computes the rest.
        backbone: Whose features they are.
        memory: Where they are kept.
    """
    network: Any = backbone
    if any(module.training for module in network.modules()):
        return frozen  # what norms and dropout give in training mode is another thing each time
    whole = isinstance(frozen, FrozenWholeBackbone)
    return (RememberingWholeBackbone if whole else RememberingBackbone)(frozen, backbone, memory)


class RememberingBackbone(FrozenBackbone):
    """Both steps of a backbone that is cut, from memory; see `remembering_steps`."""

    def __init__(self, frozen: FrozenBackbone, backbone: AnyBackbone, memory: FeatureMemory) -> None:
        super().__init__(backbone)
        self._frozen, self._memory, self._network = frozen, memory, memory.digest_of(backbone)

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


class RememberingWholeBackbone(FrozenWholeBackbone):
    """All maps of a backbone that is not cut, from memory; see `remembering_steps`."""

    def __init__(self, frozen: FrozenBackbone, backbone: AnyBackbone, memory: FeatureMemory) -> None:
        super().__init__(backbone)
        self._frozen, self._memory, self._network = frozen, memory, memory.digest_of(backbone)

    @override
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._memory(("whole", self._network), self._frozen.maps, images)
