"""Free-form holes: strokes of a brush, drawn with whole numbers, so the same pixels on every machine."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from kornia.image import draw_convex_polygon
from torch import Tensor

from gicinpaint.masks.sampler import (
    Augment,
    Device,
    MaskSampler,
    Rng,
    device_of,
    draw_integers,
    read_hole_ratio,
    read_pair,
    read_range,
)
from gicinpaint.models.compositing import Box

Drawing = Literal["spans", "kornia"]

_STROKES_PER_ROUND = 3  # while a mask grows to its ratio
_ROUNDS_PER_BRUSH = 8  # then the brush doubles, so that every ratio is reached however thin the brush
_NOWHERE = 2**40  # left end of an empty span; beyond every image
_CORNERS = 48  # of a round end: its polygon is within 0.1 pixels of the circle for every brush below 90


class Segment(NamedTuple):
    """A straight line of a stroke, in pixels, with round ends."""

    image: int
    x0: int
    y0: int
    x1: int
    y1: int
    brush: int


class FreeFormMask(MaskSampler):
    """Holes that look painted: broken lines of random length, angle and width, with round ends.

    Args:
        box: Height and width of the window for the local critic; it is put where most of the hole is.
        strokes: Smallest and largest number of strokes; not used with a hole ratio.
        vertices: Smallest and largest number of straight segments of a stroke.
        brush: Smallest and largest width of the brush in pixels. None: 12 to 39 in 256, relative to the shorter side.
        angle: Mean angle between a segment and the horizontal, and the most by which it differs, in degrees. Segments
            go up and down in turn.
        length: Mean length of a segment, as a fraction of the image's diagonal.
        hole_ratio: Smallest hole ratio (included) and largest (excluded), e.g. (0.1, 0.2); every number of pixels
            between them is equally likely, and the last stroke ends there. None leaves it to the strokes.
        augment: Changes what was drawn, such as `MaskAugment`; None keeps it.
        drawing: "spans": our whole numbers, the same pixels on every machine; "kornia": polygons on the masks' device,
            which differ in pixels on an edge, and know no hole ratio.

    Raises:
        TypeError: If a count is not whole.
        ValueError: If a setting is out of range; when called, if the box does not fit the image or no number of pixels
            has such a ratio.

    Source:
        Yu et al. 2019, "Free-Form Image Inpainting with Gated Convolution", algorithm 1, with the constants of its
        released code. Differs from that code: the random flips take effect, a height that differs from the width is
        respected, and hole ratios can be asked for.

    Example:
        >>> import torch
        >>> rng = torch.Generator().manual_seed(0)
        >>> mask, box = FreeFormMask(box=32, hole_ratio=(0.2, 0.3))(1, 64, 64, generator=rng)
        >>> 0.2 <= mask.mean() < 0.3
        tensor(True)
    """

    def __init__(
        self,
        box: int | Sequence[int] = (128, 128),
        strokes: int | Sequence[int] = (1, 3),
        vertices: int | Sequence[int] = (4, 11),
        brush: int | Sequence[int] | None = (12, 39),
        angle: Sequence[float] = (72.0, 24.0),
        length: float = 0.125,
        hole_ratio: Sequence[float] | None = None,
        augment: Augment | None = None,
        drawing: Drawing = "spans",
    ) -> None:
        self.box = read_pair(box, "box", 1)
        self.strokes = read_range(strokes, "strokes", 1)
        self.vertices = read_range(vertices, "vertices", 1)
        self.brush = None if brush is None else read_range(brush, "brush", 1)
        self.augment = augment
        self.drawing = drawing
        if drawing not in get_args(Drawing) or (drawing == "kornia" and hole_ratio is not None):
            raise ValueError(f"drawing must be spans, or kornia without a hole_ratio, got {drawing}; use spans")
        self.angle = tuple(angle)
        self.length = length
        self.hole_ratio = None if hole_ratio is None else read_hole_ratio(hole_ratio)
        if len(self.angle) != 2 or not self.angle[1] >= 0:
            raise ValueError(f"angle must be (mean, most by which it differs) in degrees, got {angle}; give both")
        if not 0 < length <= 1:
            raise ValueError(f"length must be in (0, 1], got {length}; give a fraction of the diagonal")

    def draw(self, batch_size: int, size: tuple[int, int], generator: Rng, device: Device) -> tuple[Tensor, Box | None]:
        """Draw masks; see `MaskSampler`."""
        canvas, pixels = torch.zeros(batch_size, *size, dtype=torch.uint8), size[0] * size[1]
        flips = draw_integers(0, 1, (batch_size, 2), generator).tolist()
        if self.hole_ratio is None:
            counts = draw_integers(*self.strokes, (batch_size,), generator).tolist()
            segments = self._draw_segments(counts, flips, size, 1, generator)
            if self.drawing == "kornia":
                return _draw_by_kornia(segments, batch_size, *size, device)[:, None], None
            _paint(canvas, segments, [pixels] * batch_size)
            return canvas[:, None], None
        missing = draw_integers(*_pixel_range(self.hole_ratio, pixels), (batch_size,), generator).tolist()
        rounds = 0
        while any(missing):
            counts = [_STROKES_PER_ROUND if some else 0 for some in missing]
            widen = 2 ** min(rounds // _ROUNDS_PER_BRUSH, 16)
            _paint(canvas, self._draw_segments(counts, flips, size, widen, generator), missing)
            rounds += 1
        return canvas[:, None], None

    def _draw_segments(
        self, stroke_counts: list[int], flips: list[list[int]], size: tuple[int, int], widen: int, generator: Rng
    ) -> list[Segment]:
        """Draw as many strokes per image as asked for, as straight segments in painting order."""
        height, width = size
        shape = (sum(stroke_counts), 5 + 2 * self.vertices[1])  # the numbers that a stroke needs at most
        numbers = torch.rand(shape, dtype=torch.float64, generator=generator, device=device_of(generator)).tolist()
        owners = [image for image, strokes in enumerate(stroke_counts) for _ in range(strokes)]
        segments = []
        for image, stroke in zip(owners, numbers, strict=True):
            points, brush = self._walk(iter(stroke), height, width)
            down, right = ((side - 1) * flip for side, flip in zip(size, flips[image], strict=True))
            points = [(abs(right - x), abs(down - y)) for x, y in points]  # |side - 1 - x| mirrors, |0 - x| keeps
            brush = min(brush * widen, 2 * (height + width))  # wide enough for everything
            segments += [Segment(image, *start, *end, brush) for start, end in pairwise(points)]
        return segments

    def _walk(self, numbers: Iterator[float], height: int, width: int) -> tuple[list[tuple[int, int]], int]:
        """Turn uniform numbers into a stroke: its corners (x, y) and the width of its brush."""
        widths = self.brush or (max(1, 12 * min(height, width) // 256), max(1, 39 * min(height, width) // 256))
        segments, brush = _pick(next(numbers), *self.vertices), _pick(next(numbers), *widths)
        mean, spread = math.radians(self.angle[0]), math.radians(self.angle[1])
        low, high = mean - next(numbers) * spread, mean + next(numbers) * spread
        y, x = divmod(_pick(next(numbers), 0, height * width - 1), width)
        points = [(x, y)]
        reach = self.length * math.hypot(height, width)
        reach_of = NormalDist(reach, max(reach // 2, 1e-6)).inv_cdf
        for segment in range(segments):
            angle = low + next(numbers) * (high - low)
            step = min(max(reach_of(max(next(numbers), 1e-12)), 0.0), 2 * reach)
            rise = math.sin(angle) if segment % 2 else -math.sin(angle)
            x = int(min(max(x + step * math.cos(angle), 0), width - 1))
            y = int(min(max(y + step * rise, 0), height - 1))
            points.append((x, y))
        return points, brush


def _pixel_range(ratio: tuple[float, ...], pixels: int) -> tuple[int, int]:
    """Return the fewest and the most hole pixels whose ratio is in the range."""
    low, high = (math.ceil(Fraction(str(end)) * pixels) for end in ratio)  # 0.07 * 100 is more than 7 in floats
    if max(1, low) >= high:
        raise ValueError(
            f"hole_ratio must leave room for a whole number of pixels, got {ratio} of {pixels} pixels; widen it"
        )
    return max(1, low), high - 1


def _paint(canvas: Tensor, segments: list[Segment], missing: list[int]) -> None:
    """Paint segments in their order on a canvas (B, H, W), and stop in each image when no pixel is missing any more."""
    b, height, width = canvas.shape
    table = np.array(segments, np.int64)  # (N, 6)
    spans = _find_spans(table[:, 1:], height, width)
    capsule, row, first, last = spans
    image = table[capsule, 0]
    new = _fill_spans(image * height + row, first, last, b * height, width).reshape(b, height, width)
    new &= canvas.numpy() == 0
    for number, count in enumerate(np.count_nonzero(new, (1, 2)).tolist()):
        if count > missing[number]:
            _keep_first(new[number], [part[image == number] for part in spans], segments, missing[number])
        missing[number] -= min(count, missing[number])
    canvas |= torch.from_numpy(new)


def _keep_first(new: np.ndarray, spans: list[np.ndarray], segments: list[Segment], kept_count: int) -> None:
    """Keep as many of the new pixels (H, W) as asked for: the first segments', of the last one from its start."""
    width = new.shape[1]
    painter = np.zeros(new.size, np.int64)  # the first segment that covers each pixel
    capsule, row, first, last = spans
    for begin, end, owner in np.stack([row * width + first, row * width + last + 1, capsule], 1)[::-1].tolist():
        painter[begin:end] = owner
    places = new.ravel().nonzero()[0]
    painter = painter[places]
    before = np.searchsorted(np.bincount(painter).cumsum(), kept_count)  # segments that are painted whole
    kept = places[painter < before]
    edge = places[painter == before]
    rows, columns = np.divmod(edge, width)
    distance = (rows - segments[before].y0) ** 2 + (columns - segments[before].x0) ** 2
    nearest = distance.argsort(kind="stable")[: kept_count - len(kept)]  # ties in reading order
    new[:] = False
    new.ravel()[kept] = True
    new.ravel()[edge[nearest]] = True


