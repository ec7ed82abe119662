"""Exports a model as two programs, in ONNX or by torch.export, that run without this package."""

import json
import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import as_list, check_at_least, check_choice
from fewshotseg._inference import inference
from fewshotseg._io import StrPath
from fewshotseg.models.encodings import SMALLEST_SIDE
from fewshotseg.models.scnet import SCNet
from fewshotseg.models.segmenter import PrototypeSegmenter

TOLERANCE = 1e-4
"""Largest difference of a program's logits from the model's, relative to the largest logit."""

KINDS = ("onnx", "pt2")
"""File endings of the formats: ONNX, and programs of torch.export."""

Program = Callable[..., Sequence[Tensor]]

Model = SCNet | PrototypeSegmenter


def parts_of(model: Model) -> tuple[str, ...]:
    """List the fields of a support's encoding that the query's program takes.

    An `SCNet` needs the prototype, high and weights unless its prior is of densities, and the points if it uses
    densities; a `PrototypeSegmenter` needs points, foreground and background, or only prototypes.
    """
    if isinstance(model, SCNet):
        masked = () if model.config.prior == "density" else ("high", "weights")
        points = ("points", "point_foreground", "point_background") if model.compares_points else ()
        return ("prototype", *masked, *points)
    return ("points", "foreground", "background") if model.config.score == "density" else ("prototypes",)


