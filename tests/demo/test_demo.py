"""The parts of the demo: the queue, the growing of holes, the sources of a place, and what the job refuses."""

from __future__ import annotations

import asyncio
import io
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

pytest.importorskip("starlette", reason="starlette is not installed: pip install 'gicinpaint[demo]'")

from gicinpaint.attention import ContextualAttention
from gicinpaint.config.validation import ConfigurationError, JobError
from gicinpaint.demo.application import Application
from gicinpaint.demo.filler import AbandonedError, BusyError, Filler, Limits, TooLargeError, grown, sources
from gicinpaint.demo.server import demo
from gicinpaint.inference.inpainter import Filled, Inpainter
from gicinpaint.models import GatedGenerator
from gicinpaint.models.generator import Generator
from gicinpaint.weights.pretrained import save_generator


class Waiting:
    """An inpainter that returns its input when it is told to."""

    generator = torch.nn.Module()

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.seen: list[int] = []

    def fill(self, image: Image.Image, hole: np.ndarray, blend: str) -> Filled:
        self.begun.set()
        end = time.monotonic() + 20
        while not self.go.wait(0.01):
            assert time.monotonic() < end
            grown(hole, 0)  # a function of the package, as those of the networks
        self.seen.append(image.width)
        return Filled(image, image, None, "whole image")


def png(width: int, height: int = 8, colour: str = "red") -> io.BytesIO:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer


def white(width: int, height: int = 8) -> io.BytesIO:
    return png(width, height, "white")


def width_of(answer: Any) -> int:
    return Image.open(io.BytesIO(answer.result(20).image)).width


def test_images_are_filled_in_order_and_more_than_may_wait_are_turned_away() -> None:
    inpainter = Waiting()
    filler = Filler(inpainter, Limits(waiting=3))  # type: ignore[arg-type]
    answers = [filler.submit(png(width), white(width)) for width in (8, 9, 10)]
    with pytest.raises(BusyError, match="3 images are waiting already"):
        filler.submit(png(11), white(11))
    inpainter.go.set()
    assert [width_of(answer) for answer in answers] == [8, 9, 10]
    assert inpainter.seen == [8, 9, 10]
    assert width_of(filler.submit(png(12), white(12))) == 12  # there is room again


def test_a_guided_model_follows_a_sketch_and_others_refuse_it() -> None:
    torch.manual_seed(0)
    guided = GatedGenerator(4, guided=True)
    for weight in guided.parameters():
        weight.data *= 4
    filler = Filler(Inpainter(guided, "cpu"), Limits())
    image, mask = png(32), Image.new("L", (32, 8))
    mask.paste(255, (8, 0, 20, 8))
    hole = io.BytesIO()
    mask.save(hole, "PNG")
    answers = [
        filler.submit(io.BytesIO(image.getvalue()), io.BytesIO(hole.getvalue()), sketch) for sketch in (None, white(32))
    ]
    without, with_sketch = (answer.result(60).image for answer in answers)
    assert filler.guided
    assert without != with_sketch
    with pytest.raises(ValueError, match="the sketch must have the image's size, 32x8, got 8x8"):
        filler.submit(png(32), hole, white(8)).result(60)
    plain = Filler(Inpainter(Generator(2), "cpu"), Limits())
    assert not plain.guided
    with pytest.raises(ValueError, match="a sketch needs a guided generator, got Generator without"):
        plain.submit(png(32), hole, white(32)).result(60)


def test_another_model_is_opened_when_it_is_first_asked_for_and_kept() -> None:
    first, other = Waiting(), Waiting()
    first.go.set()
    other.go.set()
    opened: list[str] = []
    filler = Filler(first, Limits(), {"faces": lambda: opened.append("faces") or other})  # type: ignore[arg-type, func-returns-value]
    assert not opened
    for width, model in ((8, ""), (9, "faces"), (10, "faces"), (11, "")):
        assert width_of(filler.submit(png(width), white(width), model=model)) == width
    assert (first.seen, other.seen, opened) == ([8, 11], [9, 10], ["faces"])
    with pytest.raises(ValueError, match="model: expected one of faces, got weights/secret"):
        filler.submit(png(8), white(8), model="weights/secret")


