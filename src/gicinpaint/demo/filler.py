"""What the page and the API share: one queue in front of one model, and the limits on what it takes."""

import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from threading import Lock
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from gicinpaint.attention.image_grid import to_image
from gicinpaint.attention.visualize_offset import colour_offset, relative_offset
from gicinpaint.data.image_io import ImageError, decode_image
from gicinpaint.inference.blending import Blend, check_blend
from gicinpaint.inference.inpainter import Inpainter

MAX_GROW = 64  # pixels


class Limits(NamedTuple):
    """What the server takes.

    Attributes:
        upload: Bytes of one file.
        pixels: Width x height of a picture, checked before it is decoded.
        waiting: Requests that may wait for the model; more are turned away.
        disk: Bytes of uploads and results that are kept; the oldest go first.
    """

    upload: int = 20_000_000
    pixels: int = 8_000_000
    waiting: int = 32
    disk: int = 2_000_000_000


class BusyError(RuntimeError):
    """The queue is full."""


class Answer(NamedTuple):
    """A filled picture.

    Attributes:
        image: The picture, RGB; outside the hole it equals what came in.
        mask: What was filled, white, after growing.
        copied: Where the attention copied from, as colours of the flow wheel; None without attention or in parts.
        text: How it was filled and how long that took.
    """

    image: Image.Image
    mask: Image.Image
    copied: Image.Image | None
    text: str


class Filler:
    """Fill pictures one after the other, in the order in which they came.

    A picture that waits is left where it was uploaded to; it is read and decoded when its turn comes, so memory does
    not grow with the number of users.

    Args:
        inpainter: Fills them.
        limits: What is refused.
    """

    def __init__(self, inpainter: Inpainter, limits: Limits) -> None:
        self.inpainter = inpainter
        self.limits = limits
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="filler")
        self._count = 0
        self._lock = Lock()

    def submit(
        self, image: bytes | IO[bytes], mask: bytes | IO[bytes] | np.ndarray, *, grow: int = 0, blend: Blend = "none"
    ) -> "Future[Answer]":
        """Queue a picture and return its answer to come.

        Args:
            image: A picture's file, which stays open until the answer is there, or its content; it is taken as upright
                RGB, transparent parts white.
            mask: The same of a mask of the same size, white in the hole; or bool (H, W).
            grow: Pixels by which the hole is grown, 0..64.
            blend: As for `Inpainter`.

        Raises:
            BusyError: If too many wait.
            ValueError: If a setting lies outside; what is wrong with the files shows in the answer.
        """
        if not 0 <= grow <= MAX_GROW:
            raise ValueError(f"grow must lie in 0..{MAX_GROW}, got {grow}")
        check_blend(blend)
        with self._lock:
            if self._count >= self.limits.waiting:
                raise BusyError(f"{self._count} pictures are waiting already; try again in a minute")
            self._count += 1
        future = self._worker.submit(self._fill, image, mask, grow, blend)
        future.add_done_callback(lambda _: self._leave())
        return future

    def read(self, file: bytes | IO[bytes], name: str) -> Image.Image:
        """Return an upright RGB picture of a file.

        Raises:
            ValueError: If it is too large or no picture.
        """
        content = file if isinstance(file, bytes) else file.read(self.limits.upload + 1)
        if len(content) > self.limits.upload:
            size = f"{len(content):,}" if isinstance(file, bytes) else "more"
            raise ImageError(f"{name} has {size} bytes, the limit is {self.limits.upload:,}")
        return decode_image(BytesIO(content), name, max_pixels=self.limits.pixels)

    def _fill(self, file: bytes | IO[bytes], mask: bytes | IO[bytes] | np.ndarray, grow: int, blend: Blend) -> Answer:
        begin = time.perf_counter()
        picture = self.read(file, "of the picture")
        hole = mask if isinstance(mask, np.ndarray) else np.asarray(self.read(mask, "of the mask").convert("L")) > 127
        if hole.shape != picture.size[::-1]:
            raise ValueError(
                f"the mask must have the picture's size, {picture.width}x{picture.height}, got "
                f"{hole.shape[1]}x{hole.shape[0]}"
            )
        if not hole.any():
            raise ValueError("there is no hole; paint over what is to be filled, or upload a mask that is white there")
        hole = grown(hole, grow)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            filled = self.inpainter.fill(picture, hole, blend=blend)
        seconds = time.perf_counter() - begin
        copied = None
        if filled.offset is not None:
            copied = _colours(filled.offset, hole)
        text = f"{picture.width}x{picture.height}, {hole.mean():.1%} hole, {filled.method}, {seconds:.1f} s"
        return Answer(filled.image, Image.fromarray(hole.astype(np.uint8) * 255), copied, text)

    def _leave(self) -> None:
        with self._lock:
            self._count -= 1


def grown(hole: np.ndarray, pixels: int) -> np.ndarray:
    """Return a hole, bool (H, W), with all pixels that lie within a distance of it, in pixels."""
    return hole if pixels == 0 or not hole.any() else distance_transform_edt(~hole) <= pixels


def _colours(offset: torch.Tensor, hole: np.ndarray) -> Image.Image:
    """Colour where each cell of the hole was copied from, at the picture's size; known pixels are grey."""
    height, width = hole.shape
    colours = np.asarray(to_image(colour_offset(relative_offset(offset[None]), rate=8)[0]))[:height, :width]
    return Image.fromarray(np.where(hole[..., None], colours, np.uint8(200)))
