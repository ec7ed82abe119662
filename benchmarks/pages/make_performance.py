"""Writes the results of benchmarks/ into the two pages on performance, so that no number of their tables is typed.

python benchmarks/pages/make_performance.py
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fewshotseg.results import markdown_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks/results"
START, END = "<!-- measured -->\n", "<!-- /measured -->"
Columns = Mapping[str, Callable[[Any], str]]
Contents = Mapping[str, Mapping[str, Any]]
"""Names of result files to what they hold."""


def main() -> None:
    """Write both pages anew."""
    contents = read(RESULTS)
    for name, make in PAGES.items():
        page = DOCS / name
        page.write_text(between_marks(page.read_text(encoding="utf-8"), make(contents)), encoding="utf-8")


def read(folder: Path) -> Contents:
    """All result files of a folder."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def between_marks(page: str, text: str) -> str:
    """The page with this text between its marks."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n{text}\n{END}{rest.partition(END)[2]}"


def tables(contents: Contents) -> str:
    """A section for each result file."""
    return "\n".join(make(contents[name]) for name, make in SECTIONS.items() if name in contents)


def summary(contents: Contents) -> str:
    """The rows that most readers want, each with the seconds of both, and where they come from."""
    inference, steps = contents["forward"], contents["train_step"]["steps"]
    pairs = {}
    for case, words in {"1 shot": "1 shot", "5 shots": "5 shots"}.items():
        ways = inference["cases"][f"{case}, batch 1, area 0.15"]
        pairs[f"segment a query, {words}"] = ways["plain float32"], ways["fewshotseg float32"]
        pairs[f"the same, support already encoded, {words}"] = ways["plain float32"], ways["known support float32"]
        pairs[f"segment a query in bfloat16, {words}"] = ways["plain bfloat16"], ways["fewshotseg bfloat16"]
    pairs["a training step of PFENet, 4 episodes"] = steps["plain, batch norms"], steps["PFENet"]
    pairs["a training step of SCNet, 4 episodes"] = steps["plain, batch norms"], steps["SCNet"]
    for name in ("evaluation", "evaluation-5-shots"):
        ways, settings = contents[name]["ways"], contents[name]["settings"]
        words = f"evaluate {settings['episodes']} episodes of {settings['size']} pixels, {settings['shots']}-shot"
        pairs[words] = ways["plain loop"], ways["cache"]
    lines = [["", "plain PFENet, s", "fewshotseg, s", "speed-up"]]
    for words, (plain, ours) in pairs.items():
        key = "times_as_fast_as_official" if "times_as_fast_as_official" in plain else "times_as_fast"
        seconds_of_both = f"{plain['seconds']:.3g}", f"{ours['seconds']:.3g}"
        lines.append([words, *seconds_of_both, f"{ours[key] / plain[key]:.2f}"])
    files = {
        "Inference": "forward",
        "Training": "train_step",
        "Evaluation": "evaluation",
        "5-shot": "evaluation-5-shots",
    }
    origins = "".join(f"* {words}: {origin(contents[name])}" for words, name in files.items())
    on_gpu = f"\n{gpu_summary(contents['gpu'])}" if "gpu" in contents else ""
    return f"{markdown_table(lines)}\n\n{origins}{on_gpu}"


def gpu_summary(content: Mapping[str, Any]) -> str:
    """The rows that most readers want, on a GPU."""
    cases, steps, compiled = (content["parts"][name] for name in ("forward", "training", "compiled"))
    compiled_step = content["parts"]["compiled_training"]
    one, many, five = (cases[f"batch {case}, bfloat16"] for case in ("1, 1 shots", "16, 1 shots", "1, 5 shots"))
    tf32 = cases["batch 1, 1 shots, tf32"]
    rows = {
        "segment a query, 1 shot, TF32": (tf32["plain"], tf32["fewshotseg"]),
        "the same, compiled with CUDA graphs (plain PFENet is not)": (
            compiled["batch 1"]["plain"],
            compiled["batch 1"]["compiled"],
        ),
        "segment a query, 1 shot, bfloat16": (one["plain"], one["fewshotseg"]),
        "the same, support already encoded": (one["plain"], one["known support"]),
        "segment 16 queries, 1 shot, bfloat16": (many["plain"], many["fewshotseg"]),
        "segment a query, 5 shots, bfloat16": (five["plain"], five["fewshotseg"]),
        "a training step of PFENet, 4 episodes, bfloat16": (
            steps["bfloat16"]["plain, batch norms"],
            steps["bfloat16"]["PFENet"],
        ),
        "a training step of SCNet, 4 episodes, bfloat16": (
            steps["bfloat16"]["plain, batch norms"],
            steps["bfloat16"]["SCNet"],
        ),
        "the same, compiled (plain PFENet is not)": (
            compiled_step["plain, batch norms"],
            compiled_step["SCNet, compiled"],
        ),
    }
    lines = [[content["environment"]["device"], "plain PFENet, ms", "fewshotseg, ms", "speed-up"]]
    for words, (plain, ours) in rows.items():
        times = [f"{1000 * way['seconds']:.3g}" for way in (plain, ours)]
        lines.append([words, *times, f"{ours['times_as_fast'] / plain['times_as_fast']:.2f}"])
    return f"{markdown_table(lines)}\n\n* GPU: {origin(content)}"


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


def flattened(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The ways of all cases as rows of one table."""
    return {f"{case}: {way}": row for case, ways in cases.items() for way, row in ways.items()}


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
        "speed-up": number("times_as_fast"),
        "GFLOP": number("gflop", ".0f"),
        "share of peak": number("share_of_peak", ".0%"),
        "difference": number("difference", ".0e"),
    }
    peak = content["peak_gflops"]["float32"]["convolution"]
    rows = flattened(content["cases"])
    return (
        f"### Inference\n\n{origin(content)}\nThe peak is the speed of one large 3x3 convolution, {peak:.0f} GFLOP/s. "
        "The difference is the largest one between the logits and those of the first row, divided by the largest "
        "logit. The area is the share of a support that its object covers.\n\n" + table(rows, columns)
    )