class Uploaded(io.BytesIO):
    """A file that knows whether it was read."""

    was_read = False

    def read(self, size: int | None = -1) -> bytes:
        self.was_read = True
        return super().read(size)


def test_a_file_that_waits_is_not_in_memory() -> None:
    inpainter = Waiting()
    filler = Filler(inpainter, Limits(waiting=9))  # type: ignore[arg-type]
    files = [(Uploaded(png(width).getvalue()), Uploaded(white(width).getvalue())) for width in (8, 9, 10)]
    answers = [filler.submit(*pair) for pair in files]
    assert inpainter.begun.wait(20)
    assert not any(file.was_read for pair in files[1:] for file in pair)
    inpainter.go.set()
    assert [width_of(answer) for answer in answers] == [8, 9, 10]
    assert all(file.was_read for pair in files for file in pair)


def test_an_answer_that_nobody_waits_for_is_left_out_or_stops_at_the_next_call() -> None:
    inpainter = Waiting()
    filler = Filler(inpainter, Limits(waiting=3))  # type: ignore[arg-type]
    running, waiting, wanted = (filler.submit(png(width), white(width)) for width in (8, 9, 10))
    assert inpainter.begun.wait(20)
    filler.abandon([running, waiting])
    with pytest.raises(AbandonedError):
        running.result(20)
    assert waiting.cancelled()
    inpainter.go.set()
    assert width_of(wanted) == 10
    assert inpainter.seen == [10]


def test_a_filler_that_is_stopped_leaves_nothing_running() -> None:
    inpainter = Waiting()
    filler = Filler(inpainter, Limits())  # type: ignore[arg-type]
    running, waiting = filler.submit(png(8), white(8)), filler.submit(png(8), white(8))
    assert inpainter.begun.wait(20)
    filler.stop()
    with pytest.raises(AbandonedError):
        running.result(20)
    assert waiting.cancelled()
    assert inpainter.seen == []


def test_a_client_that_leaves_takes_its_image_out_of_the_queue() -> None:
    inpainter = Waiting()
    filler = Filler(inpainter, Limits())  # type: ignore[arg-type]
    application = Application(filler, [])
    line = "a-line"
    parts = [("image", png(8).getvalue()), ("mask", white(8).getvalue())]
    body = b"".join(
        f'--{line}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in parts
    )
    body += f"--{line}--\r\n".encode()
    kind = f"multipart/form-data; boundary={line}".encode()
    scope = {"type": "http", "method": "POST", "path": "/api/fill", "query_string": b""}
    scope["headers"] = [(b"host", b"localhost"), (b"content-type", kind)]  # type: ignore[assignment]
    sent: list[Any] = []

    async def client(left: asyncio.Event) -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await application(dict(scope), receive, send)

    async def two_clients() -> None:
        left = asyncio.Event()
        both = [asyncio.create_task(client(left)) for _ in range(2)]
        await asyncio.to_thread(inpainter.begun.wait, 20)
        left.set()
        await asyncio.gather(*both)

    asyncio.run(two_clients())
    while filler._abandoned:  # the running one stops at its next operation
        time.sleep(0.01)
    inpainter.go.set()
    assert not sent
    assert width_of(filler.submit(png(9), white(9))) == 9
    assert inpainter.seen == [9]
    assert application._arriving == 0