def _pick(number: float, low: int, high: int) -> int:
    """Turn a uniform number in [0, 1) into a whole number from low to high."""
    return low + int(number * (high - low + 1))


def _draw_by_kornia(segments: list[Segment], batch_size: int, height: int, width: int, device: Device = None) -> Tensor:
    """Draw each image's segments as convex polygons of kornia, uint8 (B, height, width), {0, 1}."""
    canvas = torch.zeros(batch_size, height, width, dtype=torch.uint8, device=device)
    table = torch.tensor(segments, dtype=torch.float32, device=canvas.device)  # (N, 6)
    along = table[:, 3:5] - table[:, 1:3]
    fan = torch.linspace(-math.pi / 2, math.pi / 2, _CORNERS, device=canvas.device)
    turns = torch.atan2(along[:, 1], along[:, 0])[:, None] + fan  # (N, corners)
    reach = table[:, 5, None, None] / 2 * torch.stack([turns.cos(), turns.sin()], -1)
    polygons = torch.cat([table[:, None, 3:5] + reach, table[:, None, 1:3] - reach], 1)  # around the end, the start
    for image in table[:, 0].long().unique().tolist():
        own = polygons[table[:, 0] == image]
        blank = canvas.new_zeros((len(own), 1, height, width), dtype=torch.float32)
        canvas[image] = draw_convex_polygon(blank, own, blank.new_ones(len(own), 1)).amax((0, 1)) > 0
    return canvas


