"""How a model is trained, as data: the papers' numbers, the choices that they leave open, an option for each."""

import argparse
import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import nn
from torchvision.transforms import v2

from fewshotseg import SCNet, SCNetConfig
from fewshotseg.data import EvaluationProtocol, pfenet_train, scnet_train
from fewshotseg.models.backbones import image_statistics
from fewshotseg.training.benchmark import eval_transform

SHARES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides about the weights, beside the data; by default SCNet on PASCAL-5i.

    Attributes:
        backbone: A name that `build_scnet` knows, or ``"tiny"``.
        backbone_weights: As in `build_scnet`.
        pretrain: Iterations in which ``"tiny"`` learns to tell base classes apart.
        model: Numbers and choices of SCNet.
        augmentation: ``"pfenet"``, on whose code SCNet builds; ``"scnet"``: only what SCNet's text names;
            ``"mirror"``: mirroring and the test images' resize, for photographs of any size and few iterations; or
            ``"none"``: that resize alone, so that ``memory_gb`` has every image after an epoch.
        scale: Of PFENet's augmentation.
        shots: Supports of a training episode. The papers train with one and test that model with five, too.
        hard_share: Of training episodes that cannot be answered without a look at the support, see `HardSpecs`.
        start: From ``"random"`` weights; or ``"comparing"``: both reducers begin as one, and the head with weights of
            the prototype opposite to those of the query, so that it begins with their difference.
        reducer_dropout: In training, of channels of queries and of supports, each on its own.
        optimizer: ``"sgd"`` or, to learn something in a thousand iterations, ``"adamw"``.
        lr: The learning rate at the start, as the optimizer uses it: ten times what the papers quote, as PFENet's code
            multiplies that by 10.
        momentum: Of SGD.
        weight_decay: Of the optimizer.
        power: Of the schedule: iteration t of T, counted from 1, has the rate ``lr * (1 - t / T) ** power``.
        batch: Episodes of an iteration, over all processes; the rate is not adapted to it.
        micro_batches: Parts in which they go through the model: processes times accumulation.
        epochs: An epoch has as many episodes as the training list has images.
        iterations: In place of epochs.
        amp: Mixed precision.
        compile: Whether `torch.compile` compiles the training pass.
        loss_stride: The loss looks at every so many rows and columns of the query's mask, which makes it cheaper; the
            head's grid is far coarser. The papers look at all.
        memory_gb: Gigabytes for features of the frozen backbone, kept in half precision, see `FeatureMemory`; pays for
            ``"none"`` and ``"mirror"`` on a CPU.
        select: Which weights count in the end: the ``"last"``; the best on ``"held-out"`` base classes, which are then
            not trained on; or the best on the ``"novel"`` classes of the test fold, which is the field's habit and
            optimistic.
        validate_every: Iterations from one validation to the next; by default an epoch.
        validate_episodes: Of a validation.
        seed: Of everything that is drawn.

    Raises:
        ValueError: If a number is out of range.
    """

    backbone: str = "resnet50"
    backbone_weights: str | None = None
    pretrain: int = 150
    model: SCNetConfig = field(default_factory=SCNetConfig)
    augmentation: Literal["pfenet", "scnet", "mirror", "none"] = "pfenet"
    scale: tuple[float, float] = (0.9, 1.1)
    shots: int = 1
    hard_share: float = 0.0
    start: Literal["random", "comparing"] = "random"
    reducer_dropout: float = 0.5
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
        for name in ("pretrain", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("hard_share", "reducer_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.batch % self.micro_batches:
            raise ValueError(
                f"batch must be a multiple of processes times accumulation, {self.micro_batches}, got {self.batch}"
            )

    def rate(self, iteration: int, total: int) -> float:
        """The learning rate of an iteration, counted from 1."""
        return self.lr * (1 - iteration / total) ** self.power

    def augment(self, protocol: EvaluationProtocol, backbone: nn.Module) -> v2.Compose:
        """The transform of training images."""
        if self.augmentation == "none":
            return eval_transform(protocol, backbone)
        if self.augmentation == "mirror":
            return v2.Compose([v2.RandomHorizontalFlip(), eval_transform(protocol, backbone)])
        if self.augmentation == "scnet":
            return scnet_train(protocol.train_size, **image_statistics(backbone))
        return pfenet_train(protocol.train_size, scale=self.scale, **image_statistics(backbone))

    def prepare(self, model: SCNet, *, new: bool) -> None:
        """Give a model the dropout of this recipe, and a new one its first weights."""
        if new and self.start == "comparing":
            start_comparing(model)
        for reducer in (model.reduce_query, model.reduce_support):
            for module in reducer.modules():
                if isinstance(module, nn.Dropout2d):
                    module.p = self.reducer_dropout

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimizer of what is to be trained."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@torch.no_grad()
def start_comparing(model: SCNet) -> None:
    """Weights with which the head begins with differences of query and prototype, and both in the same terms."""
    model.reduce_support.load_state_dict(model.reduce_query.state_dict())
    for conv, _ in model.head.merge:
        channels = conv.out_channels
        conv.weight[:, channels : 2 * channels] = -conv.weight[:, :channels]


PASCAL = Recipe()
COCO = replace(PASCAL, model=SCNetConfig(bins=SHARES), scale=(0.8, 1.25), lr=0.05, batch=8, epochs=50)
FOLDERS = replace(
    PASCAL,
    backbone="efficientnet_lite0",
    backbone_weights="package",
    model=SCNetConfig(hidden_channels=64, bins=SHARES),
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
    backbone="tiny",
    backbone_weights=None,
    model=SCNetConfig(hidden_channels=48, bins=SHARES),
    augmentation="mirror",
    lr=1e-3,
    iterations=400,
    loss_stride=1,
    memory_gb=0.0,
)
RECIPES = {"pascal": PASCAL, "coco": COCO, "folders": FOLDERS, "synthetic": SYNTHETIC}
"""One for each benchmark: the papers', and two that a laptop carries."""


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for the fields of `Recipe`; those not given are absent from what is parsed."""
    add = parser.add_argument
    add("--backbone", help="a name that build_scnet knows, or tiny")
    add("--backbone-weights", help="a torchvision name such as IMAGENET1K_V1 (downloads), package, or a file")
    add("--pretrain", type=int, metavar="N", help="iterations in which 'tiny' learns base classes")
    add_model_argument(parser)
    add("--augmentation", choices=("pfenet", "scnet", "mirror", "none"),
        help="PFENet's, SCNet's text's, mirroring alone, or none")  # fmt: skip
    add("--shots", type=int, metavar="S", help="supports of a training episode (default: 1)")
    add("--hard-share", type=float, help="of training episodes that need a look at the support (default: 0)")
    add("--start", choices=("random", "comparing"), help="weights to begin with (default: random)")
    add("--reducer-dropout", type=float, help="of channels of queries and of supports (default: 0.5, as PFENet)")
    add("--optimizer", choices=("sgd", "adamw"), help="(PASCAL and COCO: sgd)")
    add(
        "--lr", type=float, help="the true rate at the start (PASCAL 0.025, COCO 0.05: ten times what the papers quote)"
    )
    add("--batch", type=int, metavar="N", help="episodes an iteration, over all processes (PASCAL 4, COCO 8)")
    add(
        "--accumulate", type=int, default=1, metavar="N", help="parts of each process's share of the batch (default: 1)"
    )
    add("--epochs", type=int, metavar="N", help="(PASCAL 200, COCO 50)")
    add("--iterations", type=int, metavar="N", help="in place of epochs")
    add("--amp", choices=("none", "bfloat16", "float16"), help="mixed precision (default: none)")
    add("--compile", action="store_true", help="compile the training pass")
    add("--loss-stride", type=int, metavar="N", help="the loss at every N-th row and column (photographs: 4)")
    add("--memory-gb", type=float, help="gigabytes to keep features of the frozen backbone in, for 'mirror' on a CPU")
    add("--select", choices=("last", "held-out", "novel"),
        help="which weights count: the last (default), the best on base classes held out of training, or the best on "
        "the novel classes of the test fold, which makes results optimistic")  # fmt: skip
    add("--validate-every", type=int, metavar="N", help="iterations between validations (default: an epoch)")
    add("--validate-episodes", type=int, metavar="N", help="of a validation (default: 1000)")
    add("--seed", type=int, help="of everything that is drawn (default: 321)")


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """The option for fields of `SCNetConfig`."""
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="fields of SCNetConfig, such as self_contrast_weight=0 (PFENet), num_prototypes=5, bins=1.0,0.5",
    )


def recipe_from(options: dict[str, Any], default: Recipe, processes: int) -> Recipe:
    """Take the options of `add_recipe_arguments` out of ``options`` and put them in place of the defaults."""
    model = change_model(default.model, options.pop("model"))
    micro_batches = processes * options.pop("accumulate")
    given = {each.name: options.pop(each.name) for each in fields(Recipe) if each.name in options}
    return replace(default, **given, model=model, micro_batches=micro_batches)


def change_model(model: SCNetConfig, changes: Sequence[str]) -> SCNetConfig:
    """Replace fields by what ``"field=value"`` says.

    Raises:
        ValueError: If there is no such field, or the value is none that it can have.
    """
    names = [each.name for each in fields(SCNetConfig)]
    given = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in names:
            raise ValueError(f"model must name fields of SCNetConfig, {', '.join(names)}, got {change!r}")
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[name] = value
    try:
        return replace(model, **given)
    except TypeError as error:
        raise ValueError(f"model must have possible values, got {' '.join(changes)}: {error}") from error
