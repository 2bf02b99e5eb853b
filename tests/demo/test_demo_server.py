"""The running server: its API, ten users at once, and hostile requests that it must refuse and survive."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import pickle
import re
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import demo_server
from faults import finish, wait_for

pytest.importorskip("starlette", reason="starlette is not installed: pip install 'gicinpaint[demo]'")

from gicinpaint.demo.filler import Filler, Limits, TooLargeError, grown
from gicinpaint.inference.inpainter import Inpainter
from gicinpaint.weights.hub import shipped_models

BOUNDARY = "a-line-that-no-file-has"
MEGABYTE = 1_000_000
ROOM = 400 * MEGABYTE  # that 128x96 pictures may take beside what the server holds
REFUSED, WORK = 250 * MEGABYTE, 5.0  # that a refusal may take: memory, and times the work of filling a 128x96 picture


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[demo_server.Server]:
    server = demo_server.start(tmp_path_factory.mktemp("server"), "max_upload=2", "max_pixels=1000000")
    yield server
    server.stop()


def send(
    server: demo_server.Server, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers; the path goes out as it is, unlike with a browser."""
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            connection.request(method, path, body, named)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def form(fields: dict[str, str], files: dict[str, bytes], name: str = "file.png") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    body = "".join(parts).encode()
    for key, content in files.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"; filename="{name}"\r\n'
        body += head.encode() + b"Content-Type: image/png\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def fill(server: demo_server.Server, image: bytes, mask: bytes, **fields: str) -> tuple[int, bytes, dict[str, str]]:
    body = form(fields, {"image": image, "mask": mask})
    return send(server, "POST", "/api/fill", body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def picture(seed: int, height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    hole = np.zeros((height, width), np.uint8)
    hole[10 + seed : 40, 20 : 60 + seed] = 255
    return image, hole


class Peak:
    """The most memory that a server holds while this is entered."""

    def __init__(self, server: demo_server.Server) -> None:
        self.server, self.most, self.end = server, server.memory(), threading.Event()
        self.before = self.most

    def __enter__(self) -> Peak:
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.end.wait(0.01):
            self.most = max(self.most, self.server.memory())

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.thread.join()

    @property
    def growth(self) -> int:
        return self.most - self.before


# --- The API ------------------------------------------------------------------------------------------------------


def test_ten_users_at_once_each_get_their_own_picture(server: demo_server.Server) -> None:
    pictures = [picture(seed) for seed in range(10)]
    with Peak(server) as peak, ThreadPoolExecutor(10) as users:
        answers = list(users.map(lambda pair: fill(server, png(pair[0]), png(pair[1])), pictures))
    inpainter = Inpainter.from_checkpoint(server.folder / "model", device="cpu")
    for (image, mask), (status, content, headers) in zip(pictures, answers, strict=True):
        assert (status, headers["content-type"]) == (200, "image/png")
        filled = np.asarray(Image.open(io.BytesIO(content)))
        expected = inpainter(image, mask > 0)
        assert np.array_equal(filled[mask == 0], image[mask == 0])
        assert np.abs(filled.astype(int) - expected).max() <= 1
    assert peak.growth < ROOM
    assert server.foreign_contacts() == ""


def test_the_hole_grows_and_blends_as_asked(server: demo_server.Server) -> None:
    image, mask = picture(0)
    status, content, headers = fill(server, png(image), png(mask), grow="5", blend="poisson")
    changed = (np.asarray(Image.open(io.BytesIO(content))) != image).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert status == 200
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 44, 15, 64)
    assert "128x96" in headers["x-method"]


def test_a_shipped_model_fills_by_its_name(server: demo_server.Server) -> None:
    image, mask = picture(4, 64, 64)
    answers = [fill(server, png(image), png(mask), model=model) for model in ("", "faces_64")]
    assert [status for status, *_ in answers] == [200, 200]
    own, shipped = (np.asarray(Image.open(io.BytesIO(content))) for _, content, _ in answers)
    assert np.abs(shipped.astype(int) - Inpainter.from_pretrained("faces_64", device="cpu")(image, mask > 0)).max() <= 1
    assert (own != shipped)[mask > 0].mean() > 0.5


def test_attention_copies_from_where_the_request_says(server: demo_server.Server) -> None:
    image, mask = picture(5)
    source = np.zeros_like(mask)
    source[:, 80:] = 255
    fields = [{"image": png(image), "mask": png(mask)}, {"image": png(image), "mask": png(mask), "source": png(source)}]
    answers = [send(server, "POST", "/api/fill", form({}, one), **MULTIPART) for one in fields]
    everywhere, limited = (np.asarray(Image.open(io.BytesIO(content))) for _, content, _ in answers)
    inpainter = Inpainter.from_checkpoint(server.folder / "model", device="cpu")
    expected = inpainter(image, mask > 0, source=source > 0)
    assert np.abs(limited.astype(int) - expected).max() <= 1
    assert np.abs(everywhere.astype(int) - expected).max() > 1
    text = form({"source": "all"}, {"image": png(image), "mask": png(mask)})
    status, content, _ = send(server, "POST", "/api/fill", text, **MULTIPART)
    assert (status, json.loads(content)) == (400, {"error": "source: expected a file"})


def test_the_api_describes_itself(server: demo_server.Server) -> None:
    status, content, _ = send(server, "GET", "/api")
    described = json.loads(content)
    assert status == 200
    assert "/api/fill" in described["paths"]
    limits = json.loads(send(server, "GET", "/settings")[1])
    assert limits.pop("models") == shipped_models()
    assert limits == {
        "upload": 2_000_000,
        "pixels": 1_000_000,
        "waiting": 32,
        "disk": 2_000_000_000,
        "examples": 4,
        "guided": False,
        "attends": True,
    }


def test_the_page_may_load_nothing_from_elsewhere(server: demo_server.Server) -> None:
    for path in ("/", "/page.js", "/result.js", "/page.css", "/examples/0"):
        status, content, headers = send(server, "GET", path)
        assert status == 200
        assert headers["content-security-policy"].startswith("default-src 'none';")
        assert path.startswith("/examples") or not re.search(rb"https?://", content)


def test_more_of_an_answer_can_be_asked_for_by_its_name_alone(server: demo_server.Server) -> None:
    image, mask = picture(2)
    headers = fill(server, png(image), png(mask), grow="3")[2]
    name = headers["x-answer"]
    used = np.asarray(Image.open(io.BytesIO(send(server, "GET", f"/api/answers/{name}/mask")[1]))) > 0
    assert np.array_equal(used, grown(mask > 0, 3))
    copied = np.asarray(Image.open(io.BytesIO(send(server, "GET", f"/api/answers/{name}/copied")[1])))
    assert copied.shape == image.shape
    assert (copied[~used] == copied[~used][:, :1]).all()  # known pixels are grey
    assert (copied[used] != copied[used][:, :1]).any()
    status, content, _ = send(server, "GET", f"/api/answers/{name}/sources?x=30&y=20")
    assert status == 200
    assert json.loads(content)["target"] == [24, 16]
    for wrong in ("sources?x=0&y=0", "sources?x=a&y=b", "sources"):
        assert send(server, "GET", f"/api/answers/{name}/{wrong}")[0] == 400
    for absent in (f"{name}/other", "0/mask", f"{name}"):
        assert send(server, "GET", f"/api/answers/{absent}")[0] == 404


# --- Hostile requests ---------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of zeros that is a thousand times smaller than its pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


IMAGE, MASK = (png(array) for array in picture(3))
SVG = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>'
HUGE_TIFF = b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHIII", 256, 4, 1, 2**31 - 1, 257, 4, 1, 2**31 - 1, 0)

FORMS: dict[str, tuple[bytes, bytes, dict[str, str]]] = {
    "a bomb as picture": (bomb(20000, 20000), MASK, {}),
    "a bomb as mask": (IMAGE, bomb(20000, 20000), {}),
    "a header of 2^31 pixels": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)),
        MASK,
        {},
    ),
    "a TIFF of 2^31 pixels": (HUGE_TIFF, MASK, {}),
    "an SVG with an entity": (SVG, MASK, {}),
    "a web page": (b"<html><script>alert(1)</script></html>", MASK, {}),
    "a program": (b"\x7fELF" + bytes(1000), MASK, {}),
    "an empty file": (b"", MASK, {}),
    "half a picture": (IMAGE[: len(IMAGE) // 2], MASK, {}),
    "noise that begins as JPEG": (b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(3000), MASK, {}),
    "a pickle with code": (pickle.dumps(Touch(Path("pickle-ran"))), MASK, {}),
    "a pickle with code as mask": (IMAGE, pickle.dumps(Touch(Path("pickle-ran"))), {}),
    "a mask of another size": (IMAGE, png(np.full((5, 5), 255, np.uint8)), {}),
    "a mask without a hole": (IMAGE, png(np.zeros((96, 128), np.uint8)), {}),
    "a mask of holes alone": (IMAGE, png(np.full((96, 128), 255, np.uint8)), {}),
    "a growth below zero": (IMAGE, MASK, {"grow": "-1"}),
    "a growth beyond all": (IMAGE, MASK, {"grow": "9" * 40}),
    "a growth that is code": (IMAGE, MASK, {"grow": "__import__('os')"}),
    "a model that is a path": (IMAGE, MASK, {"model": "../../weights/faces_64"}),
    "a blend that is a path": (IMAGE, MASK, {"blend": "../../etc/passwd"}),
}


@pytest.fixture(scope="module")
def legal(server: demo_server.Server) -> float:
    """Return the processor time that a right request takes, so that no clock decides."""
    fill(server, IMAGE, MASK)  # what is imported is imported now
    begin = server.work()
    assert fill(server, IMAGE, MASK)[0] == 200
    return server.work() - begin


@pytest.mark.parametrize("name", FORMS)
def test_a_hostile_form_is_refused(server: demo_server.Server, legal: float, name: str) -> None:
    image, mask, fields = FORMS[name]
    begin = server.work()
    with Peak(server) as peak:
        status, content, _ = fill(server, image, mask, **fields)
    assert status == (413 if "bomb" in name else 400)
    assert json.loads(content)["error"]
    assert ("max_pixels" in json.loads(content)["error"]) == (status == 413)
    assert b"Traceback" not in content
    assert b"root:" not in content
    assert str(server.folder).encode() not in content
    assert peak.growth < REFUSED
    assert server.work() - begin < WORK * legal
    assert not list(server.folder.rglob("pickle-ran"))
    assert server.answers()


MULTIPART = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content_Type": "application/json"}
FORM = form({}, {"image": IMAGE, "mask": MASK})
REQUESTS: dict[str, tuple[str, str, object, dict[str, str], tuple[int, ...]]] = {
    "a file of the system": ("GET", "/etc/passwd", None, {}, (404,)),
    "a file by going up": ("GET", "/../../../../etc/passwd", None, {}, (404,)),
    "a file by going up, encoded": ("GET", "/%2e%2e/%2e%2e/etc/passwd", None, {}, (404,)),
    "an example by going up": ("GET", "/examples/../server.py", None, {}, (404,)),
    "an example beyond the last": ("GET", "/examples/4", None, {}, (404,)),
    "an example below the first": ("GET", "/examples/-1", None, {}, (404,)),
    "an answer with the name of another thing": ("GET", "/api/answers/__class__/mask", None, {}, (404,)),
    "a route of gradio": ("POST", "/gradio_api/queue/join", b'{"fn_index": 999, "data": []}', JSON, (405,)),
    "another method": ("DELETE", "/api/fill", None, {}, (405,)),
    "a method that there is not": ("BREW", "/", None, {}, (405,)),
    "JSON instead of a form": ("POST", "/api/fill", b'{"image": "/etc/passwd"}', JSON, (415,)),
    "38 MB of brackets": ("POST", "/api/fill", b"[]," * 12_700_000, JSON, (413, 415)),
    "a form of text": (
        "POST",
        "/api/fill",
        b"image=a&mask=b",
        {"Content_Type": "application/x-www-form-urlencoded"},
        (415,),
    ),
    "a form without its boundary": ("POST", "/api/fill", b"x", {"Content_Type": "multipart/form-data"}, (400,)),
    "a form without a mask": ("POST", "/api/fill", form({}, {"image": IMAGE}), MULTIPART, (400,)),
    "text in place of files": ("POST", "/api/fill", form({"image": "/etc/passwd", "mask": "x"}, {}), MULTIPART, (400,)),
    "addresses in place of files": (
        "POST",
        "/api/fill",
        form(dict.fromkeys(("image", "mask", "url"), "http://192.0.2.1/a.png"), {}),
        MULTIPART,
        (400,),
    ),
    "a fifth file": (
        "POST",
        "/api/fill",
        form({}, {"image": IMAGE, "mask": MASK, "sketch": MASK, "source": MASK, "more": b"x"}),
        MULTIPART,
        (400,),
    ),
    "a long text": ("POST", "/api/fill", form({"grow": "1" * 5000}, {"image": IMAGE, "mask": MASK}), MULTIPART, (400,)),
    "a form that ends early": ("POST", "/api/fill", FORM[: len(FORM) // 2], MULTIPART, (400,)),
    "a length that is no number": ("POST", "/api/fill", None, {"Content_Length": "many"}, (400, 413)),
    "an upload above the limit": ("POST", "/api/fill", bytes(9 * MEGABYTE), MULTIPART, (413,)),
    "a file above the limit": (
        "POST",
        "/api/fill",
        form({}, {"image": bytes(3 * MEGABYTE), "mask": MASK}),
        MULTIPART,
        (413,),
    ),
    "an endless upload in pieces": ("POST", "/api/fill", (bytes(MEGABYTE) for _ in range(50)), MULTIPART, (400, 413)),
    "an endless file in pieces": (
        "POST",
        "/api/fill",
        (FORM[:200] if part == 0 else bytes(MEGABYTE) for part in range(50)),
        MULTIPART,
        (413,),
    ),
    "the name of another server": ("GET", "/", None, {"Host": "evil.example"}, (403,)),
    "a name that is said to be passed on": (
        "GET",
        "/",
        None,
        {"Host": "evil.example", "X_Forwarded_Host": "localhost"},
        (403,),
    ),
    "the name of another server to fill": ("POST", "/api/fill", FORM, {**MULTIPART, "Host": "evil.example"}, (403,)),
    "a page of another server": ("POST", "/api/fill", FORM, {**MULTIPART, "Origin": "http://evil.example"}, (403,)),
    "a page without a server": ("POST", "/api/fill", FORM, {**MULTIPART, "Origin": "null"}, (403,)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_is_refused(server: demo_server.Server, legal: float, name: str) -> None:
    method, path, body, headers, expected = REQUESTS[name]
    begin = server.work()
    with Peak(server) as peak:
        status, content, _ = send(server, method, path, body, **headers)
    assert status in expected
    assert b"root:" not in content
    assert b"Traceback" not in content
    assert peak.growth < REFUSED
    assert server.work() - begin < WORK * legal
    assert server.answers()
    assert server.foreign_contacts() == ""


def test_a_page_may_ask_by_every_name_of_its_own_server(server: demo_server.Server) -> None:
    port = server.address.rpartition(":")[2]
    for name in ("localhost", "127.0.0.1", "[::1]", "192.168.1.7", "LOCALHOST"):
        headers = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        assert send(server, "GET", "/settings", **headers)[0] == 200


def test_a_photograph_of_a_phone_is_taken_and_one_pixel_too_many_is_not(tmp_path: Path) -> None:
    limits = Limits()
    filler = Filler(None, limits)  # type: ignore[arg-type]
    for height, allowed in ((3000, True), (6250, True), (6251, False)):
        file = io.BytesIO()
        Image.new("RGB", (4000, height)).save(file, "JPEG")
        if allowed:
            filler._check(file, "image")
        else:
            with pytest.raises(TooLargeError, match="max_pixels allows 25,000,000"):
                filler._check(file, "image")


def test_a_user_who_leaves_in_the_middle_stops_nobody(server: demo_server.Server) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /api/fill HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            connection.sendall(f"{head}Content-Length: 100000\r\n\r\n--{BOUNDARY}\r\n".encode())
    assert fill(server, IMAGE, MASK)[0] == 200


def hold(server: demo_server.Server, content: bytes) -> socket.socket:
    """Begin an upload and leave it unfinished."""
    host, port = server.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /api/fill HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART['Content_Type']}\r\n"
    connection.sendall(f"{head}Content-Length: {len(content) + 10}\r\n\r\n".encode() + content)
    return connection


def test_uploads_that_arrive_share_one_limit_and_give_it_back(tmp_path: Path) -> None:
    server = demo_server.start(tmp_path, "max_upload=2", "max_disk=1", temporary=tmp_path)
    try:
        part = form({}, {"image": bytes(900_000), "mask": MASK})[:900_000]
        with hold(server, part):
            until(lambda: any(size > 800_000 for size in server.open_files(tmp_path)))
            assert fill(server, IMAGE + bytes(200_000), MASK)[0] == 503  # 1.1 MB with the one that is held
            assert fill(server, IMAGE, MASK)[0] == 200  # 0.95 MB
        until(lambda: fill(server, IMAGE + bytes(200_000), MASK)[0] == 200)
    finally:
        server.stop()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to it")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_that_is_stopped_in_the_middle_leaves_no_file_and_says_nothing(number: int, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    server = demo_server.start(tmp_path, "max_upload=2", temporary=temporary)
    with hold(server, form({}, {"image": bytes(1_500_000)})):
        until(lambda: any(size > 1_000_000 for size in server.open_files(temporary)))
        server.process.send_signal(number)
        assert finish(server.process, 60) == (
            0 if number == signal.SIGINT else 128 + number
        )  # Ctrl+C is the way to end
    assert not [path for path in temporary.rglob("*") if path.is_file()]
    said = (tmp_path / "server.txt").read_text()
    assert "Traceback" not in said
    assert "ERROR" not in said


def test_ctrl_c_does_not_wait_for_a_large_picture(tmp_path: Path) -> None:
    """Filling it takes minutes; uvicorn's grace for requests is two seconds."""
    server = demo_server.start(tmp_path, "max_upload=9", "max_memory=3", "max_pixels=9000000")
    mask = np.zeros((3000, 3000), np.uint8)
    mask[1000:2000, 1000:2000] = 255
    idle = server.work()
    with ThreadPoolExecutor(1) as user:
        answer = user.submit(fill, server, png(np.zeros((3000, 3000, 3), np.uint8)), png(mask))
        until(lambda: server.work() - idle > 3)  # reading takes less: it fills
        server.process.send_signal(signal.SIGINT)
        assert wait_for(lambda: server.process.poll() is not None, 60, server.process) < 10
        assert answer.result()[0] == 503
    assert server.process.wait() == 0
    said = (tmp_path / "server.txt").read_text()
    assert "Traceback" not in said
    assert "ERROR" not in said
