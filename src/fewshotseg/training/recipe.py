"""The settings of training: those of the papers, and two for laptops."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from torchvision.transforms import v2

from fewshotseg._checks import check_at_least, check_choice, check_flag, check_number, check_share
from fewshotseg.data import EvaluationProtocol, pfenet_train, scnet_train
from fewshotseg.models import SCNetConfig
from fewshotseg.training.benchmark import eval_transform

SHARES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All training settings but the data; the defaults are SCNet's on PASCAL-5i.

    Attributes:
        model: The settings of SCNet, with the name of its backbone. The image size is the protocol's.
        backbone_weights: Weights of the backbone: a name of torchvision's weights such as ``IMAGENET1K_V1``
            (downloaded), ``timm`` (downloaded by timm), ``package`` (from an installed package), or the path of a file.
        pretrain: Iterations in which the backbone ``tiny`` is pretrained by classifying the base classes.
        augmentation: Augmentation of training images: ``pfenet`` as in PFENet's code; ``scnet`` only what SCNet's paper
            describes; ``mirror`` the resize of test images and random mirroring, for photographs of any size and few
            iterations; ``none`` the resize alone, with which ``memory_gb`` caches every image.
        scale: Smallest and largest factor of the random resize in PFENet's augmentation.
        shots: Support images in a training episode. The papers train with one, and test the same model with five too.
        hard_share: Share of training episodes that cannot be solved without the support: the query shows two classes,
            or lacks the class, or is the support itself; see `HardSpecs`.
        windows: Whether to train also on windows around small objects, in which they are large; see `WindowSource`.
        start: Initial weights of the comparison head: ``random``, or ``comparing``, with which it computes the
            difference of query and prototype at the start.
        optimizer: Optimizer: ``sgd`` as in the papers, or ``adamw``, which learns more in a thousand iterations.
        lr: Initial learning rate of the optimizer. It is ten times the papers' number, which PFENet's code multiplies
            by ten.
        momentum: Momentum of ``sgd``.
        weight_decay: Weight decay of the optimizer.
        power: Exponent of the learning rate schedule: ``lr * (1 - t / T) ** power`` at iteration t of T, from 1 on.
        batch: Episodes in an iteration, over all processes; the learning rate is not scaled by it.
        micro_batches: Parts that a batch is split into: processes times accumulation.
        epochs: Epochs to train for; an epoch has as many episodes as the training list has images.
        iterations: Iterations to train for, instead of ``epochs``.
        amp: Precision of automatic mixed precision.
        compile: Whether to compile the training pass by `torch.compile`.
        loss_stride: Compute the loss on every n-th row and column of the query's mask, which is faster; the model's
            grid is far coarser. The papers use all rows and columns.
        memory_gb: Gigabytes of memory to cache features of the frozen backbone in half precision, so that it runs once
            for each image; see `FeatureMemory`. It helps on a CPU with the augmentation ``none`` or ``mirror``.
        select: Checkpoint to use in the end: the ``last``; the best on ``held-out`` base classes, which are then not
            trained on; or the best on the ``novel`` classes of the test fold, which makes results optimistic.
        validate_every: Iterations between validations; an epoch by default.
        validate_episodes: Episodes in a validation.
        seed: Seed of all random numbers.

    Raises:
        ValueError: If a number is out of range or a choice is unknown.
        TypeError: If a value is of the wrong type.

    Example:
        >>> recipe = Recipe(iterations=1000, lr=0.05)
        >>> [round(recipe.learning_rate_at(iteration, 1000), 4) for iteration in (1, 500, 1000)]
        [0.05, 0.0268, 0.0]
    """

    model: SCNetConfig = field(default_factory=lambda: SCNetConfig(backbone="resnet50"))
    backbone_weights: str | None = None
    pretrain: int = 150
    augmentation: Literal["pfenet", "scnet", "mirror", "none"] = "pfenet"
    scale: tuple[float, float] = (0.9, 1.1)
    shots: int = 1
    hard_share: float = 0.0
    windows: bool = False
    start: Literal["random", "comparing"] = "random"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 1e-4
    power: float = 0.9
    batch: int = 4
    micro_batches: int = 1
    epochs: int = 200
    iterations: int | None = None
    amp: Literal["none", "bfloat16", "float16"] = "none"
    compile: bool = False
    loss_stride: int = 1
    memory_gb: float = 0.0
    select: Literal["last", "held-out", "novel"] = "last"
    validate_every: int | None = None
    validate_episodes: int = 1000
    seed: int = 321

    def __post_init__(self) -> None:
        check_choice("augmentation", self.augmentation, ("pfenet", "scnet", "mirror", "none"))
        check_choice("start", self.start, ("random", "comparing"))
        check_choice("optimizer", self.optimizer, ("sgd", "adamw"))
        check_choice("amp", self.amp, ("none", "bfloat16", "float16"))
        check_choice("select", self.select, ("last", "held-out", "novel"))
        checked: dict[str, Any] = {
            "pretrain": check_at_least("pretrain", self.pretrain, 0),
            "seed": check_at_least("seed", self.seed, 0),
            "hard_share": check_share("hard_share", self.hard_share),
            "windows": check_flag("windows", self.windows),
            "compile": check_flag("compile", self.compile),
        }
        for name in ("shots", "batch", "micro_batches", "epochs", "loss_stride", "validate_episodes"):
            checked[name] = check_at_least(name, getattr(self, name), 1)
        for name in ("iterations", "validate_every"):
            if getattr(self, name) is not None:
                checked[name] = check_at_least(name, getattr(self, name), 1)
        for name in ("lr", "memory_gb", "momentum", "weight_decay", "power"):
            checked[name] = check_number(name, getattr(self, name), 0)
        if checked["lr"] == 0:
            raise ValueError("lr must be above 0, got 0")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.batch % self.micro_batches:
            raise ValueError(
                f"batch must be a multiple of processes times accumulation, {self.micro_batches}, got {self.batch}"
            )

    def learning_rate_at(self, iteration: int, total: int) -> float:
        """Compute the learning rate of an iteration, from 1 on, of a run of ``total`` iterations."""
        return float(self.lr * (1 - iteration / total) ** self.power)

    def augment(self, protocol: EvaluationProtocol, model: Any) -> v2.Compose:
        """Make the transform of training images, which normalises by the mean and std of ``model.config``."""
        if self.augmentation == "none":
            return eval_transform(protocol, model)
        if self.augmentation == "mirror":
            return v2.Compose([v2.RandomHorizontalFlip(), eval_transform(protocol, model)])
        mean, std = model.config.mean, model.config.std
        if self.augmentation == "scnet":
            return scnet_train(protocol.train_size, mean=mean, std=std)
        return pfenet_train(protocol.train_size, scale=self.scale, mean=mean, std=std)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer of the trainable parameters."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


PASCAL = Recipe()
COCO = replace(PASCAL, model=replace(PASCAL.model, bins=SHARES), scale=(0.8, 1.25), lr=0.05, batch=8, epochs=50)
FOLDERS = replace(
    PASCAL,
    model=SCNetConfig(backbone="efficientnet_lite0", hidden_channels=64, bins=SHARES),
    backbone_weights="package",
    augmentation="none",
    optimizer="adamw",
    lr=2e-3,
    weight_decay=1e-2,
    iterations=500,
    loss_stride=4,
    memory_gb=2.2,
)
SYNTHETIC = replace(
    FOLDERS,
    model=SCNetConfig(backbone="tiny", hidden_channels=48, bins=SHARES),
    backbone_weights=None,
    augmentation="mirror",
    lr=1e-3,
    iterations=400,
    loss_stride=1,
    memory_gb=0.0,
)
RECIPES = {"pascal": PASCAL, "coco": COCO, "folders": FOLDERS, "synthetic": SYNTHETIC}
"""Benchmark -> recipe: those of the papers, and two that run on a laptop."""
