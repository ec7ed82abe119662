"""Writes the results of benchmarks/ into performance.md, so that no number of that page is typed.

python docs/make_performance.py
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fewshotseg.results import markdown_table

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks/results"
START, END = "<!-- measured -->\n", "<!-- /measured -->"
Columns = Mapping[str, Callable[[Any], str]]


def main() -> None:
    """Write the page anew."""
    page = DOCS / "performance.md"
    page.write_text(with_results(page.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


def with_results(page: str, folder: Path) -> str:
    """The page with the tables of all result files in a folder between its marks."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    sections = [make(found[name]) for name, make in SECTIONS.items() if name in found]
    return before + START + "\n" + "\n".join(sections) + "\n" + END + after


def origin(content: Mapping[str, Any]) -> str:
    """What made a file, where and when."""
    made = content["environment"]
    device = made.get("device", "cpu")
    on = "" if device == "cpu" else f"{device}; "
    bfloat16 = "with" if made["native_bfloat16"] else "without"
    return (
        f"`{made['command']}`, {made['date']}, {on}{made['cores']} cores ({made['cpu']}; {', '.join(made['flags'])}; "
        f"{bfloat16} bfloat16), {made['threads']} threads, torch {made['torch']}.\n"
    )


def table(rows: Mapping[str, Any], columns: Columns, name: str = "") -> str:
    """A table with a row for each entry."""
    body = [[row, *(text(values) for text in columns.values())] for row, values in rows.items()]
    return markdown_table([[name, *columns], *body]) + "\n"


def seconds(row: Mapping[str, Any]) -> str:
    """The median, and the quartiles where there are several rounds."""
    low, high = row["quartiles"]
    return f"{row['seconds']:.3g}" + (f" ({low:.3g}-{high:.3g})" if row["rounds"] > 1 else "")


def number(name: str, form: str = ".2f", suffix: str = "") -> Callable[[Any], str]:
    """A function that writes one entry of a row."""
    return lambda row: f"{row[name]:{form}}{suffix}"


def forward(content: Mapping[str, Any]) -> str:
    """Seconds, speed and work of inference."""
    columns = {
        "seconds (quartiles)": seconds,
        "times as fast": number("times_as_fast"),
        "GFLOP": number("gflop", ".0f"),
        "of the peak": number("share_of_peak", ".0%"),
        "difference": number("difference", ".0e"),
    }
    peak = content["peak_gflops"]["float32"]["convolution"]
    rows = {f"{case}: {way}": row for case, ways in content["cases"].items() for way, row in ways.items()}
    return (
        f"### Inference\n\n{origin(content)}\nThe peak is that of one large 3x3 convolution, {peak:.0f} GFLOP/s; "
        "differences are shares of the largest logit; an area is the share of a support that its object covers.\n\n"
        + table(rows, columns)
    )


def scaling(content: Mapping[str, Any]) -> str:
    """How seconds grow with size, shots and batch."""
    columns = {
        "plain": number("plain", ".3g"),
        "fewshotseg": number("fewshotseg", ".3g"),
        "times as fast": number("times_as_fast"),
    }
    parts = []
    for name, measured in content["scaling"].items():
        powers = ", ".join(f"{power:.2f} ({way})" for way, power in measured["power"].items())
        parts.append(table(measured["seconds"], columns, name) + f"\nThey grow with {name} to the power of {powers}.\n")
    return f"### Cost against size, shots and batch\n\n{origin(content)}\nSeconds of inference.\n\n" + "\n".join(parts)


