"""Free-form holes: strokes of a brush."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gicinpaint.masks.capsules import Spans, fill_spans, find_spans
from gicinpaint.masks.sampler import Device, check_room, device_of, draw_integers, read_pair, read_range, read_share
from gicinpaint.masks.window import hole_window
from gicinpaint.models.compositing import Box

_STROKES_PER_ROUND = 3  # while a mask grows to its share
_ROUNDS_PER_BRUSH = 8  # then the brush doubles, so that every share is reached however thin the brush


class Piece(NamedTuple):
    """A straight piece of a stroke, in pixels."""

    image: int
    x0: int
    y0: int
    x1: int
    y1: int
    brush: int


class FreeFormMask:
    """Holes that look painted: broken lines of random length, angle and width, with round ends.

    Args:
        box: Height and width of the window for the local critic; it is put where most of the hole is.
        strokes: Smallest and largest number of strokes; not used with a share.
        vertices: Smallest and largest number of straight pieces of a stroke.
        brush: Smallest and largest width of the brush in pixels.
        angle: Mean angle between a piece and the horizontal, and the most by which it differs, in degrees. Pieces go
            up and down in turn.
        length: Mean length of a piece, as a fraction of the image's diagonal.
        share: Smallest hole share (included) and largest (excluded), e.g. (0.1, 0.2); every number of pixels between
            them is equally likely. Strokes are added until that number is reached and the last one ends there, so the
            share holds exactly. None leaves the share to the strokes.

    Raises:
        TypeError: If a count is not whole.
        ValueError: If a setting is out of range; when called, if the box does not fit the image or no number of
            pixels lies in the share.

    Source:
        Yu et al. 2019, "Free-Form Image Inpainting with Gated Convolution", algorithm 1, with the constants of the
        code released with it. Differs from that code: the random flips take effect, a height that differs
        from the width is respected, and shares can be asked for.

    Example:
        >>> import torch
        >>> mask, box = FreeFormMask(box=32, share=(0.2, 0.3))(1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> 0.2 <= mask.mean() < 0.3
        tensor(True)
    """

    def __init__(
        self,
        box: int | Sequence[int] = (128, 128),
        strokes: int | Sequence[int] = (1, 3),
        vertices: int | Sequence[int] = (4, 11),
        brush: int | Sequence[int] = (12, 39),
        angle: Sequence[float] = (72.0, 24.0),
        length: float = 0.125,
        share: Sequence[float] | None = None,
    ) -> None:
        self.box = read_pair(box, "box", 1)
        self.strokes = read_range(strokes, "strokes", 1)
        self.vertices = read_range(vertices, "vertices", 1)
        self.brush = read_range(brush, "brush", 1)
        self.angle = tuple(angle)
        self.length = length
        self.share = None if share is None else read_share(share)
        if len(self.angle) != 2 or not self.angle[1] >= 0:
            raise ValueError(f"angle must be (mean, most by which it differs) in degrees, got {angle}; give both")
        if not 0 < length <= 1:
            raise ValueError(f"length must be in (0, 1], got {length}; give a fraction of the diagonal")

    def __call__(
        self,
        batch_size: int,
        height: int,
        width: int,
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
    ) -> tuple[Tensor, Box]:
        """Draw masks of the given size; see `MaskSampler`."""
        check_room(height, width, self.box)
        canvas = torch.zeros(batch_size, height, width, dtype=torch.uint8)
        flips = draw_integers(0, 1, (batch_size, 2), generator).tolist()
        if self.share is None:
            stroke_counts = draw_integers(*self.strokes, (batch_size,), generator).tolist()
            missing = [height * width] * batch_size
            _paint(canvas, self._draw_pieces(stroke_counts, flips, height, width, 1, generator), missing)
        else:
            missing = draw_integers(*_pixel_range(self.share, height * width), (batch_size,), generator).tolist()
            self._grow(canvas, missing, flips, generator)
        box = hole_window(canvas[:, None], self.box)
        return canvas[:, None].to(device or "cpu").float(), Box(box.top.to(device), box.left.to(device), *self.box)

    def _grow(
        self, canvas: Tensor, missing: list[int], flips: list[list[int]], generator: torch.Generator | None
    ) -> None:
        """Paint strokes until every image has the pixels that it is missing."""
        height, width = canvas.shape[1:]
        rounds = 0
        while any(missing):
            stroke_counts = [_STROKES_PER_ROUND if pixels else 0 for pixels in missing]
            widen = 2 ** min(rounds // _ROUNDS_PER_BRUSH, 16)
            _paint(canvas, self._draw_pieces(stroke_counts, flips, height, width, widen, generator), missing)
            rounds += 1

    def _draw_pieces(
        self,
        stroke_counts: list[int],
        flips: list[list[int]],
        height: int,
        width: int,
        widen: int,
        generator: torch.Generator | None,
    ) -> list[Piece]:
        """Draw as many strokes per image as asked for, as straight pieces in painting order."""
        shape = (sum(stroke_counts), 5 + 2 * self.vertices[1])  # the numbers that a stroke needs at most
        numbers = torch.rand(shape, dtype=torch.float64, generator=generator, device=device_of(generator)).tolist()
        owners = [image for image, strokes in enumerate(stroke_counts) for _ in range(strokes)]
        pieces = []
        for image, stroke in zip(owners, numbers, strict=True):
            points, brush = self._walk(iter(stroke), height, width)
            if flips[image][0]:
                points = [(x, height - 1 - y) for x, y in points]
            if flips[image][1]:
                points = [(width - 1 - x, y) for x, y in points]
            brush = min(brush * widen, 2 * (height + width))  # wide enough for everything
            pieces += [Piece(image, *start, *end, brush) for start, end in pairwise(points)]
        return pieces

    def _walk(self, numbers: Iterator[float], height: int, width: int) -> tuple[list[tuple[int, int]], int]:
        """Turn uniform numbers into a stroke: its corners (x, y) and the width of its brush."""
        pieces, brush = _pick(next(numbers), *self.vertices), _pick(next(numbers), *self.brush)
        mean, spread = math.radians(self.angle[0]), math.radians(self.angle[1])
        low, high = mean - next(numbers) * spread, mean + next(numbers) * spread
        y, x = divmod(_pick(next(numbers), 0, height * width - 1), width)
        points = [(x, y)]
        reach = self.length * math.hypot(height, width)
        reach_of = NormalDist(reach, max(reach // 2, 1e-6)).inv_cdf
        for piece in range(pieces):
            angle = low + next(numbers) * (high - low)
            step = min(max(reach_of(max(next(numbers), 1e-12)), 0.0), 2 * reach)
            rise = math.sin(angle) if piece % 2 else -math.sin(angle)
            x = int(min(max(x + step * math.cos(angle), 0), width - 1))
            y = int(min(max(y + step * rise, 0), height - 1))
            points.append((x, y))
        return points, brush


def _pixel_range(share: tuple[float, ...], pixels: int) -> tuple[int, int]:
    """Return the fewest and the most hole pixels whose share is in the range."""
    low, high = (math.ceil(Fraction(str(end)) * pixels) for end in share)  # 0.07 * 100 is more than 7 in floats
    fewest, most = max(1, low), high - 1
    if fewest > most:
        raise ValueError(
            f"share must leave room for a whole number of pixels, got {share} of {pixels} pixels; widen it"
        )
    return fewest, most


def _paint(canvas: Tensor, pieces: list[Piece], missing: list[int]) -> None:
    """Paint pieces in their order, and stop in each image when no pixel is missing any more.

    Args:
        canvas: Masks, changed in place.
        pieces: What to paint.
        missing: Number of pixels that may still be painted in each image, changed in place.

    Shape:
        - canvas: uint8 (B, H, W), {0, 1}, on the CPU
    """
    b, height, width = canvas.shape
    table = np.array(pieces, np.int64)  # (N, 6)
    spans = find_spans(table[:, 1:], height, width)
    image = table[spans.capsule, 0]
    new = fill_spans(image * height + spans.row, spans.first, spans.last, b * height, width).reshape(b, height, width)
    new &= canvas.numpy() == 0
    for number, count in enumerate(np.count_nonzero(new, (1, 2)).tolist()):
        if count > missing[number]:
            _keep_first(new[number], Spans(*(part[image == number] for part in spans)), pieces, missing[number])
        missing[number] -= min(count, missing[number])
    canvas |= torch.from_numpy(new)


def _keep_first(new: np.ndarray, spans: Spans, pieces: list[Piece], kept_count: int) -> None:
    """Keep as many of the new pixels (H, W) as asked for: those of the first pieces, the last one's from its start."""
    width = new.shape[1]
    painter = np.zeros(new.size, np.int64)  # the first piece that covers each pixel
    begin, end = spans.row * width + spans.first, spans.row * width + spans.last + 1
    for run in zip(begin[::-1].tolist(), end[::-1].tolist(), spans.capsule[::-1].tolist(), strict=True):
        painter[run[0] : run[1]] = run[2]
    places = new.ravel().nonzero()[0]
    painter = painter[places]
    before = np.searchsorted(np.bincount(painter).cumsum(), kept_count)  # pieces that are painted whole
    kept = places[painter < before]
    edge = places[painter == before]
    rows, columns = np.divmod(edge, width)
    distance = (rows - pieces[before].y0) ** 2 + (columns - pieces[before].x0) ** 2
    nearest = distance.argsort(kind="stable")[: kept_count - len(kept)]  # ties in reading order
    new[:] = False
    new.ravel()[kept] = True
    new.ravel()[edge[nearest]] = True


def _pick(number: float, low: int, high: int) -> int:
    """Turn a uniform number in [0, 1) into a whole number from low to high."""
    return low + int(number * (high - low + 1))
