"""The state of training: the model, the optimizer and the counters."""

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
    """All that the next iteration depends on besides the recipe and the data.

    Attributes:
        model: The model in training.
        optimizer: The optimizer of its trainable parameters.
        scaler: The loss scaler for float16.
        iteration: Number of completed iterations.
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
        """Return everything but the model, for a checkpoint.

        The random state is stored only for code that you add: every micro-batch has its own seed.
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
        """Restore the values of `to_dict`.

        Raises:
            ValueError: If they do not belong to a run with this recipe.
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
    """Make a new model and its optimizer, or restore those of a checkpoint.

    Args:
        recipe: The recipe, with the settings of the model and the optimizer.
        data: The data settings, whose protocol has the image size.
        benchmark: The data, on whose base classes the backbone ``tiny`` is pretrained.
        saved: The checkpoint to continue from; None for a new run.
        device: Device to train on.

    Raises:
        ValueError: If settings do not fit, or the checkpoint does not belong to such a run.
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
    """Initialise the comparison head to compute differences of query and prototype, both reduced by equal weights."""
    model.reduce_support.load_state_dict(model.reduce_query.state_dict())
    for merge in model.head.merge:
        weight = next(merge.parameters())  # C, C + C + 1, 1, 1; inputs are query, prototype and prior
        channels = weight.shape[0]
        weight[:, channels : 2 * channels] = -weight[:, :channels]


def _check_progress(saved: Mapping[str, Any]) -> None:
    """Raise unless the counters are possible for a run."""
    for name, lowest in (("iteration", 1), ("validated", 0)):
        value = saved.get(name)
        if type(value) is not int or value < lowest or value > saved["iteration"]:
            raise ValueError(f"{name} must be a whole number of completed iterations, got {value!r}")
    best = saved.get("best")
    if best is not None and not (type(best) is float and 0 <= best <= 1):
        raise ValueError(f"best must be an mIoU from 0 to 1 or None, got {best!r}")


def _check_optimizer(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    """Raise unless the saved optimizer has the recipe's settings, and finite values of the parameters' shapes."""
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
    """Whether a value is finite and has the shape of its parameter, or is a scalar such as a counter."""
    if value is None:
        return True
    return value.shape in (parameter.shape, torch.Size([])) and bool(torch.isfinite(value).all())
