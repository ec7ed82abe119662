"""The page in a real browser: what is drawn is found, shown and saved, and no other host is asked for anything."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from io import BytesIO
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from PIL import Image

import fewshotseg as fs
from _chromium import PATIENCE, chromium
from fewshotseg.annotations import overlay
from fewshotseg.models.backbones import lite

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]

OUTLINE = [(155, 20), (300, 20), (350, 190), (350, 508), (40, 508), (40, 190), (155, 190)]
"""About where the astronaut is."""


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("gradio", reason="needs the extra app")
    pytest.importorskip(lite.PACKAGES["efficientnet_lite2"], reason="needs the extra lite")
    with chromium() as opened:
        yield opened


@pytest.fixture
def photos(tmp_path):
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    folder = tmp_path / "photos"
    folder.mkdir()
    astronaut = Image.fromarray(data.astronaut())
    astronaut.save(folder / "astronaut.png")
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop((0, 0, 512, 480)).save(folder / "mirrored.png")
    Image.fromarray(data.coffee()).save(folder / "coffee.png")
    return folder


GUARD = """
import socket

def noted(call):
    def noting(*arguments, **more):
        host = next((each for each in arguments if isinstance(each, (tuple, str, bytes))), None)
        host = host[0] if isinstance(host, tuple) else host
        if str(host) not in {{"127.0.0.1", "::1", "localhost", "0.0.0.0", "None"}}:
            with open({log!r}, "a") as file:
                print(host, file=file)
        return call(*arguments, **more)
    return noting

