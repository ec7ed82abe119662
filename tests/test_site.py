"""The documentation in a real browser, on a telephone and on a desktop.

Builds the site, which needs the extra docs, or takes the one in $FEWSHOTSEG_SITE.
"""

import os
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlparse

import pytest

from _chromium import PATIENCE, chromium

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]

ROOT = Path(__file__).parents[1]
WIDTHS = (400, 1280)
BASE = Path("fewshotseg")
"""The path of the published site, below its host."""

LOOK = """width => {
    const faults = []
    const page = document.documentElement.scrollWidth
    if (page > width) faults.push(`the page is ${page} wide`)
    const name = element => `${element.tagName.toLowerCase()} ${element.textContent.trim().slice(0, 40)}`
    const scrolls = element => element && (scrolls(element.parentElement)
        || /auto|scroll/.test(getComputedStyle(element).overflowX) && element.getBoundingClientRect().right <= width)
    for (const element of document.querySelectorAll("article *")) {
        const box = element.getBoundingClientRect()
        if (!element.checkVisibility() || !box.width) continue
        if (box.right > width + 1 && !scrolls(element.parentElement)) faults.push(`cut: ${name(element)}`)
    }
    for (const code of document.querySelectorAll("td code"))
        if (!/[^\\w.]/.test(code.textContent) && code.checkVisibility() && code.getClientRects().length > 1)
            faults.push(`broken: ${name(code)}`)
    const signatures = [...document.querySelectorAll(".doc-object:not(.doc-attribute) > .doc-signature code")]
    for (const line of signatures.flatMap(signature => signature.innerText.split("\\n")))
        if (line.length > 88) faults.push(`not wrapped: ${line}`)
    for (const math of document.querySelectorAll("math")) {
        const box = math.getBoundingClientRect()
        if (math.checkVisibility() && !(box.width && box.height)) faults.push(`no size: ${name(math)}`)
    }
    for (const tex of document.querySelectorAll(".arithmatex")) faults.push(`not set: ${name(tex)}`)
    return faults
}"""
"""What is wrong with the page that is shown."""


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory):
    if "FEWSHOTSEG_SITE" in os.environ:
        return Path(os.environ["FEWSHOTSEG_SITE"])
    for module in ("zensical", "mkdocstrings_handlers", "latex2mathml"):
        pytest.importorskip(module, reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "site"


def faults_of(browser, site, tmp_path):
    """For each page what is wrong with it, and how many equations all pages have."""
    (tmp_path / BASE).symlink_to(site.resolve())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    page, found, seen, equations = browser.new_page(), {}, [], 0
    page.set_default_timeout(PATIENCE)

    def only_here(route):
        if urlparse(route.request.url).netloc == host:
            route.continue_()
        else:
            seen.append(f"asked for {route.request.url}")
            route.abort()

    page.route("**/*", only_here)
    page.on("console", lambda message: seen.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(str(error)))
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        seen.clear()
        page.goto(f"http://{host}/{BASE}/{name}")
        page.wait_for_timeout(50)  # scripts that start when all is there
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            seen += [f"at {width}: {fault}" for fault in page.evaluate(LOOK, width)]
        equations += page.locator("math").count()
        if seen:
            found[name] = list(seen)
    page.close()
    server.shutdown()
    server.server_close()
    return found, equations


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_every_page_fits_and_asks_nobody_else(browser, site, tmp_path):
    found, equations = faults_of(browser, site, tmp_path)
    assert found == {}
    assert equations > 30
    assert len(list(site.rglob("*.html"))) > len(list((ROOT / "docs").glob("*.md")))


BAD = """<!doctype html><article>
<div style="width: 700px">wide</div>
<pre style="width: 300px; overflow: auto"><code style="display: block; width: 2000px">this one scrolls</code></pre>
<table style="width: 60px; table-layout: fixed"><tr>
<td style="word-break: break-all"><code>masked_average_pool</code></td></tr></table>
<div class="doc-object doc-function"><p class="doc-signature"><code>f(LONG)</code></p></div>
<div class="doc-object doc-attribute"><p class="doc-signature"><code>VALUE = LONG</code></p></div>
<math style="display: block; width: 0"></math>
<span class="arithmatex">x^2</span>
<script src="https://example.org/script.js"></script><script>undefined.wrong</script>
</article>"""


def test_every_kind_of_fault_is_seen(browser, tmp_path):
    site, served = tmp_path / "site", tmp_path / "served"
    site.mkdir()
    served.mkdir()
    (site / "good.html").write_text("<!doctype html><article>good <math><mi>x</mi></math></article>")
    (site / "index.html").write_text(BAD.replace("LONG", "x" * 90))
    found, equations = faults_of(browser, site, served)
    assert equations == 2
    assert list(found) == ["index.html"]
    asked, *rest = found["index.html"]
    assert asked == "asked for https://example.org/script.js"
    for fault in ("at 400: the page is 7", "at 400: cut: div wide", "at 400: broken: code masked_average_pool",
                  "at 400: not wrapped: f(xxx", "at 400: no size: math", "at 400: not set: span x^2"):  # fmt: skip
        assert sum(line.startswith(fault) for line in rest) == 1, (fault, rest)
    assert any("wrong" in line for line in rest)
    assert not any("scrolls" in line or line.startswith("at 1280: cut") for line in rest)
