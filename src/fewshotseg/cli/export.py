"""Export a trained model as ONNX and torch.export programs that need neither this package nor its Python code.

    python examples/export_onnx.py run/last.pth --size 241 --out exported/
    python examples/export_onnx.py run/last.pth --shots 5 --out exported/

Leaves support.onnx, query.onnx, support.pt2 and query.pt2 in --out, each with all weights it needs. "support" encodes
the annotated examples once: images (1, S, 3, H, W) and label masks (1, S, H, W) to prototype, high and weights. "query"
segments with these: images (B, 3, H, W) to logits (B, 2, H, W), channel 1 the object, for any B. The number of shots S
and the sides H = W are fixed by the export. Images are RGB, normalised; the ONNX files' metadata name mean and std.

The files run back on the CPU, on random images, and the program fails where logits differ from the model's by more than
1e-4 of the largest. Needs pip install "fewshotseg[onnx]".
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

import fewshotseg as fs
from fewshotseg.models import Support
from fewshotseg.models.backbones import image_statistics
from open_model import open_model

TOLERANCE = 1e-4
"""Of the largest logit."""

SUPPORT = ("prototype", "high", "weights")
"""What goes from the support's program to the query's; see `fewshotseg.models.Support`."""

Program = Callable[..., Sequence[Tensor]]


class SupportProgram(nn.Module):
    """The half of a model that encodes supports."""

    def __init__(self, model: fs.SCNet) -> None:
        super().__init__()
        self.model = model

    @override
    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        support = self.model.encode_support(images, masks)
        return tuple(getattr(support, name) for name in SUPPORT)


class QueryProgram(nn.Module):
    """The half of a model that segments."""

    def __init__(self, model: fs.SCNet) -> None:
        super().__init__()
        self.model = model

    @override
    def forward(self, images: Tensor, prototype: Tensor, high: Tensor, weights: Tensor) -> tuple[Tensor]:
        return (self.model.segment(Support(prototype, high, weights), self.model.encode_query(images)),)


@torch.no_grad()
def export(model: fs.SCNet, out: Path | str, *, size: int, shots: int = 1) -> dict[str, float]:
    """Write the four files, and compare them with the model.

    Args:
        model: On the CPU, in float32. It is put into evaluation mode.
        out: Folder for the files; made if need be.
        size: Height and width of all images.
        shots: Annotated examples.

    Returns:
        For ``"onnx"`` and ``"pt2"`` how far logits are from the model's, relative to the largest.

    Raises:
        ValueError: If ``size`` is below 32 or there is no shot.
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ArithmeticError: If logits differ by more than `TOLERANCE`.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, got {shots}")
    import onnx  # noqa: F401 (before minutes of work)
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.eval()
    images, masks, queries = example_inputs(size, shots)
    support = SupportProgram(model).eval()
    write(support, out / "support", {"images": images, "masks": masks}, SUPPORT, model, ())
    known = dict(zip(SUPPORT, support(images, masks), strict=True))
    write(QueryProgram(model).eval(), out / "query", {"images": queries, **known}, ("logits",), model, ("images",))

    return check(model, out, size=size, shots=shots)


@torch.no_grad()
def check(model: fs.SCNet, folder: Path | str, *, size: int, shots: int = 1) -> dict[str, float]:
    """Run the files of a folder on random images, one query and two, and compare with the model in evaluation mode.

    Args:
        model: As in `export`.
        folder: With the four files.
        size: As in `export`.
        shots: As in `export`.

    Returns:
        As `export`.

    Raises:
        ArithmeticError: As `export`.
    """
    images, masks, queries = example_inputs(size, shots, seed=1)
    expected = model.segment(model.encode_support(images, masks), model.encode_query(queries))
    differences = {}
    for kind, load in {"onnx": load_onnx, "pt2": load_pt2}.items():
        encode, segment = load(Path(folder) / f"support.{kind}"), load(Path(folder) / f"query.{kind}")
        known = encode(images, masks)
        errors = [(segment(queries[:batch], *known)[0] - expected[:batch]).abs().max() for batch in (1, 2)]
        differences[kind] = float(torch.stack(errors).max() / expected.abs().max())
        if not differences[kind] <= TOLERANCE:
            raise ArithmeticError(
                f"logits of the {kind} files must be the model's to {TOLERANCE} of the largest, but differ by "
                f"{differences[kind]:.1e}"
            )
    return differences


def write(
    half: nn.Module,
    path: Path,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    model: fs.SCNet,
    batched: Sequence[str],
) -> None:
    """Write ``path.pt2`` and ``path.onnx``; the first axis of the inputs in ``batched`` may have any length."""
    axes = {name: {0: torch.export.Dim("batch")} if name in batched else None for name in inputs}
    program = torch.export.export(half, tuple(inputs.values()), dynamic_shapes=axes)
    torch.export.save(program, path.with_suffix(".pt2"))
    made: Any = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[*inputs], output_names=[*outputs])
    for name, value in image_statistics(model.backbone).items():
        made.model.metadata_props[name] = json.dumps(value)
    made.save(path.with_suffix(".onnx"), external_data=False)


def example_inputs(size: int, shots: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random support images, their masks with an object and some void, and two queries."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(1, shots, 3, size, size, generator=generator)
    masks = torch.zeros(1, shots, size, size, dtype=torch.long)
    masks[..., size // 4 : size // 2, size // 3 : size // 3 * 2] = 1
    masks[..., -size // 8 :, :] = 255
    return images, masks, torch.randn(2, 3, size, size, generator=generator)


def load_onnx(path: Path) -> Program:
    """An ONNX file as a function of tensors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*tensors: Tensor) -> list[Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, arrays)]

    return run


def load_pt2(path: Path) -> Program:
    """A program of torch.export as a function of tensors."""
    module: Any = torch.export.load(path).module()
    return module


def main(arguments: Sequence[str] | None = None) -> None:
    """Export as the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="export_onnx.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="a .pth of train.py or export_head.py")
    add("--size", type=int, help="height and width of all images (default: as the model was trained)")
    add("--shots", type=int, default=1, help="annotated examples (default: 1)")
    add("--out", type=Path, required=True, help="folder for the four files")
    options = parser.parse_args(arguments)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it says what it does not simplify
    try:
        model, size = open_model(options.model)
        differences = export(
            model, options.out, size=size if options.size is None else options.size, shots=options.shots
        )
    except (OSError, ValueError, ImportError, ArithmeticError) as error:
        parser.exit(2, f"{parser.prog}: {str(error).splitlines()[0]}\n")
    for kind, difference in differences.items():
        for half in ("support", "query"):
            path = options.out / f"{half}.{kind}"
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
        print(f"{kind}: logits differ from the model's by {difference:.1e} of the largest")


if __name__ == "__main__":
    main()