@pytest.mark.parametrize(
    ("image", "mask", "settings", "kind", "message"),
    [
        (png(8), white(9), {}, ValueError, "the mask must have the image's size, 8x8, got 9x8"),
        (png(8), png(8), {}, ValueError, "there is no hole"),
        (png(101, 100), white(101, 100), {}, TooLargeError, "image has 10,100 pixels, max_pixels allows 10,000"),
        (png(8), white(101, 100), {}, TooLargeError, "mask has 10,100 pixels, max_pixels allows 10,000"),
        (io.BytesIO(bytes(2_000_001)), white(8), {}, TooLargeError, "2,000,001 bytes, max_upload allows 2,000,000"),
        (io.BytesIO(b"GIF89a"), white(8), {}, ValueError, "its content is none of"),
        (png(8), white(8), {"grow": 65}, ValueError, "grow must lie in 0..64, got 65"),
        (png(8), white(8), {"blend": "magic"}, ValueError, "blend must be one of none, feather, poisson"),
    ],
)
def test_what_cannot_be_filled_is_named(
    image: io.BytesIO, mask: io.BytesIO, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    filler = Filler(Waiting(), Limits(upload=2_000_000, pixels=10_000))  # type: ignore[arg-type]
    with pytest.raises(kind, match=message):
        filler.submit(image, mask, **settings).result(20)


def test_a_mask_painted_on_a_transparent_layer_is_the_hole_whatever_lies_under_what_is_transparent() -> None:
    inpainter = Waiting()
    inpainter.go.set()
    layer = np.full((8, 9, 4), 255, np.uint8)  # white, and unseen where it is transparent
    layer[..., 3] = 0
    layer[2:5, 3:7] = (0, 0, 255, 255)
    buffer = io.BytesIO()
    Image.fromarray(layer).save(buffer, "PNG")
    answer = Filler(inpainter, Limits()).submit(png(9).getvalue(), buffer.getvalue()).result(20)  # type: ignore[arg-type]
    assert np.array_equal(answer.mask, layer[..., 3] > 0)


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_a_grown_hole_is_all_that_lies_within_the_distance(pixels: int) -> None:
    hole = np.random.default_rng(0).random((17, 23)) < 0.03
    expected = np.zeros_like(hole)
    for row, column in np.ndindex(*hole.shape):  # the definition, pixel by pixel
        near = ((r - row) ** 2 + (c - column) ** 2 <= pixels**2 for r, c in zip(*np.nonzero(hole), strict=True))
        expected[row, column] = any(near)
    assert np.array_equal(grown(hole, pixels), expected)


class Row:
    """An attention call that answers with one row of weights, and notes the cell that it was asked for."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights
        self.asked: list[tuple[int, int]] = []

    def row(self, image: int, query: tuple[int, int]) -> torch.Tensor:
        self.asked.append(query)
        return self.weights


def test_the_sources_of_a_place_are_the_cells_with_the_largest_shares() -> None:
    weights = torch.zeros(3, 5)
    weights[2, 4], weights[0, 1], weights[1, 0] = 0.6, 0.3, 1e-4  # the last is too small to be told
    hole = np.zeros((20, 33), bool)
    hole[9, 17] = True  # cell (1, 2)
    call = Row(weights)
    found = sources(call, hole, x=23, y=15)  # type: ignore[arg-type]  # the cell's last pixel
    assert call.asked == [(1, 2)]
    assert found == {"cell": 8, "target": (16, 8), "sources": [(32, 16, 0.6), (8, 0, 0.3)], "others": 0}
    with pytest.raises(ValueError, match="no hole at this place"):
        sources(call, hole, x=24, y=15)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must lie in 0\.\.32 and 0\.\.19, got 33, 0"):
        sources(call, hole, x=33, y=0)  # type: ignore[arg-type]


def test_the_sources_of_a_fill_sum_to_the_whole_and_the_largest_is_the_offset() -> None:
    """The attention's weights of a cell sum to 1; the offset that the network reports names the heaviest of them."""
    torch.manual_seed(0)
    inpainter = Inpainter(Generator(width=4), device="cpu")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8))
    hole = np.zeros((64, 80), bool)
    hole[20:40, 30:50] = True
    files = [io.BytesIO(), io.BytesIO()]
    image.save(files[0], "PNG")
    Image.fromarray(hole).save(files[1], "PNG")
    answer = Filler(inpainter, Limits()).submit(*files).result(60)
    assert answer.attention is not None
    found = sources(answer.attention, hole, x=33, y=25)  # cell (3, 4)
    offset = inpainter.fill(image, hole).offset
    assert offset is not None
    heaviest = found["sources"][0]
    assert [heaviest[1] // 8, heaviest[0] // 8] == offset[:, 3, 4].tolist()
    assert sum(share for *_, share in found["sources"]) == pytest.approx(1, abs=0.08)  # those below 0.1 % are left out


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GICINPAINT_WEIGHTS", raising=False)
    monkeypatch.setattr("gicinpaint.weights.hub.REPOSITORY_FOLDER", tmp_path / "weights")
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        yield lambda *overrides: demo(compose("demo", overrides=list(overrides)))


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
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    hole = np.zeros((24, 40), np.uint8)
    hole[5:15, 8:20] = 255
    buffers = {"image": io.BytesIO(), "mask": io.BytesIO()}
    for name, array in (("image", image), ("mask", hole)):
        Image.fromarray(array).save(buffers[name], "PNG")
    answers = []

    def serve(application: Any, **_: object) -> None:
        files = {name: ("file.png", buffer.getvalue(), "image/png") for name, buffer in buffers.items()}
        answers.append(TestClient(application, "http://localhost").post("/api/fill", files=files))

    monkeypatch.setattr("uvicorn.run", serve)
    job(f"port={free_port()}")
    (answer,) = answers
    assert answer.status_code == 200, answer.text
    expected = Inpainter.from_checkpoint(tmp_path / "weights" / "small", device="cpu")(image, hole)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)


