"""How a model is trained, as data: the papers' numbers and the choices that they leave open."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from torchvision.transforms import v2

from fewshotseg.data import EvaluationProtocol, pfenet_train, scnet_train
from fewshotseg.models import SCNetConfig
from fewshotseg.training.benchmark import eval_transform

SHARES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides about the weights, beside the data; the defaults are SCNet's on PASCAL-5i.

    Attributes:
        model: Every number and choice of SCNet, its backbone's name included. The image size is the protocol's.
        backbone_weights: Weights of the backbone: a name of torchvision's such as ``IMAGENET1K_V1``, which is
            downloaded; ``package`` for those that an installed package holds; or the path of a file.
        pretrain: Iterations in which the backbone ``tiny`` first learns to tell the base classes apart.
        augmentation: How training images are changed: ``pfenet`` as PFENet's code does it; ``scnet`` only as SCNet's
            text says; ``mirror`` is the test images' resize and mirroring, for photographs of any size and few
            iterations; ``none`` is that resize alone, after which ``memory_gb`` knows every image after an epoch.
        scale: Smallest and largest random enlargement of PFENet's augmentation.
        shots: Support images in a training episode. The papers train with one and test that model with five, too.
        hard_share: Share of training episodes that cannot be answered without a look at the support; see `HardSpecs`.
        windows: Whether windows around small objects are trained on besides the images; see `WindowSource`.
        start: What the head begins with: ``random`` weights; or ``comparing``, weights by which it begins with the
            difference between query and prototype, both reduced alike.
        optimizer: The optimizer: ``sgd`` as in the papers, or ``adamw``, which learns more in a thousand iterations.
        lr: Learning rate at the start, as the optimizer uses it. It is ten times what the papers quote, as PFENet's
            code multiplies that by ten.
        momentum: Momentum of ``sgd``.
        weight_decay: Weight decay of the optimizer.
        power: Exponent of the schedule: iteration t of T, counted from 1, has the rate ``lr * (1 - t / T) ** power``.
        batch: Episodes in an iteration, over all processes; the learning rate is not adapted to it.
        micro_batches: Parts in which a batch goes through the model: processes times accumulation.
        epochs: Epochs to train for; an epoch has as many episodes as the training list has images.
        iterations: Iterations to train for, in place of ``epochs``.
        amp: Precision of the model's matrix products in training.
        compile: Whether `torch.compile` compiles the training pass.
        loss_stride: The loss looks at every so many rows and columns of the query's mask, which makes it cheaper; the
            head's grid is far coarser. The papers look at all.
        memory_gb: Gigabytes of memory for features of the frozen backbone, kept in half precision, so that an image
            runs through it once; see `FeatureMemory`. It pays on a CPU, with the augmentation ``none`` or ``mirror``.
        select: Which weights count in the end: the ``last``; the best on ``held-out`` base classes, which are then
            not trained on; or the best on the ``novel`` classes of the test fold, which makes results optimistic.
        validate_every: Iterations from one validation to the next; an epoch by default.
        validate_episodes: Episodes in a validation.
        seed: Seed of everything that is drawn.

    Raises:
        ValueError: If a number is out of range.

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
        counts = ("shots", "batch", "micro_batches", "epochs", "iterations", "validate_every", "validate_episodes")
        for name in (*counts, "loss_stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("pretrain", "seed", "memory_gb", "momentum", "weight_decay", "power"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of 0 or more, got {getattr(self, name)}")
        if not 0 <= self.hard_share <= 1:
            raise ValueError(f"hard_share must be from 0 to 1, got {self.hard_share}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a finite number above 0, got {self.lr}")
        if self.batch % self.micro_batches:
            raise ValueError(
                f"batch must be a multiple of processes times accumulation, {self.micro_batches}, got {self.batch}"
            )

    def learning_rate_at(self, iteration: int, total: int) -> float:
        """Compute the learning rate of an iteration, counted from 1, of a run of ``total``."""
        return float(self.lr * (1 - iteration / total) ** self.power)

    def augment(self, protocol: EvaluationProtocol, model: Any) -> v2.Compose:
        """Make the transform of training images, normalised as ``model.config`` says."""
        if self.augmentation == "none":
            return eval_transform(protocol, model)
        if self.augmentation == "mirror":
            return v2.Compose([v2.RandomHorizontalFlip(), eval_transform(protocol, model)])
        mean, std = model.config.mean, model.config.std
        if self.augmentation == "scnet":
            return scnet_train(protocol.train_size, mean=mean, std=std)
        return pfenet_train(protocol.train_size, scale=self.scale, mean=mean, std=std)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make an optimizer of the parameters that are trained."""
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
"""One for each benchmark: the papers', and two that a laptop carries."""
