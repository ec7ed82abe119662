"""Make a file for `FewShotPredictor.from_pretrained` of a checkpoint of train.py: its head, without the backbone.

    python examples/train.py folders --data a/ b/ --backbone efficientnet_lite0 --backbone-weights package --out run/
    python examples/export_head.py run/last.pth my-head.pth --data "what was trained on" --command "how"

The backbone must be one whose weights an installed package holds, such as efficientnet_lite0.

Objects of new classes get lower probabilities than those trained on. With --threshold, the head is given another bias,
so that what had that probability has one half. With --size, photographs are brought to another size than in training.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fewshotseg import SCNetConfig
from fewshotseg.models import save_pretrained
from open_model import count_from
from fewshotseg.training.loop import load_model


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    data: str,
    command: str,
    threshold: float = 0.5,
    size: int | None = None,
) -> None:
    """Write the head of a checkpoint.

    Args:
        checkpoint: Of train.py.
        out: Where to.
        data: What it was trained on, in words.
        command: How it was trained.
        threshold: The probability of foreground that becomes one half.
        size: The side in pixels to be used at; by default that of training.

    Raises:
        ValueError: If ``threshold`` is no probability, the checkpoint is none, or its backbone's weights are
            not those of an installed package.
    """
    model, saved = load_model(checkpoint)
    count_from(model, threshold)
    recipe = {name: value for name, value in saved["recipe"].items() if name not in {"model", "backbone_weights"}}
    save_pretrained(
        model,
        out,
        backbone=recipe["backbone"],
        config=SCNetConfig(**saved["recipe"]["model"]),
        size=size or saved["data"]["protocol"]["train_size"],
        origin={
            "data": data,
            "command": command,
            "threshold": threshold,
            "recipe": recipe,
            "protocol": f"{saved['protocol']} ({saved['protocol_hash']}), fold {saved['data']['fold']}",
            "iteration": saved["iteration"],
            "versions": saved["versions"],
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Export as the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="export_head.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="of train.py")
    parser.add_argument("out", type=Path, help="the file to write, ending in .pth")
    parser.add_argument("--data", required=True, help="what it was trained on, to be kept with it")
    parser.add_argument("--command", required=True, help="how it was trained, to be kept with it")
    parser.add_argument("--threshold", type=float, default=0.5, help="what becomes one half (default: 0.5)")
    parser.add_argument("--size", type=int, help="side in pixels to be used at (default: that of training)")
    options = parser.parse_args(arguments)
    try:
        export(**vars(options))
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {str(error).splitlines()[0]}\n")
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
