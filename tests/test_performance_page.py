"""The pages on performance hold what the result files of the benchmarks hold."""

import json

import pytest

from make_performance import DOCS, END, PAGES, RESULTS, START, between_marks, read, summary, tables


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_what_the_results_make_of_them(name):
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page.count(START) == page.count(END) == 1
    assert between_marks(page, PAGES[name](read(RESULTS))) == page


def test_every_result_has_a_section():
    assert tables(read(RESULTS)).count("\n### ") + 1 == len(list(RESULTS.glob("*.json")))


def test_every_number_names_its_command_and_date(tmp_path):
    made = {"command": "python benchmarks/imports.py", "date": "2026-01-02", "cores": 2, "threads": 1, "torch": "2.6"}
    made |= {"cpu": "some", "flags": ["avx2"], "native_bfloat16": False}
    content = {"environment": made, "ratio": 1.025, "extra_milliseconds": 41.6}
    (tmp_path / "imports.json").write_text(json.dumps(content))
    page = between_marks(f"before\n{START}old\n{END}\nafter\n", tables(read(tmp_path)))
    assert page.startswith(f"before\n{START}")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert "`python benchmarks/imports.py`, 2026-01-02, 2 cores (some; avx2; without bfloat16), 1 threads" in page
    assert "takes 1.02 times as long as `import torchvision`, 42 ms more" in page

    made |= {"device": "NVIDIA H100"}
    assert "2026-01-02, NVIDIA H100; 2 cores (some;" in tables({"imports": content})


def row(seconds, speed, key="times_as_fast"):
    return {"seconds": seconds, key: speed}


def test_the_summary_against_literals():
    made = {
        "date": "2026-01-02",
        "cores": 2,
        "threads": 1,
        "torch": "2.6",
        "cpu": "some",
        "flags": [],
        "native_bfloat16": 0,
    }
    ways = {"plain float32": row(4, 1), "fewshotseg float32": row(2, 2), "known support float32": row(1, 4)}
    ways |= {"plain bfloat16": row(3, 1.25), "fewshotseg bfloat16": row(0.5, 7.5)}
    official = "times_as_fast_as_official"
    steps = {"plain, batch norms": row(12, 1, official), "PFENet": row(6, 2, official), "SCNet": row(8, 1.5, official)}
    contents = {
        "forward": {"cases": {f"{shots}, batch 1, area 0.15": ways for shots in ("1 shot", "5 shots")}},
        "train_step": {"steps": steps},
    }
    for name, shots in (("evaluation", 1), ("evaluation-5-shots", 5)):
        settings = {"episodes": 20, "size": 65, "shots": shots}
        contents[name] = {"ways": {"plain loop": row(30, 1), "cache": row(10, 3)}, "settings": settings}
    contents = {name: {"environment": {**made, "command": name}, **its} for name, its in contents.items()}
    lines = summary(contents).splitlines()
    numbers = {
        words: cells for words, *cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:12])
    }
    assert list(numbers.values()) == [
        ["4", "2", "2.00"],
        ["4", "1", "4.00"],
        ["3", "0.5", "6.00"],
        ["4", "2", "2.00"],
        ["4", "1", "4.00"],
        ["3", "0.5", "6.00"],
        ["12", "6", "2.00"],
        ["12", "8", "1.50"],
        ["30", "10", "3.00"],
        ["30", "10", "3.00"],
    ]
    assert [line.partition("`, ")[0] for line in lines[-4:]] == [
        "* Inference: `forward",
        "* Training: `train_step",
        "* Evaluation: `evaluation",
        "* 5-shot: `evaluation-5-shots",
    ]


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")) or ["none"])
def test_committed_results_are_of_this_version_and_of_no_machine_path(name):
    if name == "none":
        pytest.skip("no results are committed")
    text = (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    assert "/work" not in text
    assert "/tmp" not in text
