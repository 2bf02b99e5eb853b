"""The page in a real browser: headless Chromium, driven by Selenium. `make test-browser` installs and runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import demo_server

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: make test-browser installs it")
pytestmark = pytest.mark.browser

MODEL = Path(__file__).parents[2] / "weights" / "contextual_w16"  # as a user of the repository sees it
WAIT = 150  # seconds, on a machine that does other things too
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # the editor draws with WebGL
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1300",
)


class Page:
    """The page as a user sees it."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def find(self, selector: str) -> Any:
        return self.until(lambda: self.driver.find_elements("css selector", selector))[0]

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT
        while True:
            try:
                if found := condition():
                    return found
            except Exception as error:  # an element that is just being replaced
                if time.monotonic() > end:
                    raise AssertionError("the page did not come to it") from error
            if time.monotonic() > end:
                raise AssertionError("the page did not come to it")
            time.sleep(0.2)

    def choose(self, selector: str, path: Path) -> None:
        self.until(lambda: self.driver.find_elements("css selector", f"{selector} input[type=file]"))
        self.driver.find_element("css selector", f"{selector} input[type=file]").send_keys(str(path))

    def picture_is_shown(self) -> None:
        """Wait until the editor has a picture, and nothing more to come: its tools are there and its status is gone."""
        self.find("#editor button[title='Brush']")
        time.sleep(1.5)  # an event that has just begun shows its status by then
        self.until(lambda: not re.search(r"queue|processing|\ds", self.find("#editor").text))
        time.sleep(1.5)  # the canvas takes its size

    def paint(self, *moves: tuple[int, int]) -> None:
        """Drag the brush from near the middle of the editor."""
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.driver.find_elements("css selector", "#editor canvas")[-1]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        chain = ActionChains(self.driver).move_to_element_with_offset(canvas, -20, -20).click_and_hold()
        for move in moves:
            chain.move_by_offset(*move)
        chain.release().perform()
        time.sleep(1)

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def text(self) -> str:
        found = self.driver.find_elements("css selector", "#text")
        return found[0].text if found else ""

    def fill(self) -> None:
        before = [image.get_attribute("src") for image in self.driver.find_elements("css selector", "#slider img")]
        self.click("#fill")

        def changed() -> bool:
            now = [image.get_attribute("src") for image in self.driver.find_elements("css selector", "#slider img")]
            return len(now) >= 2 and now != before and "hole" in self.text()

        self.until(changed)

    def download(self, selector: str, name: str) -> np.ndarray:
        for old in self.downloads.glob("*"):
            old.unlink()
        self.click(selector)
        path = self.downloads / name
        self.until(lambda: path.exists() and not list(self.downloads.glob("*.crdownload")))
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
    page.choose("#upload", photograph)
    page.picture_is_shown()
    page.paint((15, 10), (15, 10), (10, 0))
    page.fill()
    filled = page.download("#download", "filled.png")
    hole = page.download("#download-mask", "mask.png") > 0
    assert filled.shape == original.shape
    assert 0.001 < hole.mean() < 0.3
    assert np.array_equal(filled[~hole], original[~hole])
    assert (filled != original).any(axis=-1)[hole].mean() > 0.9

    slider = page.find("#slider")
    before, after = (image.get_attribute("src") for image in slider.find_elements("css selector", "img")[:2])
    assert before != after
    handle = page.find("#slider [role=slider], #slider .inner, #slider .outer")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    from selenium.webdriver.common.action_chains import ActionChains

    x = handle.rect["x"]
    ActionChains(page.driver).drag_and_drop_by_offset(handle, 60, 0).perform()
    page.until(lambda: abs(page.find("#slider [role=slider], #slider .inner, #slider .outer").rect["x"] - x) > 30)
    assert page.find("#copied img").get_attribute("src")
    if target := os.environ.get("GICINPAINT_SCREENSHOT"):
        page.driver.save_screenshot(target)

    page.click("#reuse")
    page.picture_is_shown()
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


def test_pick_an_example_upload_a_mask_grow_it_and_blend(page: Page, tmp_path: Path) -> None:
    page.until(lambda: len(page.driver.find_elements("css selector", "#examples img")) >= 4)
    page.click("#examples button:has(img), #examples img")
    page.picture_is_shown()
    mask = np.zeros((512, 512), np.uint8)  # the first example, the astronaut, is 512 x 512
    mask[200:260, 200:280] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    page.choose("#mask", tmp_path / "mask.png")
    number = page.find("#grow input[type=number]")
    number.clear()
    number.send_keys("6\t")
    page.click("#blend input[value=poisson]")
    time.sleep(2)
    page.fill()
    used = page.download("#download-mask", "mask.png") > 0
    rows, columns = np.nonzero(used)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (194, 265, 194, 285)


def test_fill_without_a_hole_says_what_is_missing(page: Page, photograph: Path) -> None:
    page.click("#fill")
    page.until(lambda: "upload one or pick an example" in page.driver.find_element("tag name", "body").text)
    page.choose("#upload", photograph)
    page.picture_is_shown()
    page.click("#fill")
    page.until(lambda: "there is no hole" in page.driver.find_element("tag name", "body").text)