def test_the_last_answer_is_kept_however_large_and_earlier_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    monkeypatch.setattr("gicinpaint.demo.application._KEPT_BYTES", 1)
    inpainter = Inpainter(Generator(2), "cpu", progress=False)
    client = TestClient(Application(Filler(inpainter, Limits()), []), "http://localhost")
    mask = io.BytesIO()
    Image.fromarray(np.eye(16) > 0).save(mask, "PNG")
    files = {"image": png(16, 16).getvalue(), "mask": mask.getvalue()}
    names = [client.post("/api/fill", files=files).headers["x-answer"] for _ in range(2)]
    assert [client.get(f"/api/answers/{name}/mask").status_code for name in names] == [404, 200]


@pytest.mark.parametrize(("host", "address"), [("::1", "http://[::1]:80 "), ("localhost", "http://localhost:80 ")])
def test_the_address_that_is_printed_can_be_opened(
    job: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    host: str,
    address: str,
) -> None:
    save_generator(Generator(2), tmp_path / "weights" / "small")
    monkeypatch.setattr("gicinpaint.demo.server._check_address", lambda *_: None)
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: None)
    job(f"host='{host}'", "port=80")
    assert f"open {address}in a browser" in capsys.readouterr().out


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


@pytest.mark.parametrize(("rate", "cell"), [(1, 4), (2, 8)])
def test_cells_are_as_large_as_the_models_attention_has_them(rate: int, cell: int) -> None:
    """Of 60 x 44 pixels: padded to multiples of 8, a cell is 4 pixels times the attention's rate."""
    torch.manual_seed(0)
    filler = Filler(Inpainter(Generator(4, attention=ContextualAttention(rate=rate)), "cpu", progress=False), Limits())
    mask = np.zeros((44, 60), np.uint8)
    mask[16:32, 24:48] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    answer = filler.submit(png(60, 44), file).result(100)
    assert answer.cell == cell
    found = sources(answer.attention, answer.mask, x=47, y=31, cell=answer.cell)
    assert (found["cell"], found["target"]) == (cell, (48 - cell, 32 - cell))
    assert all(x % cell == y % cell == 0 and x < 60 and y < 44 for x, y, _ in found["sources"])
    assert Image.open(io.BytesIO(answer.copied or b"")).size == (60, 44)