def train_step(content: Mapping[str, Any]) -> str:
    """Seconds, speed and work of a training step."""
    columns = {
        "seconds (quartiles)": seconds,
        "as fast as the official step": number("times_as_fast_as_official"),
        "as fast as it with frozen norms": number("times_as_fast"),
        "GFLOP": lambda row: f"{row['gflop']:.0f}" if "gflop" in row else "",
        "of the peak": lambda row: f"{row['share_of_peak']:.0%}" if "gflop" in row else "",
    }
    steps = content["steps"]
    more = steps["SCNet"]["gflop"] / steps["PFENet"]["gflop"]
    official = (steps["SCNet"]["seconds"] - steps["PFENet"]["seconds"]) / steps["plain, batch norms"]["seconds"]
    return (
        f"### Training\n\n{origin(content)}\n"
        f"The peak is that of one large 3x3 convolution, {content['peak_gflops']:.0f} GFLOP/s.\n\n"
        + table(steps, columns)
        + f"\nThe second branch makes a step {content['branch_overhead']:.2f} times as long, by {more:.2f} times the "
        f"GFLOP: what it shares with the first has become cheaper than itself. It adds {official:.0%} of the official "
        "step's time.\n"
    )


def compiled(content: Mapping[str, Any]) -> str:
    """What `torch.compile` does to a step and to inference."""
    first = {name: f"{row['first_call_seconds']:.0f} s" for name, row in content["compiling"].items()}
    step = content["steps"]["SCNet"]["seconds"] / content["steps"]["SCNet, compiled"]["seconds"]
    forward = content["compiled_forward"]["compiled"]["times_as_fast"]
    breaks = sum(row["graph_breaks"] for row in content["compiling"].values())
    return (
        f"### Compiling\n\n{origin(content)}\n`torch.compile` of a training step takes {first['step']} at its first "
        f"call, of inference {first['forward']}, with {breaks} breaks in their graphs. Then a step is {step:.2f} times "
        f"as fast as without, inference {forward:.2f} times. Compiled, all runs as on an accelerator: nothing is "
        "folded, and nothing left out around masks.\n"
    )


def evaluation(content: Mapping[str, Any]) -> str:
    """Seconds of an evaluation with and without a cache."""
    columns = {
        "seconds": seconds,
        "times as fast": number("times_as_fast"),
        "mIoU": number("miou", ".6f"),
    }
    encodings = content["encodings"]
    return (
        f"### Evaluation, {content['settings']['shots']}-shot\n\n{origin(content)}\n"
        + table(content["ways"], columns)
        + f"\nOf {encodings['no cache']} encodings the cache leaves {encodings['cache']}, of {encodings['images']} "
        "images whose two roles share most of their work. The more episodes and supports there are to an image, the "
        "more it leaves out. Weights are random: mIoU says only that all ways agree.\n"
    )


def kmeans(content: Mapping[str, Any]) -> str:
    """Seconds of k-means beside its peers."""
    rows = {
        f"B = {shape['batch']}, C = {shape['channels']}, n = {shape['clusters']}": {
            "milliseconds": 1000 * shape["rows"]["fewshotseg"]["seconds"],
            "wrong": shape["wrong_labels"],
            **shape["ratios"],
        }
        for shape in content["shapes"]
    }
    columns = {
        "milliseconds": number("milliseconds", ".3g"),
        "quickest peer": number("best peer", ""),
        "times as fast as it": number("times as fast"),
        "the same, channels first": number("channels first"),
        "labels unlike float64": number("wrong", ""),
    }
    return f"### k-means\n\n{origin(content)}\n3600 points, 10 rounds.\n\n" + table(rows, columns)


def memory(content: Mapping[str, Any]) -> str:
    """Peak memory."""
    columns = {
        "plain, MiB": number("plain", ".0f"),
        "fewshotseg, MiB": number("fewshotseg", ".0f"),
        "share": number("share"),
    }
    return f"### Peak memory\n\n{origin(content)}\n" + table(content["peak_mib"], columns)


def imports(content: Mapping[str, Any]) -> str:
    """Import time."""
    return (
        f"### Importing\n\n{origin(content)}\n`from fewshotseg import *` takes {content['ratio']:.2f} times as long as "
        f"`import torchvision`, {content['extra_milliseconds']:.0f} ms more.\n"
    )


SECTIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "forward": forward,
    "forward-scaling": scaling,
    "train_step": train_step,
    "train_step-compiled": compiled,
    "evaluation": evaluation,
    "evaluation-5-shots": evaluation,
    "kmeans": kmeans,
    "memory": memory,
    "imports": imports,
}

if __name__ == "__main__":
    main()
