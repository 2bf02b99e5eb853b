"""The running server: its API, ten users at once, and thirty-odd hostile requests that it must refuse and survive."""

from __future__ import annotations

import http.client
import io
import json
import pickle
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import demo_server

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'gicinpaint[demo]'")

from gicinpaint.inference.inpainter import Inpainter

BOUNDARY = "a-line-that-no-file-has"
MEGABYTE = 1_000_000
ROOM = 400 * MEGABYTE  # that a refusal, or a 128x96 picture, may take beside what the server holds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[demo_server.Server]:
    server = demo_server.start(tmp_path_factory.mktemp("server"), "max_upload=2", "max_pixels=1000000")
    yield server
    server.stop()


def send(
    server: demo_server.Server, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers; the path goes out as it is, unlike with a browser."""
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, named)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        return 413, b"", {}
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


def test_the_api_describes_itself(server: demo_server.Server) -> None:
    status, content, _ = send(server, "GET", "/api")
    described = json.loads(content)
    assert status == 200
    assert list(described["paths"]) == ["/api/fill"]


def test_the_page_may_load_nothing_from_elsewhere(server: demo_server.Server) -> None:
    status, content, headers = send(server, "GET", "/")
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert b"fonts.googleapis.com" not in content
    assert b'"analytics_enabled":false' in content.replace(b" ", b"").replace(b"&quot;", b'"')


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
    "a blend that is a path": (IMAGE, MASK, {"blend": "../../etc/passwd"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_hostile_form_is_refused(server: demo_server.Server, name: str) -> None:
    image, mask, fields = FORMS[name]
    begin = time.monotonic()
    with Peak(server) as peak:
        status, content, _ = fill(server, image, mask, **fields)
    assert status == 400
    assert json.loads(content)["error"]
    assert b"Traceback" not in content
    assert b"root:" not in content
    assert str(server.folder).encode() not in content
    assert peak.growth < ROOM
    assert time.monotonic() - begin < 20
    assert not list(server.folder.rglob("pickle-ran"))
    assert server.answers()


LAYERS = form(
    {
        "type": "layer",
        "index": str(10**9),
        "id": "1",
        "session_hash": "x",
        "component_id": "9",
        "fn_name": "accept_blobs",
    },
    {"file": b"x"},
)
MULTIPART = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content_Type": "application/json"}
REQUESTS: dict[str, tuple[str, str, object, dict[str, str], tuple[int, ...]]] = {
    "a file of the system": ("GET", "/gradio_api/file=/etc/passwd", None, {}, (403,)),
    "a file by going up": ("GET", "/gradio_api/file=../../../../etc/passwd", None, {}, (403, 404)),
    "a file by going up, encoded": ("GET", "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd", None, {}, (403, 404)),
    "a file by going up, encoded twice": (
        "GET",
        "/gradio_api/file=%252e%252e%252fetc%252fpasswd",
        None,
        {},
        (403, 404),
    ),
    "a file behind a zero byte": ("GET", "/gradio_api/file=/tmp/a%00/etc/passwd", None, {}, (403,)),
    "a foreign address as file": ("GET", "/gradio_api/file=http://169.254.169.254/latest", None, {}, (403, 404)),
    "a foreign address by proxy": ("GET", "/gradio_api/proxy=http://169.254.169.254/latest", None, {}, (404,)),
    "static files by going up": ("GET", "/static/../../../../etc/passwd", None, {}, (404,)),
    "assets by going up, encoded": ("GET", "/assets/..%2f..%2f..%2fetc%2fpasswd", None, {}, (403, 404)),
    "assets with back strokes": ("GET", "/assets/..\\..\\etc\\passwd", None, {}, (403, 404)),
    "the code editor of gradio": ("POST", "/gradio_api/vibe-edit", b"{}", JSON, (404,)),
    "statistics": ("GET", "/monitoring/summary", None, {}, (404,)),
    "an event without the queue": ("POST", "/gradio_api/run/fill", b'{"data": []}', JSON, (404,)),
    "another method": ("DELETE", "/api/fill", None, {}, (405,)),
    "JSON instead of a form": ("POST", "/api/fill", b'{"image": "/etc/passwd"}', JSON, (400,)),
    "a form without its boundary": ("POST", "/api/fill", b"x", {"Content_Type": "multipart/form-data"}, (400,)),
    "a form without a mask": ("POST", "/api/fill", form({}, {"image": IMAGE}), MULTIPART, (400,)),
    "a file in place of a form's text": (
        "POST",
        "/api/fill",
        form({"image": "/etc/passwd", "mask": "x"}, {}),
        MULTIPART,
        (400,),
    ),
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
    "a file for the page above the limit": (
        "POST",
        "/gradio_api/upload",
        form({}, {"files": bytes(3 * MEGABYTE)}),
        MULTIPART,
        (413,),
    ),
    "a drawing of a billion layers": ("POST", "/gradio_api/component_server", LAYERS, MULTIPART, (400, 404, 422, 500)),
    "a server function that is none": (
        "POST",
        "/gradio_api/component_server",
        b'{"session_hash": "x", "component_id": 9, "fn_name": "__init__", "data": "x"}',
        JSON,
        (400, 404, 422, 500),
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_is_refused(server: demo_server.Server, name: str) -> None:
    method, path, body, headers, expected = REQUESTS[name]
    with Peak(server) as peak:
        status, content, _ = send(server, method, path, body, **headers)
    assert status in expected
    assert b"root:" not in content
    assert b"Traceback" not in content
    assert peak.growth < ROOM
    assert server.answers()
    assert server.foreign_contacts() == ""


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "http://169.254.169.254/latest"])
def test_an_event_of_the_page_takes_no_foreign_file(server: demo_server.Server, path: str) -> None:
    config = json.loads(send(server, "GET", "/config")[1])
    uploads = [
        event for event in config["dependencies"] if any("change" in map(str, target) for target in event["targets"])
    ]
    file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    session = f"session{abs(hash(path))}"
    event = {"data": [file], "fn_index": uploads[0]["id"], "session_hash": session}
    status, content, _ = send(server, "POST", "/gradio_api/queue/join", json.dumps(event), **JSON)
    assert status == 403
    assert b"root:" not in content
    assert server.answers()
    assert server.foreign_contacts() == ""


def test_an_upload_with_a_path_for_a_name_stays_in_the_folder(server: demo_server.Server, tmp_path: Path) -> None:
    body = form({}, {"files": IMAGE}, name="../../../../../../../../tmp/gicinpaint-escaped.png")
    status, content, _ = send(server, "POST", "/gradio_api/upload", body, **MULTIPART)
    assert not Path("/tmp/gicinpaint-escaped.png").exists()
    if status == 200:
        (path,) = json.loads(content)
        assert "gicinpaint-demo-" in str(Path(path).resolve())


def test_a_user_who_leaves_in_the_middle_stops_nobody(server: demo_server.Server) -> None:
    import socket

    host, port = server.address.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /api/fill HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            connection.sendall(f"{head}Content-Length: 100000\r\n\r\n--{BOUNDARY}\r\n".encode())
    assert fill(server, IMAGE, MASK)[0] == 200