def scaling(content: Mapping[str, Any]) -> str:
    """How seconds grow with size, shots and batch."""
    columns = {
        "plain": number("plain", ".3g"),
        "fewshotseg": number("fewshotseg", ".3g"),
        "speed-up": number("times_as_fast"),
    }
    parts = []
    for name, measured in content["scaling"].items():
        powers = ", ".join(f"{power:.2f} ({way})" for way, power in measured["power"].items())
        parts.append(
            table(measured["seconds"], columns, name) + f"\nSeconds grow with {name} to the power of {powers}.\n"
        )
    return f"### Inference against size, shots and batch\n\n{origin(content)}\nSeconds.\n\n" + "\n".join(parts)


def train_step(content: Mapping[str, Any]) -> str:
    """Seconds, speed and work of a training step."""
    columns = {
        "seconds (quartiles)": seconds,
        "speed-up over the official step": number("times_as_fast_as_official"),
        "speed-up over frozen norms": number("times_as_fast"),
        "GFLOP": lambda row: f"{row['gflop']:.0f}" if "gflop" in row else "",
        "share of peak": lambda row: f"{row['share_of_peak']:.0%}" if "gflop" in row else "",
    }
    steps = content["steps"]
    more = steps["SCNet"]["gflop"] / steps["PFENet"]["gflop"]
    official = (steps["SCNet"]["seconds"] - steps["PFENet"]["seconds"]) / steps["plain, batch norms"]["seconds"]
    return (
        f"### Training\n\n{origin(content)}\n"
        f"The peak is the speed of one large 3x3 convolution, {content['peak_gflops']:.0f} GFLOP/s.\n\n"
        + table(steps, columns)
        + f"\nSCNet's second branch makes a step {content['branch_overhead']:.2f} times as long, with {more:.2f} times "
        f"the GFLOP. The time that it adds is {official:.0%} of an official step.\n"
    )


