"""Files that are meant to break the inpaint job: each ends in a refusal, and the good one beside them is filled."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from inpaint_runs import files, run_here
from pictures_of_every_kind import draw


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file of one grey channel that claims a size, with chunks before one short line of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = b"".join(chunk(*one) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IDAT", zlib.compress(bytes(8))) + chunk(b"IEND", b"")


def hostile_files(folder: Path) -> int:
    """Write files that are named like images and are none, or none to decode; return how many."""
    stream = io.BytesIO()
    draw("RGB", 64, 64, 1).save(stream, "JPEG")
    tiff = b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 256, 4, 1, 200000) + struct.pack("<HHII", 257, 4, 1, 200000)
    contents = {
        "above_the_limit.png": png(10000, 10000),
        "bomb.png": png(60000, 60000),
        "largest.png": png(2**31 - 1, 2**31 - 1),
        "no_width.png": png(0, 10),
        "text_bomb.png": png(16, 16, (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))),
        "profile_bomb.png": png(16, 16, (b"iCCP", b"a\0\0" + zlib.compress(bytes(2**27)))),
        "cut.png": png(16, 16)[:40],
        "half.jpg": stream.getvalue()[:300],
        "huge.tiff": tiff + bytes(4),
        "empty.webp": b"",
        "page.png": b"<html><script>alert(1)</script></html>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "program.jpg": b"#!/bin/sh\ntouch /tmp/ran\n",
        "pickle.bmp": pickle.dumps({"image": [1, 2, 3]}),
        "archive.png": b"PK\x03\x04" + bytes(100),
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(file) run\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "nowhere.png").symlink_to(folder / "gone")
    os.mkfifo(folder / "pipe.png")
    return len(contents) + 2


def test_hostile_files_are_refused_and_the_rest_is_done_in_little_memory(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    count = hostile_files(tmp_path / "in")
    draw("RGB", 16, 16, 1).save(tmp_path / "in" / "good.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 5:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run_here(model, "input=in", "masks=mask.png", "output=out", folder=tmp_path)
    assert result.returncode == 1
    assert f"1 of {count + 1} images filled" in result.stdout
    assert f"{count} of {count + 1} images not filled" in result.stderr
    assert "10000x10000 pixels are more than the limit of 67108864" in result.stderr
    assert "Traceback" not in result.stderr
    assert files(tmp_path / "out")[:1] == ["good.png"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500e3  # kB
