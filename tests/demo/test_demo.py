"""The parts of the demo: the queue, the growing of holes, the folder, and what the job refuses."""

from __future__ import annotations

import io
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'gicinpaint[demo]'")

from gicinpaint.config.validation import ConfigurationError, JobError
from gicinpaint.demo.filler import BusyError, Filler, Limits, grown
from gicinpaint.demo.serve import demo
from gicinpaint.demo.storage import KEEP_SECONDS, Storage
from gicinpaint.inference.inpainter import Filled, Inpainter
from gicinpaint.models.generator import Generator
from gicinpaint.weights.pretrained import save_generator


class Waiting:
    """An inpainter that returns its input when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen: list[int] = []

    def fill(self, image: Image.Image, hole: np.ndarray, blend: str) -> Filled:
        assert self.go.wait(20)
        self.seen.append(image.width)
        return Filled(image, image, None, "whole image")


def png(width: int, height: int = 8, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def hole_of(width: int, height: int = 8) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    hole[2:4, 2:4] = True
    return hole


def test_pictures_are_filled_in_order_and_more_than_may_wait_are_turned_away() -> None:
    inpainter = Waiting()
    filler = Filler(inpainter, Limits(waiting=3))  # type: ignore[arg-type]
    answers = [filler.submit(png(width), hole_of(width)) for width in (8, 9, 10)]
    with pytest.raises(BusyError, match="3 pictures are waiting already"):
        filler.submit(png(11), hole_of(11))
    inpainter.go.set()
    assert [answer.result(20).image.width for answer in answers] == [8, 9, 10]
    assert inpainter.seen == [8, 9, 10]
    filler.submit(png(12), hole_of(12)).result(20)  # there is room again


class Uploaded(io.BytesIO):
    """A file that knows whether it was read."""

    was_read = False

    def read(self, size: int | None = -1) -> bytes:
        self.was_read = True
        return super().read(size)


def test_a_file_that_waits_is_not_in_memory() -> None:
    inpainter = Waiting()
    filler = Filler(inpainter, Limits(waiting=9))  # type: ignore[arg-type]
    files = [(Uploaded(png(width)), Uploaded(png(width, colour="white"))) for width in (8, 9, 10)]
    answers = [filler.submit(*pair) for pair in files]
    while not files[0][1].was_read and not answers[0].done():
        time.sleep(0.01)
    assert not any(file.was_read for pair in files[1:] for file in pair)
    inpainter.go.set()
    assert [answer.result(20).image.width for answer in answers] == [8, 9, 10]
    assert all(file.was_read for pair in files for file in pair)


@pytest.mark.parametrize(
    ("image", "mask", "settings", "message"),
    [
        (png(8), hole_of(9), {}, "the mask must have the picture's size, 8x8, got 9x8"),
        (png(8), np.zeros((8, 8), bool), {}, "there is no hole"),
        (png(101, 100), hole_of(101, 100), {}, "101x100 pixels are more than the limit of 10000"),
        (bytes(2_000_001), hole_of(8), {}, "2,000,001 bytes, the limit is 2,000,000"),
        (io.BytesIO(bytes(2_000_001)), hole_of(8), {}, "has more bytes, the limit is 2,000,000"),
        (b"GIF89a", hole_of(8), {}, "its content is none of"),
        (png(8), hole_of(8), {"grow": 65}, "grow must lie in 0..64, got 65"),
        (png(8), hole_of(8), {"blend": "magic"}, "blend must be one of none, feather, poisson"),
    ],
)
def test_what_cannot_be_filled_is_named(image: bytes, mask: np.ndarray, settings: dict[str, Any], message: str) -> None:
    filler = Filler(Waiting(), Limits(upload=2_000_000, pixels=10_000))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        filler.submit(image, mask, **settings).result(20)


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_a_grown_hole_is_all_that_lies_within_the_distance(pixels: int) -> None:
    hole = np.random.default_rng(0).random((17, 23)) < 0.03
    expected = np.zeros_like(hole)
    for row, column in np.ndindex(*hole.shape):  # the definition, pixel by pixel
        near = ((r - row) ** 2 + (c - column) ** 2 <= pixels**2 for r, c in zip(*np.nonzero(hole), strict=True))
        expected[row, column] = any(near)
    assert np.array_equal(grown(hole, pixels), expected)


def test_the_folder_holds_only_what_lies_in_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "own", 10**9)
    path = storage.save(Image.new("RGB", (2, 2)), "a")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "own" / "link").symlink_to(tmp_path / "secret")
    assert storage.holds(path)
    for outside in ("/etc/passwd", f"{tmp_path}/own/../secret", f"{tmp_path}/own/link", f"{tmp_path}/own2", "a\0b"):
        assert not storage.holds(outside)
        with pytest.raises(ValueError, match="not there any more"):
            storage.read(outside, 100)
    with pytest.raises(ValueError, match="the limit is 3"):
        storage.read(path, 3)


def test_old_files_go_first_and_pinned_ones_stay(tmp_path: Path) -> None:
    storage = Storage(tmp_path, most_bytes=3000)
    now = 1_000_000.0

    def add(name: str, age: float, size: int) -> Path:
        (tmp_path / name).mkdir()
        file = tmp_path / name / "file"
        file.write_bytes(bytes(size))
        for path in (file, tmp_path / name):
            os.utime(path, (now - age, now - age))
        return file

    example = add("example", 9 * KEEP_SECONDS, 10)
    storage.pin()
    old, large, middle, new = (
        add(name, age, size)
        for name, age, size in (("d", KEEP_SECONDS + 1, 10), ("b", 300, 2500), ("c", 200, 1000), ("a", 100, 1000))
    )
    storage.sweep(now)
    assert [path.exists() for path in (example, old, large, middle, new)] == [True, False, False, True, True]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GICINPAINT_WEIGHTS", raising=False)
    monkeypatch.setattr("gicinpaint.weights.pretrained.REPOSITORY_FOLDER", tmp_path / "weights")
    before = {
        name: os.environ.get(name)
        for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR")
    }
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        yield lambda *overrides: demo(compose("demo", overrides=list(overrides)))
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_without_a_model_it_says_how_to_get_one(job: Callable[..., None]) -> None:
    with pytest.raises(JobError, match=r"there is no model in .*train one.*gicinpaint demo checkpoint=FILE"):
        job(f"port={free_port()}")


def test_it_works_at_once_with_the_model_that_lies_in_the_repository(
    job: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    torch.manual_seed(0)
    save_generator(Generator(2).half(), tmp_path / "weights" / "small")
    (tmp_path / "weights" / "small" / "README.md").write_text("# A model\n")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # the server lowers it
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    hole = np.zeros((24, 40), np.uint8)
    hole[5:15, 8:20] = 255
    buffers = {"image": io.BytesIO(), "mask": io.BytesIO()}
    for name, array in (("image", image), ("mask", hole)):
        Image.fromarray(array).save(buffers[name], "PNG")
    answers = []

    def serve(application: Any, **_: object) -> None:
        files = {name: ("file.png", buffer.getvalue(), "image/png") for name, buffer in buffers.items()}
        answers.append(TestClient(application).post("/api/fill", files=files))

    monkeypatch.setattr("uvicorn.run", serve)
    job(f"port={free_port()}")
    (answer,) = answers
    assert answer.status_code == 200, answer.text
    expected = Inpainter.from_checkpoint(tmp_path / "weights" / "small", device="cpu")(image, hole)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_model_that_carries_code_is_refused_and_nothing_runs(
    job: Callable[..., None], tmp_path: Path, write: Callable[[Any, Path], None]
) -> None:
    write({"state_dict": Harm(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    with pytest.raises(JobError, match=r"evil\.ckpt"):
        job(f"port={free_port()}", "checkpoint=evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_taken_port_and_wrong_limits_are_one_line(job: Callable[..., None]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(JobError, match=rf"cannot serve at 127\.0\.0\.1:{port}: .*; choose another with port="):
            job(f"port={port}")
    with pytest.raises(ConfigurationError, match="max_pixels: expected a number above 0, got 0"):
        job("max_pixels=0")
    with pytest.raises(ConfigurationError, match="port: expected a whole number"):
        job("port=http")