def _find_spans(capsules: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Return capsule, row, first and last column of each run of pixels within half a thickness of a line, int64 (N,).

    A row of a capsule (start x and y, end x and y, thickness in whole pixels) is one run: what it shares with the discs
    around start and end and the band between. All numbers are whole, with roots that IEEE 754 rounds alike everywhere.
    """
    reach = capsules[:, 4] // 2
    top = np.maximum(np.minimum(capsules[:, 1], capsules[:, 3]) - reach, 0)
    bottom = np.minimum(np.maximum(capsules[:, 1], capsules[:, 3]) + reach, height - 1)
    rows = np.maximum(bottom - top + 1, 0)
    capsule = np.arange(len(capsules)).repeat(rows)
    ends = rows.cumsum()
    row = np.arange(len(capsule)) + (top - ends + rows)[capsule]
    x0, y0, x1, y1, thickness = capsules.T[:, capsule]
    square = thickness * thickness
    first, last = _disc(x0, row - y0, square)
    for some_first, some_last in (_disc(x1, row - y1, square), _band(x0, row - y0, x1 - x0, y1 - y0, square)):
        np.minimum(first, some_first, out=first)
        np.maximum(last, some_last, out=last)
    np.maximum(first, 0, out=first)
    np.minimum(last, width - 1, out=last)
    inside = first <= last
    return capsule[inside], row[inside], first[inside], last[inside]


def _fill_spans(row: np.ndarray, first: np.ndarray, last: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the union of runs of pixels, bool (height, width)."""
    change = np.zeros(height * (width + 1), np.int32)  # how many runs begin at each pixel, less those that have ended
    np.add.at(change, row * (width + 1) + first, np.int32(1))
    np.subtract.at(change, row * (width + 1) + last + 1, np.int32(1))
    covers = change.cumsum(dtype=np.int32)  # from row to row: all runs have ended before a row does
    return covers.reshape(height, width + 1)[:, :width] > 0


def _disc(x: np.ndarray, y: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns p with 4 (p - x)² + 4 y² <= square; an empty run ends before it starts."""
    rest = square - 4 * y * y
    half = np.where(rest < 0, -_NOWHERE, _root(np.maximum(rest, 0)) // 2)
    return x - half, x + half


def _band(
    x: np.ndarray, q: np.ndarray, u: np.ndarray, v: np.ndarray, square: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns x + p with 0 <= p u + q v <= u² + v², beside the line, and |p v - q u| <= across, near it."""
    length = u * u + v * v
    across = _root(square * length) // 2
    low_along, high_along = _divide(-q * v, length - q * v, u)
    low_across, high_across = _divide(q * u - across, q * u + across, v)
    low, high = np.maximum(low_along, low_across), np.minimum(high_along, high_across)
    empty = (low > high) | (length == 0)  # a dot is a disc alone
    return np.where(empty, _NOWHERE, x + low), np.where(empty, -_NOWHERE, x + high)


def _divide(low: np.ndarray, high: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole numbers p with low <= p factor <= high; for a factor of 0 all, if 0 lies between, or none."""
    flipped = factor < 0
    low, high = np.where(flipped, -high, low), np.where(flipped, -low, high)
    divisor = np.where(factor == 0, 1, np.abs(factor))
    free = np.where((low <= 0) & (high >= 0), _NOWHERE, -_NOWHERE)
    first, last = -(-low // divisor), high // divisor
    return np.where(factor == 0, -free, first), np.where(factor == 0, free, last)


def _root(square: np.ndarray) -> np.ndarray:
    """Return the square root, rounded down; exact below 2^52: lines of 10,000 pixels and a thickness of 6,000."""
    return np.sqrt(square.astype(np.float64)).astype(np.int64)
