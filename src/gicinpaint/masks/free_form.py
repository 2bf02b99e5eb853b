"""Free-form holes: strokes of a brush, drawn with whole numbers, so the same pixels on every machine."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gicinpaint.masks.sampler import (
    Augment,
    Device,
    check_room,
    device_of,
    draw_integers,
    hole_window,
    read_hole_ratio,
    read_pair,
    read_range,
)
from gicinpaint.masks.strokes import Segment, Spans, draw_by_kornia, fill_spans, find_spans
from gicinpaint.models.compositing import Box

Drawing = Literal["spans", "kornia"]

_STROKES_PER_ROUND = 3  # while a mask grows to its ratio
_ROUNDS_PER_BRUSH = 8  # then the brush doubles, so that every ratio is reached however thin the brush


class FreeFormMask:
    """Holes that look painted: broken lines of random length, angle and width, with round ends.

    Args:
        box: Height and width of the window for the local critic; it is put where most of the hole is.
        strokes: Smallest and largest number of strokes; not used with a hole ratio.
        vertices: Smallest and largest number of straight segments of a stroke.
        brush: Smallest and largest width of the brush in pixels. None: 12 to 39 in 256, relative to the shorter side.
        angle: Mean angle between a segment and the horizontal, and the most by which it differs, in degrees. Pieces go
            up and down in turn.
        length: Mean length of a segment, as a fraction of the image's diagonal.
        hole_ratio: Smallest hole ratio (included) and largest (excluded), e.g. (0.1, 0.2); every number of pixels
            between them is equally likely. Strokes are added until that number is reached, and the last one ends there,
            so the ratio is exact. None leaves the ratio to the strokes.
        augment: Changes what was drawn, such as `MaskAugment`; None keeps it.
        drawing: "spans": our whole numbers, the same pixels on every machine; "kornia": polygons on the masks' device,
            which differ in pixels on an edge, and know no hole ratio.

    Raises:
        TypeError: If a count is not whole.
        ValueError: If a setting is out of range; when called, if the box does not fit the image or no number of
            pixels has such a ratio.

    Source:
        Yu et al. 2019, "Free-Form Image Inpainting with Gated Convolution", algorithm 1, with the constants of the
        code released with it. Differs from that code: the random flips take effect, a height that differs
        from the width is respected, and hole ratios can be asked for.

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
        if self.hole_ratio is None:
            counts = draw_integers(*self.strokes, (batch_size,), generator).tolist()
            segments = self._draw_segments(counts, flips, (height, width), 1, generator)
            if self.drawing == "kornia":
                canvas = draw_by_kornia(segments, batch_size, height, width, device)
            else:
                _paint(canvas, segments, [height * width] * batch_size)
        else:
            missing = draw_integers(*_pixel_range(self.hole_ratio, height * width), (batch_size,), generator).tolist()
            rounds = 0
            while any(missing):
                counts = [_STROKES_PER_ROUND if pixels else 0 for pixels in missing]
                widen = 2 ** min(rounds // _ROUNDS_PER_BRUSH, 16)
                _paint(canvas, self._draw_segments(counts, flips, (height, width), widen, generator), missing)
                rounds += 1
        box = hole_window(canvas[:, None], self.box)
        drawn = canvas[:, None].to(device or "cpu").float(), Box(box.top.to(device), box.left.to(device), *self.box)
        return drawn if self.augment is None else self.augment(*drawn, generator)

    def _draw_segments(
        self,
        stroke_counts: list[int],
        flips: list[list[int]],
        size: tuple[int, int],
        widen: int,
        generator: torch.Generator | None,
    ) -> list[Segment]:
        """Draw as many strokes per image as asked for, as straight segments in painting order."""
        height, width = size
        shape = (sum(stroke_counts), 5 + 2 * self.vertices[1])  # the numbers that a stroke needs at most
        numbers = torch.rand(shape, dtype=torch.float64, generator=generator, device=device_of(generator)).tolist()
        owners = [image for image, strokes in enumerate(stroke_counts) for _ in range(strokes)]
        segments = []
        for image, stroke in zip(owners, numbers, strict=True):
            points, brush = self._walk(iter(stroke), height, width)
            if flips[image][0]:
                points = [(x, height - 1 - y) for x, y in points]
            if flips[image][1]:
                points = [(width - 1 - x, y) for x, y in points]
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
    fewest, most = max(1, low), high - 1
    if fewest > most:
        raise ValueError(
            f"hole_ratio must leave room for a whole number of pixels, got {ratio} of {pixels} pixels; widen it"
        )
    return fewest, most


def _paint(canvas: Tensor, segments: list[Segment], missing: list[int]) -> None:
    """Paint segments in their order on a canvas (B, H, W), and stop in each image when no pixel is missing any more."""
    b, height, width = canvas.shape
    table = np.array(segments, np.int64)  # (N, 6)
    spans = find_spans(table[:, 1:], height, width)
    image = table[spans.capsule, 0]
    new = fill_spans(image * height + spans.row, spans.first, spans.last, b * height, width).reshape(b, height, width)
    new &= canvas.numpy() == 0
    for number, count in enumerate(np.count_nonzero(new, (1, 2)).tolist()):
        if count > missing[number]:
            _keep_first(new[number], Spans(*(part[image == number] for part in spans)), segments, missing[number])
        missing[number] -= min(count, missing[number])
    canvas |= torch.from_numpy(new)


def _keep_first(new: np.ndarray, spans: Spans, segments: list[Segment], kept_count: int) -> None:
    """Keep as many of the new pixels (H, W) as asked for: the first segments', of the last one from its start."""
    width = new.shape[1]
    painter = np.zeros(new.size, np.int64)  # the first segment that covers each pixel
    begin, end = spans.row * width + spans.first, spans.row * width + spans.last + 1
    for run in zip(begin[::-1].tolist(), end[::-1].tolist(), spans.capsule[::-1].tolist(), strict=True):
        painter[run[0] : run[1]] = run[2]
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
