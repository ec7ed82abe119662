"""What changes in training: the model, the optimizer, and how far they have come."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from fewshotseg.data import padded_eval
from fewshotseg.models import FeatureMemory, SCNet, build_scnet
from fewshotseg.training.benchmark import Benchmark, DataSettings
from fewshotseg.training.recipe import Recipe
from fewshotseg.training.run_folder import Checkpoint
from fewshotseg.training.tiny import pretrained_tiny_backbone


@dataclass
class State:
    """Everything that the next iteration depends on, beside the recipe and the data.

    Attributes:
        model: In training.
        optimizer: Of the model's trainable parameters.
        scaler: Of losses, for float16.
        iteration: Iterations that are done.
        validated: The iteration of the last validation.
        best: The best mIoU of a validation.
    """

    model: SCNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    iteration: int = 0
    validated: int = 0
    best: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the model, for a checkpoint.

        The random state is there for what you may add: every micro-batch has a seed of its own.
        """
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iteration": self.iteration,
            "validated": self.validated,
            "best": self.best,
            "rng": torch.get_rng_state(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go back to what `to_dict` gave.

        Raises:
            ValueError: If it is not what a run of this recipe can have saved.
        """
        _check_progress(saved)
        _check_optimizer(self.optimizer, saved.get("optimizer"))
        scaler, rng = saved.get("scaler"), saved.get("rng")
        if not isinstance(scaler, dict) or scaler.keys() != self.scaler.state_dict().keys():
            raise ValueError("scaler must have the settings of the recipe, but it has others")
        if not isinstance(rng, Tensor) or rng.dtype != torch.uint8 or rng.shape != torch.get_rng_state().shape:
            raise ValueError("rng must be the state of PyTorch's generator on the CPU, but it is something else")
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(scaler)
        torch.set_rng_state(rng)
        self.iteration, self.validated, self.best = saved["iteration"], saved["validated"], saved["best"]


def initial_state(
    recipe: Recipe, data: DataSettings, benchmark: Benchmark, saved: Checkpoint | None, device: torch.device
) -> State:
    """Make a new model and its optimizer, or those of a checkpoint.

    Args:
        recipe: What the model and the optimizer are.
        data: What the benchmark was opened from; its protocol says the image size.
        benchmark: On whose base classes the backbone ``tiny`` is trained first.
        saved: Where a run is to go on.
        device: Where to train.

    Raises:
        ValueError: If settings do not fit, or the checkpoint holds what such a run cannot have saved.
        ImportError: If the backbone needs a package that is not installed.
    """
    torch.manual_seed(recipe.seed)
    model = _new_model(recipe, data, benchmark) if saved is None else saved.load_model().train()
    model.to(device)
    if recipe.memory_gb:
        model.memory = FeatureMemory(int(recipe.memory_gb * 2**30), dtype=torch.float16)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "float16")
    state = State(model, recipe.make_optimizer(model), scaler)
    if saved is not None:
        state.restore(saved.training)
    return state


def _new_model(recipe: Recipe, data: DataSettings, benchmark: Benchmark) -> SCNet:
    config = replace(recipe.model, image_size=data.protocol.test_size)
    if config.backbone == "tiny":
        if recipe.backbone_weights is not None:
            raise ValueError(
                f"backbone_weights must not be given for tiny, which is trained here, got {recipe.backbone_weights!r}"
            )
        transform = v2.Compose([v2.RandomHorizontalFlip(), padded_eval(data.protocol.train_size)])
        backbone = pretrained_tiny_backbone(benchmark.train, benchmark.split.base, transform, recipe.pretrain)
        model = SCNet(backbone, config)
    else:
        model = build_scnet(backbone_weights=recipe.backbone_weights, **config.to_dict())
    if recipe.start == "comparing":
        start_comparing(model)
    return model


@torch.no_grad()
def start_comparing(model: SCNet) -> None:
    """Set weights with which the head begins with differences of query and prototype, both reduced alike."""
    model.reduce_support.load_state_dict(model.reduce_query.state_dict())
    for merge in model.head.merge:
        weight = next(merge.parameters())  # C, C + C + 1, 1, 1: of query, prototype and prior
        channels = weight.shape[0]
        weight[:, channels : 2 * channels] = -weight[:, :channels]


def _check_progress(saved: Mapping[str, Any]) -> None:
    """Raise unless the counters are such as a run has."""
    for name, lowest in (("iteration", 1), ("validated", 0)):
        value = saved.get(name)
        if type(value) is not int or value < lowest or value > saved["iteration"]:
            raise ValueError(f"{name} must be a whole number of iterations that were done, got {value!r}")
    best = saved.get("best")
    if best is not None and not (type(best) is float and 0 <= best <= 1):
        raise ValueError(f"best must be an mIoU from 0 to 1 or None, got {best!r}")


def _check_optimizer(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    """Raise unless the saved optimizer has the settings of a new one, and finite numbers of the parameters' shapes."""
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    try:
        settings, own = (
            [{**group, "lr": None} for group in state["param_groups"]] for state in (saved, optimizer.state_dict())
        )
        numbers = [(parameters[number], entry.values()) for number, entry in saved["state"].items()]
        fits = settings == own and all(_belongs_to(v, parameter) for parameter, values in numbers for v in values)
    except (KeyError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise ValueError("optimizer must have the settings of the recipe and finite numbers, but it has others")


def _belongs_to(value: Any, parameter: Tensor) -> bool:
    """Whether a momentum has the shape of its parameter, or a counter none, and both are finite."""
    if value is None:
        return True
    return value.shape in (parameter.shape, torch.Size([])) and bool(torch.isfinite(value).all())