def compiled(content: Mapping[str, Any]) -> str:
    """What `torch.compile` does to a step and to inference."""
    first = {name: f"{row['first_call_seconds']:.0f} s" for name, row in content["compiling"].items()}
    step = content["steps"]["SCNet"]["seconds"] / content["steps"]["SCNet, compiled"]["seconds"]
    forward = content["compiled_forward"]["compiled"]["times_as_fast"]
    breaks = sum(row["graph_breaks"] for row in content["compiling"].values())
    return (
        f"### Compiling\n\n{origin(content)}\nThe first call of a training step under `torch.compile` takes "
        f"{first['step']}, that of inference {first['forward']}; their graphs have {breaks} breaks. After that the "
        f"speed-up is {step:.2f} for a step and {forward:.2f} for inference. Compiled code runs as on a GPU: it "
        "neither folds norms nor crops the backbone to masks.\n"
    )


def evaluation(content: Mapping[str, Any]) -> str:
    """Seconds of an evaluation with and without a cache."""
    columns = {
        "seconds": seconds,
        "speed-up": number("times_as_fast"),
        "mIoU": number("miou", ".6f"),
    }
    encodings = content["encodings"]
    return (
        f"### Evaluation, {content['settings']['shots']}-shot\n\n{origin(content)}\n"
        + table(content["ways"], columns)
        + f"\nWithout the cache {encodings['no cache']} images are encoded, with it {encodings['cache']}: "
        f"{encodings['images']} images occur, some of them both as support and as query, and the two roles share most "
        "of the work. The saving grows with the episodes and supports per image. Weights are random, so mIoU only "
        "shows that all ways agree.\n"
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
        "fastest peer": number("best peer", ""),
        "speed-up over it": number("times as fast"),
        "speed-up, channels first": number("channels first"),
        "labels that differ from float64": number("wrong", ""),
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


def gpu(content: Mapping[str, Any]) -> str:
    """Everything that was measured on a GPU."""
    parts = content["parts"]
    limits = parts["limits"]
    columns = {"milliseconds": milliseconds, "speed-up": number("times_as_fast")}
    compiled_parts = {**parts["compiled"], "training": parts["compiled_training"]}
    first = ", ".join(f"{name} {part['first_call_seconds']:.0f} s" for name, part in compiled_parts.items())
    timed = {
        name: {way: row for way, row in part.items() if way != "first_call_seconds"}
        for name, part in compiled_parts.items()
    }
    floor = {"milliseconds": milliseconds, "reading once a round takes": _milliseconds("reading_once_a_round")}
    peaks = ", ".join(
        f"{limits[f'{name}_flops'] / 1e12:.0f} TFLOP/s in {words}"
        for name, words in {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16"}.items()
    )
    return "\n".join(
        [
            f"### On a GPU\n\n{origin(content)}\nThe card copies {limits['bytes_per_second'] / 1e12:.1f} TB/s, and "
            f"multiplies matrices at {peaks}. Speed-ups are over plain PFENet in the same precision, which is never "
            "compiled.\n",
            table(flattened(parts["forward"]), columns, "inference"),
            table(flattened(parts["training"]), columns, "a training step of 4 episodes"),
            f"The first call takes, compiled: {first}.\n",
            table(flattened({name: timed[name] for name in parts["compiled"]}), columns, "inference, one shot, TF32"),
            table(timed["training"], columns, "a training step of 4 episodes, bfloat16"),
            table(parts["kmeans"], floor | {"times that": number("times_that", ".1f")}, "k-means, 3 clusters"),
            table(
                parts["prior"],
                {"milliseconds": milliseconds, "share of peak": number("share_of_peak", ".0%")}
                | {"memory, MiB": number("peak_mib", ".0f")},
                "the prior of a shot",
            ),
            table(parts["evaluation"], {"episodes a second": number("episodes_per_second", ".1f")}, "`evaluate`"),
        ]
    )


def milliseconds(row: Mapping[str, Any]) -> str:
    """The median and the quartiles."""
    low, high = (1000 * quartile for quartile in row["quartiles"])
    return f"{1000 * row['seconds']:.3g} ({low:.3g}-{high:.3g})"


def _milliseconds(name: str) -> Callable[[Any], str]:
    return lambda row: f"{1000 * row[name]:.3g}"


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
    "gpu": gpu,
}

PAGES: dict[str, Callable[[Contents], str]] = {"performance.md": summary, "performance-tables.md": tables}
"""Pages, and what stands between their marks."""

if __name__ == "__main__":
    main()
