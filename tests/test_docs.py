"""The documentation names all that is public, and its links lead somewhere."""

import dataclasses
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import fewshotseg
import fewshotseg.data
import fewshotseg.metrics
import fewshotseg.ops
import fewshotseg.training

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))
API = sorted(DOCS.glob("api/*.md"))
ENTRY = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def text_of(page: Path) -> str:
    """The page without its code, where brackets are no links."""
    return re.sub(r"```.*?```|`[^`\n]*`", "`code`", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def documented_names() -> list[str]:
    """The entries of the pages of the API."""
    return [entry for page in API for entry in ENTRY.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "module",
    [fewshotseg, fewshotseg.ops, fewshotseg.data, fewshotseg.metrics, fewshotseg.training],
    ids=lambda module: module.__name__,
)
def test_every_public_name_is_in_the_api(module):
    assert set(module.__all__) <= {entry.rpartition(".")[2] for entry in documented_names()}


def test_api_names_what_exists_once():
    entries = documented_names()
    assert len(entries) == len(set(entries))
    for entry in entries:
        pkgutil.resolve_name(entry)


def test_the_index_of_the_api_leads_to_every_entry():
    links = re.findall(r"\[`(\w+)`\]\((.+?)#(.+?)\){ #(.+?) }", (DOCS / "api.md").read_text(encoding="utf-8"))
    assert [(page, entry) for _, page, entry, _ in links] == [
        (f"api/{page.name}", entry)
        for page in sorted(API, key=lambda page: [name for _, name, *_ in links].index(f"api/{page.name}"))
        for entry in ENTRY.findall(page.read_text(encoding="utf-8"))
    ]
    for word, _, entry, anchor in links:
        assert (word, entry) == (entry.rpartition(".")[2], anchor)


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
            assert re.search(rf"^::: {anchor}$|{{ #{anchor} }}", linked.read_text(encoding="utf-8"), re.MULTILINE), (
                target
            )
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
    pages = sorted(page.relative_to(DOCS).as_posix() for page in PAGES)
    assert sorted(re.findall(r"'([\w/-]+\.md)'", str(config["project"]["nav"]))) == pages


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
