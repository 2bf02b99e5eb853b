"""The page in a real browser: headless Chromium, driven by Selenium. `make test-browser` installs and runs it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import demo_server
from gicinpaint import GatedGenerator, Inpainter
from gicinpaint.data import SamplePhotographs
from gicinpaint.weights import save_generator

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: make test-browser installs it")
ActionChains, Keys = webdriver.ActionChains, webdriver.Keys
pytestmark = pytest.mark.browser

MODEL = Path(__file__).parents[2] / "weights" / "photos_256"  # as a user of the repository sees it
WAIT = 400  # seconds, on a machine that does other things too
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1366,768",  # a laptop's screen
)


class Page:
    """The page as a user sees it."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT
        while not (found := condition()):
            if time.monotonic() > end:
                raise AssertionError("the page did not come to it")
            time.sleep(0.1)
        return found

    def open(self, path: Path) -> None:
        size = list(Image.open(path).size)
        self.find("#upload input").send_keys(str(path))
        self.until(lambda: self.size() == size)

    def size(self) -> list[int]:
        return self.driver.execute_script("return [$('image').hidden ? 0 : $('image').width, $('image').height]")

    def painted(self, canvas: str = "$('paint')") -> np.ndarray:
        """Return the opacity of what is painted, (H, W)."""
        read = f"const c = {canvas}; return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        width, height = self.size()
        return np.array(self.driver.execute_script(read), np.uint8).reshape(height, width, 4)[..., 3]

    def paint(self, *moves: tuple[int, int]) -> None:
        """Drag the brush from near the middle of the image."""
        chain = ActionChains(self.driver).move_to_element_with_offset(self.find("#paint"), -20, -20).click_and_hold()
        for move in moves:
            chain.move_by_offset(*move)
        chain.release().perform()

    def fill(self) -> None:
        before = self.find("#after").get_attribute("src")
        self.find("#fill").click()
        self.until(lambda: self.find("#fill").text == "Fill" and self.find("#after").get_attribute("src") != before)

    def point(self, down: int) -> bool:
        """Move over the result, some pixels below its middle; nothing is known of the inspector by that."""
        chain = ActionChains(self.driver).move_to_element_with_offset(self.find("#after"), 0, down)
        chain.move_by_offset(1, 0).move_by_offset(-1, 0).perform()
        return False

    def message(self) -> str:
        return self.find("#message").text

    def download(self, selector: str, name: str) -> np.ndarray:
        for old in self.downloads.glob("*"):
            old.unlink()
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        self.find(selector).click()
        path = self.downloads / name
        self.until(lambda: path.exists() and not list(self.downloads.glob("*.crdownload")))
        self.driver.execute_script("scrollTo(0, 0)")
        return np.asarray(Image.open(path))

    def requests(self) -> list[str]:
        """Return the addresses of everything the page has asked for since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[demo_server.Server]:
    server = demo_server.start(tmp_path_factory.mktemp("server"), f"checkpoint={MODEL}")
    yield server
    server.stop()


@pytest.fixture
def page(server: demo_server.Server, tmp_path: Path) -> Iterator[Page]:
    browser, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver_path is None:
        pytest.skip("Chromium and chromedriver are not installed: make test-browser installs them")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    try:
        driver.get(server.address)
        yield Page(driver, downloads)
    finally:
        driver.quit()


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A smooth picture with grain, so that a changed pixel cannot hide; 203 x 301 fits no multiple of 8."""
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(30, 220, (5, 7, 3), np.uint8)).resize((301, 203), Image.Resampling.BICUBIC)
    grain = random.integers(-8, 9, (203, 301, 3))
    Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def test_paint_fill_compare_download_and_go_on(page: Page, server: demo_server.Server, photograph: Path) -> None:
    original = np.asarray(Image.open(photograph))
    page.open(photograph)
    page.paint((15, 10), (15, 10), (10, 0))
    page.fill()
    filled = page.download("#download", "filled.png")
    hole = page.download("#download-mask", "mask.png") > 0
    assert filled.shape == original.shape
    assert 0.001 < hole.mean() < 0.3
    assert np.array_equal(hole, page.painted() > 127)
    assert np.array_equal(filled[~hole], original[~hole])
    assert (filled != original).any(axis=-1)[hole].mean() > 0.9

    assert page.find("#before").value_of_css_property("clip-path") == "inset(0px 100% 0px 0px)"
    page.find("#compare").send_keys(*[Keys.ARROW_RIGHT] * 30)
    assert page.find("#before").value_of_css_property("clip-path") == "inset(0px 70% 0px 0px)"

    page.find("#reuse").click()
    page.until(lambda: not page.painted().any())
    page.paint((0, 25), (0, 25))
    page.fill()
    again = page.download("#download", "filled.png")
    second = page.download("#download-mask", "mask.png") > 0
    assert not np.array_equal(second, hole)
    assert np.array_equal(again[~second], filled[~second])  # the first filling is the second's input

    asked = [
        url for url in page.requests() if not url.startswith(("data:", "blob:", server.address, "chrome", "about:"))
    ]
    assert not asked
    assert server.foreign_contacts() == ""
    assert not [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_pick_an_example_open_a_mask_grow_it_and_blend(page: Page, tmp_path: Path) -> None:
    page.until(lambda: len(page.driver.find_elements("css selector", "#examples img")) == 4)
    page.find("#examples button").click()
    page.until(lambda: page.size() == [512, 512])  # the first example, the astronaut
    mask = np.zeros((512, 512), np.uint8)
    mask[200:260, 200:280] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    page.find("#mask input").send_keys(str(tmp_path / "mask.png"))
    page.until(lambda: page.painted().any())
    assert np.array_equal(page.painted(), mask)
    page.find("#grow").clear()
    page.find("#grow").send_keys("6")
    page.find("#blend").send_keys("poisson")
    page.fill()
    used = page.download("#download-mask", "mask.png") > 0
    rows, columns = np.nonzero(used)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (194, 265, 194, 285)


def test_a_shipped_model_is_chosen_by_its_name_and_a_small_image_is_shown_large(page: Page, tmp_path: Path) -> None:
    face = SamplePhotographs(["astronaut.png"]).read(0).crop((167, 57, 283, 173))  # in the public domain
    face.resize((128, 128), Image.Resampling.LANCZOS).save(tmp_path / "face.png")
    page.open(tmp_path / "face.png")
    assert page.find("#paint").size["width"] == 3 * 128
    mask = np.zeros((128, 128), np.uint8)
    mask[62:112, 44:84] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    page.find("#mask input").send_keys(str(tmp_path / "mask.png"))
    page.until(lambda: page.painted().any())
    filled = []
    for model in ("", "faces_128"):
        page.driver.execute_script("$('model').value = arguments[0]", model)
        page.fill()
        filled.append(page.download("#download", "filled.png"))
        assert np.array_equal(filled[-1][mask == 0], np.asarray(Image.open(tmp_path / "face.png"))[mask == 0])
    assert (filled[0] != filled[1])[mask > 0].mean() > 0.5
    assert page.find("#after").size["width"] == 3 * 128
    if target := os.environ.get("GICINPAINT_SCREENSHOT"):
        page.driver.set_window_size(1366, 1250)
        page.driver.execute_script("scrollTo(0, 0)")
        ActionChains(page.driver).move_to_element_with_offset(page.find("#after"), 0, 60).perform()
        page.until(lambda: "copied from the lit squares" in page.find("#inspector").text or page.point(60))
        page.driver.save_screenshot(target)


def test_what_is_missing_is_said_and_gone_after_success(page: Page, photograph: Path) -> None:
    page.find("#fill").click()
    assert "open one or pick an example" in page.message()
    page.open(photograph)
    assert page.message() == ""
    page.find("#fill").click()
    assert "there is no hole" in page.message()
    page.paint((10, 0), (10, 0))
    page.fill()
    assert page.message() == ""
    page.driver.execute_script("$('grow').value = 99")
    page.find("#fill").click()
    page.until(lambda: "grow must lie in 0..64" in page.message())
    page.driver.execute_script("$('grow').value = 0")
    page.fill()
    assert page.message() == ""


def test_fill_is_in_sight_on_a_laptop_wherever_the_page_is_scrolled(page: Page, photograph: Path) -> None:
    page.open(photograph)
    page.paint((10, 0))
    page.fill()
    inside = "const b = $('fill').getBoundingClientRect(); "
    inside += "return b.top >= 0 && b.bottom <= innerHeight && b.right <= innerWidth"
    for position in (0, 10_000):
        page.driver.execute_script(f"scrollTo(0, {position})")
        assert page.driver.execute_script(inside)


def test_strokes_are_undone_redone_erased_and_sized_by_keys(page: Page, photograph: Path) -> None:
    page.open(photograph)
    body = page.find("body")
    page.paint((20, 0))
    first = page.painted()
    page.paint((0, 40))
    both = page.painted()
    assert (both > 0).sum() > (first > 0).sum()
    body.send_keys(Keys.CONTROL, "z")
    assert np.array_equal(page.painted(), first)
    body.send_keys(Keys.CONTROL, Keys.SHIFT, "z")
    assert np.array_equal(page.painted(), both)
    body.send_keys("e")
    page.paint((20, 0))
    assert (page.painted() > 0).sum() < (both > 0).sum()
    body.send_keys("e")
    page.find("#clear").click()
    assert not page.painted().any()
    body.send_keys("]", "]", "]")
    page.paint((20, 0))
    assert (page.painted() > 0).sum() > 1.3 * (first > 0).sum()


@pytest.fixture
def guided_page(page: Page, tmp_path: Path) -> Iterator[Page]:
    """The page of a server whose model takes a sketch."""
    torch.manual_seed(0)
    generator = GatedGenerator(8, guided=True)
    for weight in generator.parameters():
        weight.data *= 3
    save_generator(generator, tmp_path / "guided")
    server = demo_server.start(tmp_path, f"checkpoint={tmp_path / 'guided'}")
    page.driver.get(server.address)
    yield page
    server.stop()


def test_the_sketch_brush_of_a_guided_model_changes_what_is_filled(guided_page: Page, photograph: Path) -> None:
    guided_page.until(lambda: guided_page.find("#sketch").is_displayed())
    guided_page.open(photograph)
    guided_page.paint((40, 0), (0, 30))
    guided_page.fill()
    without = guided_page.download("#download", "filled.png")
    hole = guided_page.download("#download-mask", "mask.png")
    guided_page.find("body").send_keys("s")
    assert guided_page.find("#sketch").get_attribute("aria-pressed") == "true"
    guided_page.paint((30, 5))
    guided_page.fill()
    with_sketch = guided_page.download("#download", "filled.png")
    assert np.array_equal(guided_page.download("#download-mask", "mask.png"), hole)  # edges are no hole
    assert not np.array_equal(with_sketch, without)
    guided_page.find("#undo").click()
    guided_page.fill()
    assert np.array_equal(guided_page.download("#download", "filled.png"), without)


def test_what_is_painted_green_is_where_attention_copies_from(page: Page, photograph: Path) -> None:
    page.until(lambda: page.find("#source").is_displayed())
    page.open(photograph)
    page.driver.execute_script("$('model').value = 'textures_64'")  # whose attention matters most
    page.paint((15, 10), (15, 10))
    page.fill()
    everywhere = page.download("#download", "filled.png")
    hole = page.download("#download-mask", "mask.png") > 0
    page.find("body").send_keys("c")
    assert page.find("#source").get_attribute("aria-pressed") == "true"
    page.driver.execute_script("$('size').value = 100")
    page.paint((-50, 0))
    page.fill()
    limited = page.download("#download", "filled.png")
    assert np.array_equal(page.download("#download-mask", "mask.png") > 0, hole)  # green is no hole
    source = page.painted("layer('source')") > 127
    assert 0.1 < source.mean() < 0.6
    inpainter = Inpainter.from_checkpoint("textures_64", device="cpu")
    expected = inpainter(np.asarray(Image.open(photograph)), hole, source=source)
    assert np.abs(limited.astype(int) - expected).max() <= 1  # threads add in another order
    assert (np.abs(limited.astype(int) - everywhere) > 1).any(axis=-1)[hole].mean() > 0.5
    page.find("#undo").click()
    page.fill()
    assert np.array_equal(page.download("#download", "filled.png"), everywhere)


def test_a_model_that_takes_no_sketch_has_no_brush_for_it(page: Page) -> None:
    page.until(lambda: len(page.driver.find_elements("css selector", "#examples img")) == 4)
    assert not page.find("#sketch").is_displayed()


def test_pointing_at_a_filled_place_lights_up_where_it_was_copied_from(page: Page) -> None:
    page.until(lambda: len(page.driver.find_elements("css selector", "#examples img")) == 4)
    page.find("#examples button").click()
    page.until(lambda: page.size() == [512, 512])
    page.paint((15, 10), (15, 10), (10, 0))
    page.fill()
    assert page.find("#copied").is_displayed()
    assert page.find("#copied-image").get_attribute("naturalWidth") == "512"
    assert page.find("#copied figcaption img").get_attribute("naturalWidth") == "96"  # the colour wheel
    lit = "const c = $('sources'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
    lit += "let clear = 0; for (let i = 3; i < d.length; i += 4) clear += d[i] < 30; "
    lit += "return [clear / (c.width * c.height), d[3]]"
    assert page.driver.execute_script(lit)[1] == 0  # nothing is dimmed
    ActionChains(page.driver).move_to_element_with_offset(page.find("#after"), -20, -20).perform()

    def told() -> bool:
        ActionChains(page.driver).move_by_offset(1, 0).move_by_offset(-1, 0).perform()
        return "copied from the lit squares" in page.find("#inspector").text

    page.until(told)
    clear, corner = page.driver.execute_script(lit)
    assert corner > 100  # the image is dimmed
    assert 5e-5 < clear < 0.05  # but for the place and its sources, cells of 1/4096 of the image with lines over them
    page.driver.execute_script("scrollTo(0, 0)")
    ActionChains(page.driver).move_to_element(page.find("h1")).perform()
    page.until(lambda: page.driver.execute_script(lit)[1] == 0)
