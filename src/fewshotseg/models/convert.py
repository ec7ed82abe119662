"""Renames the keys of other code's state dicts: PFENet, data-parallel, compiled and averaged models, deep stems."""

from collections.abc import Mapping

from torch import Tensor

PFENET_HEAD = {
    "down_query": "reduce_query",
    "down_supp": "reduce_support",
    "init_merge": "head.merge",
    "alpha_conv": "head.pass_down",
    "beta_conv": "head.refine",
    "inner_cls": "head.aux_classifiers",
    "res1": "head.fuse",
    "res2": "head.fuse_refine",
    "cls": "head.classifier",
}
"""First part of PFENet's key -> that of ours; the rest is the same."""

VGG_OFFSETS = {"layer0": 0, "layer1": 7, "layer2": 14, "layer3": 24, "layer4": 34}
"""Where PFENet's five slices of VGG-16 start in torchvision's ``features``."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that ``DataParallel``, ``AveragedModel`` and ``torch.compile`` add to keys."""

DEEP_STEM = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv1.3",
    "bn2": "conv1.4",
    "conv3": "conv1.6",
    "bn3": "bn1",
}
"""Key of a deep stem with three separate convolutions, as in PFENet's initial weights -> our key."""


def remap_pfenet_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of an official PFENet checkpoint to SCNet's; other state dicts keep their keys.

    Args:
        state: A state dict, also of a data-parallel, compiled or averaged model. It is not changed.

    Returns:
        A new state dict with the same tensors. The backbone may be ResNet (deep stem) or VGG-16-BN.

    Example:
        >>> import torch
        >>> list(remap_pfenet_state_dict({"module.down_supp.0.weight": torch.zeros(1)}))
        ['reduce_support.0.weight']
    """
    state = without_wrappers(state)
    is_pfenet = any(key.partition(".")[0] in {*PFENET_HEAD, "layer0"} for key in state)
    is_vgg = "layer4.0.weight" in state
    return {_ours(key, is_vgg=is_vgg) if is_pfenet else key: value for key, value in state.items()}


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefixes of `WRAPPERS` from all keys, and drop the counter of ``AveragedModel``."""

    def bare(key: str) -> str:
        while key.startswith(WRAPPERS):
            key = key.partition(".")[2]
        return key

    return {bare(key): value for key, value in state.items() if key != "n_averaged"}


def deep_stem_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of `DEEP_STEM`; state dicts of other networks are returned as they are."""
    if "conv3.weight" not in state:
        return dict(state)
    parts = ((key.partition("."), value) for key, value in state.items())
    return {f"{DEEP_STEM.get(first, first)}.{rest}": value for (first, _, rest), value in parts}


def _ours(key: str, *, is_vgg: bool) -> str:
    first, _, rest = key.partition(".")
    if first in PFENET_HEAD:
        return f"{PFENET_HEAD[first]}.{rest}"
    if is_vgg and first in VGG_OFFSETS:
        number, _, leaf = rest.partition(".")
        return f"backbone.features.{VGG_OFFSETS[first] + int(number)}.{leaf}"
    if first == "layer0":
        number, _, leaf = rest.partition(".")
        return f"backbone.bn1.{leaf}" if number == "7" else f"backbone.conv1.{number}.{leaf}"
    return f"backbone.{key}"