class SupportProgram(nn.Module):
    """The part of a model that encodes supports."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @override
    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        support = self.model.encode_support(images, masks)
        return tuple(getattr(support, name) for name in parts_of(self.model))


class QueryProgram(nn.Module):
    """The part of a model that segments queries.

    Args:
        model: The model.
        support: An encoding of the model; fields that are not in `parts_of` are replaced by small zero tensors.
    """

    def __init__(self, model: Model, support: Any) -> None:
        super().__init__()
        rest = {name: part for name, part in support._asdict().items() if name not in parts_of(model)}
        small = {name: part.new_zeros(part[:, :1, :1].shape) for name, part in rest.items() if isinstance(part, Tensor)}
        self.model, self.support = model, support._replace(**small)

    @override
    def forward(self, images: Tensor, *parts: Tensor) -> tuple[Tensor]:
        model: Any = self.model
        support = self.support._replace(**dict(zip(parts_of(model), parts, strict=True)))
        return (model.segment(support, model.encode_query(images)),)


def export_programs(
    model: Model, out: StrPath, *, size: int, shots: int = 1, kinds: Sequence[str] = KINDS
) -> dict[str, float]:
    """Export the programs ``support`` and ``query`` in each format, after comparing their output with the model's.

    ``support`` encodes the annotated examples once: images ``(1, S, 3, H, W)`` and label masks ``(1, S, H, W)`` give
    the tensors that `parts_of` names. ``query`` takes these and images ``(B, 3, H, W)`` of any batch size B, and gives
    logits ``(B, 2, H, W)``, channel 1 the object. S and H = W are fixed by the export. Images must be normalised; the
    metadata of the ONNX files hold mean, std and threshold. Each file contains all weights that it needs.

    Args:
        model: The model, on the CPU and in float32.
        out: Folder for the files, created if needed. Existing files are replaced only if all programs are correct.
        size: Height and width of all images, at least 32.
        shots: S, the number of annotated examples.
        kinds: ``"onnx"`` for ONNX Runtime and other readers of ONNX, ``"pt2"`` for `torch.export.load`.

    Returns:
        For each kind the largest difference of its logits from the model's, relative to the largest logit.

    Raises:
        ValueError: If ``size`` is below 32, there is no shot, or a kind is unknown.
        ImportError: If ONNX is asked for and onnx, onnxscript or onnxruntime is not installed.
        ArithmeticError: If logits differ by more than `TOLERANCE`; nothing is written.
    """
    check_at_least("size", size, SMALLEST_SIDE)
    check_at_least("shots", shots, 1)
    kinds = as_list("kinds", kinds, "a list of kinds")
    for kind in kinds:
        check_choice("kinds", kind, KINDS)
    if "onnx" in kinds:  # fail now, not after minutes of work
        for name in ("onnx", "onnxruntime", "onnxscript"):
            _import(name)

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with inference(model), TemporaryDirectory(dir=out, prefix=".export-") as folder:
        images, masks, queries = example_inputs(size, shots)
        parts = parts_of(model)
        support, query = SupportProgram(model), QueryProgram(model, model.encode_support(images, masks))
        known = dict(zip(parts, support(images, masks), strict=True))
        for name, half, inputs, outputs in (
            ("support", support, {"images": images, "masks": masks}, parts),
            ("query", query, {"images": queries, **known}, ("logits",)),
        ):
            program = _traced(half, [*inputs.values()], any_batch=name == "query")
            for kind in kinds:
                path = Path(folder, f"{name}.{kind}")
                if kind == "pt2":
                    torch.export.save(program, path)
                else:
                    _write_onnx(program, path, inputs=[*inputs], outputs=outputs, model=model)
        differences = check_programs(model, folder, size=size, shots=shots, kinds=kinds)
        for file in sorted(Path(folder).iterdir()):
            file.replace(out / file.name)
    return differences


@torch.no_grad()
def check_programs(
    model: Model, folder: StrPath, *, size: int, shots: int = 1, kinds: Sequence[str] = KINDS
) -> dict[str, float]:
    """Run exported programs on random images, with batches of one and two queries, and compare them with the model.

    Args:
        model: As in `export_programs`.
        folder: The folder of the files.
        size: As in `export_programs`.
        shots: As in `export_programs`.
        kinds: As in `export_programs`.

    Returns:
        As `export_programs`.

    Raises:
        ArithmeticError: As `export_programs`.
    """
    images, masks, queries = example_inputs(size, shots, seed=1)
    with inference(model):
        answers: Any = model
        expected = answers.segment(answers.encode_support(images, masks), answers.encode_query(queries))
    differences = {}
    for kind in kinds:
        encode, segment = (_load(Path(folder, f"{half}.{kind}")) for half in ("support", "query"))
        known = encode(images, masks)
        errors = [(segment(queries[:batch], *known)[0] - expected[:batch]).abs().max() for batch in (1, 2)]
        differences[kind] = float(torch.stack(errors).max() / expected.abs().max())
        if not differences[kind] <= TOLERANCE:
            raise ArithmeticError(
                f"logits of the {kind} files must be the model's to {TOLERANCE} of the largest, but differ by "
                f"{differences[kind]:.1e}"
            )
    return differences


def _traced(half: nn.Module, inputs: Sequence[Tensor], *, any_batch: bool) -> torch.export.ExportedProgram:
    """Export one part of the model; with ``any_batch`` the first axis of the first input is dynamic."""
    first = {0: torch.export.Dim("batch")} if any_batch else None
    others = tuple(None for _ in inputs[1:])
    shapes = (first, others) if isinstance(half, QueryProgram) else (first, *others)
    return torch.export.export(half.eval(), tuple(inputs), dynamic_shapes=shapes)


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, *, inputs: Sequence[str], outputs: Sequence[str], model: Model
) -> None:
    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)  # it logs each step that it cannot optimise
    try:
        made: Any = torch.onnx.export(program, dynamo=True, verbose=False, input_names=inputs, output_names=outputs)
    finally:
        log.setLevel(level)
    for name in ("mean", "std", "threshold"):
        made.model.metadata_props[name] = json.dumps(getattr(model.config, name))
    made.save(path, external_data=False)


def example_inputs(size: int, shots: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draw random support images, masks with an object and some void, and two queries."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(1, shots, 3, size, size, generator=generator)
    masks = torch.zeros(1, shots, size, size, dtype=torch.long)
    masks[..., size // 4 : size // 2, size // 3 : size // 3 * 2] = 1
    masks[..., -size // 8 :, :] = 255
    return images, masks, torch.randn(2, 3, size, size, generator=generator)


def _load(path: Path) -> Program:
    """Load a program as a function of tensors."""
    return _load_onnx(path) if path.suffix == ".onnx" else _load_pt2(path)


def _load_onnx(path: Path) -> Program:
    onnxruntime = _import("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*tensors: Tensor) -> list[Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, arrays)]

    return run


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{name} must be installed: pip install "fewshotseg[onnx]"', name=error.name
        ) from error


def _load_pt2(path: Path) -> Program:
    module: Program = torch.export.load(path).module()
    return module
