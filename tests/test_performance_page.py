"""The page on performance holds what the result files of the benchmarks hold."""

import json

import pytest

from make_performance import END, RESULTS, START, with_results

PAGE = (RESULTS.parents[1] / "docs/performance.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_results_make_of_it():
    assert with_results(PAGE, RESULTS) == PAGE


def test_every_number_names_its_command_and_date(tmp_path):
    made = {"command": "python benchmarks/imports.py", "date": "2026-01-02", "cores": 2, "threads": 1, "torch": "2.6"}
    made |= {"cpu": "some", "flags": ["avx2"], "native_bfloat16": False}
    content = {"environment": made, "ratio": 1.025, "extra_milliseconds": 41.6}
    (tmp_path / "imports.json").write_text(json.dumps(content))
    page = with_results(f"before\n{START}old\n{END}\nafter\n", tmp_path)
    assert page.startswith(f"before\n{START}")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert "`python benchmarks/imports.py`, 2026-01-02, 2 cores (some; avx2; without bfloat16), 1 threads" in page
    assert "takes 1.02 times as long as `import torchvision`, 42 ms more" in page

    made |= {"device": "NVIDIA H100"}
    (tmp_path / "imports.json").write_text(json.dumps(content))
    assert "2026-01-02, NVIDIA H100; 2 cores (some;" in with_results(f"{START}{END}", tmp_path)


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")) or ["none"])
def test_committed_results_are_of_this_version_and_of_no_machine_path(name):
    if name == "none":
        pytest.skip("no results are committed")
    text = (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    assert "/work" not in text
    assert "/tmp" not in text
