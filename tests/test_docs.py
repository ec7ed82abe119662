"""The documentation names all that is public, and its links lead somewhere."""

import dataclasses
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import fewshotseg
import fewshotseg.data
import fewshotseg.ops

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def text_of(page: Path) -> str:
    """The page without its code, where brackets are no links."""
    return re.sub(r"```.*?```|`[^`\n]*`", "`code`", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def documented_names() -> list[str]:
    """The entries of the API page."""
    return re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("module", [fewshotseg, fewshotseg.ops, fewshotseg.data], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_api_page(module):
    assert set(module.__all__) <= {entry.rpartition(".")[2] for entry in documented_names()}


def test_api_page_names_what_exists():
    for entry in documented_names():
        pkgutil.resolve_name(entry)


@pytest.mark.parametrize("field", dataclasses.fields(fewshotseg.SCNetConfig), ids=lambda field: field.name)
def test_every_setting_is_in_the_table_with_its_default(field):
    page = (DOCS / "paper-to-code.md").read_text(encoding="utf-8")
    table = page.partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = re.findall(rf"^\| `{field.name}` \| (.+?) \|", table, flags=re.MULTILINE)
    expected = {"grid_bins": "none"}.get(field.name, str(field.default))
    assert rows == [f'`"{expected}"`' if isinstance(field.default, str) else expected]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), target
        if anchor.startswith("fewshotseg."):
            assert f"::: {anchor}\n" in linked.read_text(encoding="utf-8"), target
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", text_of(linked), flags=re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


def slug(heading: str) -> str:
    """The anchor that the site gives a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@pytest.mark.parametrize("image", sorted((DOCS / "images").glob("*.png")), ids=lambda image: image.name)
def test_pictures_are_small_and_used(image):
    used = [page for page in (ROOT / "README.md", *PAGES) if f"images/{image.name}" in page.read_text(encoding="utf-8")]
    assert used
    assert image.stat().st_size < 200_000


def test_every_page_is_in_the_navigation():
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert set(re.findall(r"[\w-]+\.md", str(config["project"]["nav"]))) == {page.name for page in PAGES}


def test_citations_agree():
    page = (DOCS / "cite.md").read_text(encoding="utf-8")
    file = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"version = {{{version}}}" in page
    assert f"\nversion: {version}\n" in file
    authors = re.findall(r"given-names: ([\w-]+), family-names: ([\w-]+)", file)
    assert len(authors) == 12
    for given, family in authors:
        assert f"{family}, {given}" in page
