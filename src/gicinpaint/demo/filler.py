"""The queue in front of the model: images are filled one after the other, and abandoned when nobody waits any more."""

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from io import BytesIO
from threading import Event
from types import FrameType
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gicinpaint.attention.attention_map import AttentionCall, colour_legend, colour_offset, overhear, relative_offset
from gicinpaint.attention.visualize import attention_of, to_image
from gicinpaint.data.image_io import FORMATS, decode_image
from gicinpaint.inference.blending import Blend, check_blend
from gicinpaint.inference.inpainter import Inpainter
from gicinpaint.masks.files import grown, read_mask_file

MAX_GROW = 64  # pixels
CELL = 8  # pixels of the image per cell of the attention, along each axis, at the released rate of 2
_MOST_SOURCES = 64  # that are told of one cell


class Limits(NamedTuple):
    """What the server takes: bytes of a file, pixels of an image, requests that wait, bytes of all uploads together."""

    upload: int = 20_000_000
    pixels: int = 25_000_000
    waiting: int = 32
    disk: int = 2_000_000_000


class BusyError(RuntimeError):
    """There is no room for another request now."""


class TooLargeError(ValueError):
    """A request, a file or an image is above a limit."""


class AbandonedError(Exception):
    """Nobody waits for an answer any more."""


class Answer(NamedTuple):
    """A filled image.

    Attributes:
        image: The filled image as PNG, RGB; outside the hole it equals what came in.
        mask: What was filled, after growing, bool (H, W).
        copied: Where the attention copied from as PNG, in colours of the flow wheel; None where it did not see the
            whole image.
        attention: What the attention was called with, for `sources`; None where `copied` is.
        text: How it was filled and how long that took.
        cell: Pixels of the image per cell of the attention, along each axis.
    """

    image: bytes
    mask: np.ndarray
    copied: bytes | None
    attention: AttentionCall | None
    text: str
    cell: int = CELL

    @property
    def size(self) -> int:
        """Bytes in memory."""
        tensors = (self.attention.foreground, self.attention.background) if self.attention else ()
        return len(self.image) + self.mask.nbytes + len(self.copied or b"") + sum(tensor.nbytes for tensor in tensors)