socket.socket.connect = noted(socket.socket.connect)
socket.socket.connect_ex = noted(socket.socket.connect_ex)
socket.getaddrinfo = noted(socket.getaddrinfo)
"""
"""Notes every host that the process of the page looks up or connects to."""


class Page:
    """A process with the page, and a browser that shows it."""

    def __init__(self, browser, folder, out):
        base = out.parent
        (base / "temporary").mkdir()
        (base / "guard").mkdir()
        (base / "guard" / "sitecustomize.py").write_text(GUARD.format(log=str(base / "connections")))
        paths = [str(base / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
                       "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(base / "temporary")}  # fmt: skip
        command = [sys.executable, "-m", "fewshotseg", "annotate", folder, "--out", out, "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.said = self.process.stdout.readline()
        self.url = re.search(r"http://127\.0\.0\.1:\d+", self.said)[0]
        self.page = browser.new_page(viewport={"width": 1400, "height": 1200})
        self.page.set_default_timeout(PATIENCE)
        self.asked, self.errors = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(self.url)
        self.page.wait_for_selector("#paint canvas")
        self.wait_for("Nothing is marked yet.")

    def close(self):
        self.page.close()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        return code

    def status(self):
        return self.page.locator("#status textarea").input_value()

    def wait_for(self, text):
        self.page.wait_for_function(
            "text => document.querySelector('#status textarea').value.includes(text)", arg=text, timeout=PATIENCE
        )

    def wait_for_answers(self, count):
        self.page.wait_for_function(
            "count => document.querySelectorAll('#answers .thumbnail-lg img').length === count", arg=count
        )
        self.page.wait_for_timeout(1000)

    def answers(self):
        """Caption to picture, as the page shows them."""
        found = {}
        for item in self.page.locator("#answers .thumbnail-lg").all():
            response = self.page.request.get(item.locator("img").get_attribute("src"))
            with Image.open(BytesIO(response.body())) as picture:
                found[item.locator(".caption-label").inner_text()] = np.array(picture.convert("RGB"))
        return found

    def click(self, points, size=512):
        picture = self.page.locator("#clicks img").first
        picture.wait_for()
        for number, (x, y) in enumerate(points, start=1):
            # Each click draws its cross on a new picture, and the page takes no click on one that is not there yet.
            self.page.wait_for_function(
                "size => (e => e && e.complete && e.naturalWidth === size)(document.querySelector('#clicks img'))",
                arg=size,
            )
            box = picture.bounding_box()
            scale = box["width"] / size
            picture.click(position={"x": x * scale, "y": y * scale})
            if number < len(points) or len(points) > 2:
                self.wait_for(f"{number} clicked.")


@pytest.fixture
def page(browser, photos, tmp_path):
    opened = Page(browser, photos, tmp_path / "out")
    yield opened
    opened.close()


def check_files(page, out, photos, answers):
    """What lies in the folder is what the page showed."""
    for name in ("mirrored", "coffee"):
        caption = next(each for each in answers if each.startswith(f"{name}.png: "))
        with Image.open(out / f"{name}-mask.png") as file, Image.open(photos / f"{name}.png") as photo:
            mask, pixels = np.array(file), np.array(photo.convert("RGB"))
        assert mask.shape == pixels.shape[:2]
        drawn = overlay(pixels, mask == 255).permute(1, 2, 0).numpy()
        assert np.array_equal(drawn, answers[caption])
        share = re.search(r"([\d.]+) %, presence ([\d.]+)$", caption)
        assert float(share[1]) == pytest.approx(100 * (mask == 255).mean(), abs=0.06)
        assert 0 < float(share[2]) <= 1  # to two decimals


def test_an_outline_is_found_elsewhere_shown_and_saved(page, photos, tmp_path):
    out = tmp_path / "out"
    page.page.get_by_role("tab", name="Box or outline").click()
    page.page.get_by_label("points around the object").check()
    page.page.wait_for_timeout(1000)
    page.page.locator("#class textarea, #class input").fill("astronaut")
    page.click(OUTLINE)
    page.page.locator("#close").click()
    page.wait_for("Ready.")
    page.wait_for_answers(3)
    first = page.answers()
    assert "astronaut.png: your mark" in first

    page.page.locator("#threshold input[type=number]").fill("0.6")
    page.page.locator("#threshold input[type=number]").press("Tab")
    slider = page.page.locator("#threshold input[type=range]")
    slider.press("ArrowRight")
    page.page.wait_for_function(
        "before => [...document.querySelectorAll('#answers .caption-label')].every((each, i) => i == 0 || "
        "each.innerText != before[i])",
        arg=[*first],
    )
    page.page.wait_for_timeout(5000)
    answers = page.answers()
    if os.environ.get("FEWSHOTSEG_SCREENSHOT"):
        page.page.screenshot(path=os.environ["FEWSHOTSEG_SCREENSHOT"])
    page.page.get_by_label("labelme").check()
    page.page.locator("#save").click()
    page.wait_for(f"in {out.resolve()}.")
    check_files(page, out, photos, answers)

    with Image.open(out / "examples/astronaut.png-astronaut.png") as file:
        mark = np.array(file) == 255
    with Image.open(out / "mirrored-mask.png") as file:
        found = np.array(file) == 255
    expected = mark[:480, ::-1]
    assert (found & expected).sum() > 0.5 * (found | expected).sum()
    assert mark[300, 200]
    assert not mark[100, 100]
    predictor = fs.FewShotPredictor.from_pretrained()
    predictor.load_support(out / "support.fss")
    assert predictor.class_names == ("astronaut",)
    again = predictor.predict(photos / "mirrored.png", threshold=0.61)
    assert torch.equal(again.mask == 1, torch.from_numpy(found))
    content = json.loads((out / "annotations.json").read_text())
    assert [each["name"] for each in content["categories"]] == ["astronaut"]
    assert {each["file_name"] for each in content["images"]} == {path.name for path in photos.iterdir()}
    assert (out / "mirrored.json").exists()

    hosts = {urlparse(each).netloc for each in page.asked if not each.startswith(("data:", "blob:"))}
    assert hosts == {urlparse(page.url).netloc}
    assert not (tmp_path / "connections").exists()
    assert page.errors == []


def test_paint_and_boxes_of_two_classes(page, photos, tmp_path):
    page.page.locator("#class textarea, #class input").fill("suit")
    canvas = page.page.locator("#paint canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    middle_x, middle_y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.page.mouse.move(middle_x - 60, middle_y + 60)
    page.page.mouse.down()
    page.page.mouse.move(middle_x - 20, middle_y + 140, steps=8)
    page.page.mouse.up()
    page.page.wait_for_timeout(1500)
    page.page.locator("#add").click()
    page.wait_for_answers(3)
    page.page.locator("#class textarea, #class input").fill("helmet")
    page.page.get_by_role("tab", name="Box or outline").click()
    page.click([(360, 360), (505, 505)])
    page.page.wait_for_function(
        "() => [...document.querySelectorAll('#answers .caption-label')].some(e => e.innerText.includes('helmet'))"
    )
    answers = page.answers()
    page.page.locator("#save").click()
    page.wait_for("Saved ")
    out = tmp_path / "out"
    with Image.open(out / "astronaut-mask.png") as file:
        marked = np.array(file)
    assert set(np.unique(marked)) == {0, 1, 2}
    assert marked[430, 430] == 2
    assert 0.002 < (marked == 1).mean() < 0.2
    assert (out / "labelmap.txt").exists()
    with Image.open(out / "coffee-mask.png") as file, Image.open(photos / "coffee.png") as photo:
        drawn = overlay(np.array(photo), np.array(file)).permute(1, 2, 0).numpy()
    caption = next(each for each in answers if each.startswith("coffee.png"))
    assert "suit " in caption
    assert np.array_equal(drawn, answers[caption])


def test_only_this_machine_can_open_the_page_and_ctrl_c_ends_it(browser, photos, tmp_path):
    opened = Page(browser, photos, tmp_path / "out")
    port = urlparse(opened.url).port
    for address in {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), port)}:
        if not address.startswith("127.") and address != "::1":
            with pytest.raises(OSError, match=r"."), socket.create_connection((address, port), timeout=5):
                pass
    temporary = tmp_path / "temporary"
    assert [entry.name.startswith("fewshotseg-") for entry in temporary.iterdir() if entry.is_dir()] == [True]
    assert opened.close() == 0
    assert not [entry for entry in temporary.iterdir() if entry.is_dir()]
    assert not (tmp_path / "connections").exists()