class Filler:
    """Fill images one after the other, in the order in which they came.

    An image that waits is left in the file it was uploaded to; it is read and decoded when its turn comes, so memory
    does not grow with the number of users. `models` opens other models by their names, when they are first asked for.
    """

    def __init__(
        self, inpainter: Inpainter, limits: Limits, models: Mapping[str, Callable[[], Inpainter]] | None = None
    ) -> None:
        self.models = dict(models or {})
        self.inpainter = inpainter
        self._opened = {"": inpainter}
        self.limits = limits
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="filler")
        self._abandoned: dict[Future[Answer], Event] = {}

    @property
    def guided(self) -> bool:
        """Whether the model takes a sketch."""
        return bool(getattr(self.inpainter.generator, "guided", False))

    @property
    def attends(self) -> bool:
        """Whether the model has attention, which can be told where to copy from."""
        return attention_of(self.inpainter.generator) is not None

    def submit(
        self,
        image: IO[bytes] | bytes,
        mask: IO[bytes] | bytes,
        sketch: IO[bytes] | bytes | None = None,
        source: IO[bytes] | bytes | None = None,
        *,
        grow: int = 0,
        blend: Blend = "none",
        model: str = "",
    ) -> "Future[Answer]":
        """Queue an image and return its answer to come.

        Args:
            image: An image file, which stays open until the answer is there; it is taken as upright RGB, transparent
                parts white.
            mask: A file of the same size, white in the hole; see `gicinpaint.masks.read_mask_file`.
            sketch: A file of the same size, white where a guided model shall draw edges in the hole.
            source: A file of the same size, white where attention may copy from; None: from all known pixels.
            grow: Pixels by which the hole is grown, 0..64.
            blend: As for `Inpainter`.
            model: One of `models`; empty: the inpainter that the server was started with.

        Raises:
            BusyError: If too many wait.
            ValueError: If a setting lies outside; what is wrong with the files shows in the answer.
        """
        if not 0 <= grow <= MAX_GROW:
            raise ValueError(f"grow must lie in 0..{MAX_GROW}, got {grow}")
        check_blend(blend)
        if model and model not in self.models:
            raise ValueError(f"model: expected one of {', '.join(self.models)}, got {model[:80]}")
        if len(self._abandoned) >= self.limits.waiting:
            raise BusyError(f"{len(self._abandoned)} images are waiting already; try again in a minute")
        abandoned = Event()
        given = {"image": image, "mask": mask, "sketch": sketch, "source": source}
        files = {
            name: BytesIO(one) if isinstance(one, bytes) else one for name, one in given.items() if one is not None
        }
        future = self._worker.submit(self._fill, files, grow, blend, model, abandoned)
        self._abandoned[future] = abandoned
        future.add_done_callback(lambda done: self._abandoned.pop(done, None))
        return future

    def abandon(self, futures: "Iterable[Future[Answer]] | None" = None) -> None:
        """Take answers that nobody waits for out of the queue, all by default; one that is computed stops soon."""
        for future in list(self._abandoned) if futures is None else futures:
            if not future.cancel() and (event := self._abandoned.get(future)):
                event.set()

    def stop(self) -> None:
        """Abandon everything and take no more."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self.abandon()

    def _fill(self, files: dict[str, IO[bytes]], grow: int, blend: Blend, model: str, abandoned: Event) -> Answer:
        begin = time.perf_counter()
        image = files.pop("image")
        self._check(image, "image")
        picture = decode_image(image, "of the image", max_pixels=self.limits.pixels)
        read: dict[str, Any] = {name: self._read(file, name, picture) for name, file in files.items()}
        hole = read.pop("mask")
        if not hole.any():
            raise ValueError("there is no hole; paint over what is to be filled, or send a mask that is white there")
        hole = grown(hole, grow)
        if model not in self._opened:  # by this thread alone
            self._opened[model] = self.models[model]()
        inpainter = self._opened[model]
        layer = attention_of(inpainter.generator)
        noted: Any = nullcontext([]) if layer is None else overhear(layer)
        with warnings.catch_warnings(), noted as calls, _stoppable(abandoned.is_set):
            warnings.simplefilter("ignore")
            filled = inpainter.fill(picture, hole, blend=blend, **read)
        seconds = time.perf_counter() - begin
        cell = CELL // 2 * getattr(layer, "rate", 2)
        copied = None if filled.offset is None else _colours(filled.offset, hole, picture, cell)
        text = f"{picture.width}x{picture.height}, {hole.mean():.1%} hole, {filled.method}, {seconds:.1f} s"
        attention = calls[-1] if copied and calls else None
        return Answer(png(filled.image), hole, copied, attention, text, cell)

    def _read(self, file: IO[bytes], name: str, picture: Image.Image) -> np.ndarray:
        """Return where a mask, sketch or source is white, bool (H, W)."""
        self._check(file, name)
        try:
            white = read_mask_file(file, max_pixels=self.limits.pixels)
        except ValueError as error:
            raise ValueError(f"the {name} {error}") from None
        if white.shape != picture.size[::-1]:
            raise ValueError(
                f"the {name} must have the image's size, {picture.width}x{picture.height}, got "
                f"{white.shape[1]}x{white.shape[0]}"
            )
        return white

    def _check(self, file: IO[bytes], name: str) -> None:
        """Raise if a file or its image is above the limits; the file is rewound."""
        if (size := file.seek(0, 2)) > self.limits.upload:
            raise TooLargeError(f"the {name} has {size:,} bytes, max_upload allows {self.limits.upload:,}")
        file.seek(0)
        if (pixels := _pixels(file)) > self.limits.pixels:
            raise TooLargeError(f"the {name} has {pixels:,} pixels, max_pixels allows {self.limits.pixels:,}")
        file.seek(0)


def sources(call: AttentionCall, hole: np.ndarray, x: int, y: int, cell: int = CELL) -> dict[str, Any]:
    """Return the places that the cell at column x and row y was copied from, the largest share first.

    Returns:
        `cell`; `target`, the top left pixel of the cell; `sources`, a list of (x, y, share) with the top left pixels of
        at most 64 cells; `others`, how many more have a share over 0.1 %.

    Raises:
        ValueError: If the pixel lies outside the image or in no cell of the hole.
    """
    row, column = y // cell, x // cell
    height, width = hole.shape
    if not (0 <= y < height and 0 <= x < width):
        raise ValueError(f"x and y must lie in 0..{width - 1} and 0..{height - 1}, got {x}, {y}")
    if not hole[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].any():
        raise ValueError("there was no hole at this place")
    weights = call.row(0, (row, column)).double().cpu()
    shares, order = weights.flatten().sort(descending=True)
    seen = int((shares > 1e-3).sum())
    found = [
        (int(place) % weights.shape[1] * cell, int(place) // weights.shape[1] * cell, round(share.item(), 4))
        for place, share in zip(order[:_MOST_SOURCES], shares[: min(seen, _MOST_SOURCES)], strict=False)
    ]
    return {"cell": cell, "target": (column * cell, row * cell), "sources": found, "others": seen - len(found)}


def wheel() -> bytes:
    """Return the colour wheel of `Answer.copied` as PNG: each pixel shows an offset from the middle to itself."""
    return png(to_image(colour_legend(96)))


@contextmanager
def _stoppable(stop: Callable[[], bool]) -> Iterator[None]:
    """Let every function of this package that this thread calls raise `AbandonedError` once it is told to stop.

    A profiler sees the calls inside operators too: attention to a large image is one operator and takes a minute.
    """

    def check(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("gicinpaint.") and stop():
            raise AbandonedError  # which ends the profiling

    sys.setprofile(check)
    try:
        yield
    finally:
        sys.setprofile(None)


def _pixels(file: IO[bytes]) -> int:
    """Return width x height as an image's header has them; 0 where there is no header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=(*FORMATS, "GIF")) as image:
                return image.width * image.height
    except Image.DecompressionBombError:
        return 2 * (Image.MAX_IMAGE_PIXELS or 0)
    except Exception:  # the decoder says what is wrong
        return 0


def _colours(offset: Tensor, hole: np.ndarray, image: Image.Image, cell: int) -> bytes:
    """Colour where each cell of the hole was copied from, at the image's size; known pixels are pale."""
    height, width = hole.shape
    rows, columns = offset.shape[-2:]
    padded = np.zeros((rows * cell, columns * cell), bool)
    padded[:height, :width] = hole
    inside = torch.from_numpy(padded.reshape(rows, cell, columns, cell).any((1, 3)))
    relative = relative_offset(offset[None]) * inside  # the longest offset of the hole is the saturated one
    colours = np.asarray(to_image(colour_offset(relative, rate=cell)[0]))[:height, :width]
    pale = 160 + np.asarray(image.convert("L"))[..., None] // 3
    return png(Image.fromarray(np.where(hole[..., None], colours, pale).astype(np.uint8)))


def png(image: Image.Image | np.ndarray) -> bytes:
    """Return an image, or a hole that becomes white on black, as a PNG file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.astype(np.uint8) * 255)
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
