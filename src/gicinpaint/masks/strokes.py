"""Free-form holes: strokes of a brush."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import torch
from kornia.image import draw_convex_polygon
from torch import Tensor

from gicinpaint.compositing import Box
from gicinpaint.masks.sampler import Device, check_room, device_of, draw_integers, read_pair, read_range
from gicinpaint.masks.window import hole_window

_CAP_EDGES = 6  # of the polygon that rounds an end of a stroke; it stays within 4 % of the circle's radius
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

    @property
    def reach(self) -> int:
        """How far the brush extends around the line, rounded up."""
        return (self.brush + 1) // 2

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the first pixel that the piece can touch; outside the image if negative."""
        return min(self.y0, self.y1) - self.reach, min(self.x0, self.x1) - self.reach


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
        self.share = None if share is None else tuple(share)
        if len(self.angle) != 2 or not self.angle[1] >= 0:
            raise ValueError(f"angle must be (mean, most by which it differs) in degrees, got {angle}; give both")
        if not 0 < length <= 1:
            raise ValueError(f"length must be in (0, 1], got {length}; give a fraction of the diagonal")
        if self.share is not None and not (len(self.share) == 2 and 0 <= self.share[0] < self.share[1] <= 1):
            raise ValueError(f"share must be (low, high) with 0 <= low < high <= 1, got {share}; use fractions, not %")

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
        canvas = torch.zeros(batch_size, height, width, dtype=torch.uint8, device=device or "cpu")
        flips = draw_integers(0, 1, (batch_size, 2), generator).tolist()
        if self.share is None:
            stroke_counts = draw_integers(*self.strokes, (batch_size,), generator).tolist()
            missing = [height * width] * batch_size
            _paint(canvas, self._draw_pieces(stroke_counts, flips, height, width, 1, generator), missing)
        else:
            missing = draw_integers(*_pixel_range(self.share, height * width), (batch_size,), generator).tolist()
            self._grow(canvas, missing, flips, generator)
        mask = canvas[:, None].float()
        return mask, hole_window(mask, self.box)

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
        - canvas: uint8 (B, H, W), {0, 1}
    """
    _, height, width = canvas.shape
    patches = _draw_patches(pieces, canvas.device)
    for piece, patch in zip(pieces, patches, strict=True):
        if missing[piece.image] == 0:
            continue
        top, left = piece.origin
        rows, columns = slice(max(top, 0), top + len(patch)), slice(max(left, 0), left + len(patch))
        target = canvas[piece.image, rows, columns]
        new = patch[max(-top, 0) : height - top, max(-left, 0) : width - left] > target
        painted = int(new.sum())
        if painted > missing[piece.image]:
            painted = missing[piece.image]
            new = _keep_nearest(new, piece.y0 - rows.start, piece.x0 - columns.start, painted)
        target |= new
        missing[piece.image] -= painted


def _draw_patches(pieces: list[Piece], device: torch.device) -> Tensor:
    """Draw each piece into a square of its own, as a polygon with round ends: uint8 (N, size, size)."""
    size = max(max(abs(p.x1 - p.x0), abs(p.y1 - p.y0)) + 2 * p.reach + 1 for p in pieces)
    ends = torch.tensor([(p.x0, p.y0, p.x1, p.y1) for p in pieces], dtype=torch.float32, device=device)
    offset = torch.tensor([p.origin[::-1] * 2 for p in pieces], dtype=torch.float32, device=device)
    radius = torch.tensor([p.brush / 2 for p in pieces], device=device)
    start, end = (ends - offset).unflatten(1, (2, 2)).unbind(1)  # (N, 2)
    along = end - start
    heading = torch.atan2(along[:, 1], along[:, 0])[:, None]
    fan = torch.linspace(-math.pi / 2, math.pi / 2, _CAP_EDGES + 1, device=device)
    angles = torch.cat([heading + fan, heading + math.pi + fan], 1)  # (N, corners)
    around = torch.stack([angles.cos(), angles.sin()], -1) * radius[:, None, None]
    corners = torch.stack([end, start], 1).repeat_interleave(_CAP_EDGES + 1, 1) + around
    patches = torch.zeros(len(pieces), 1, size, size, dtype=torch.uint8, device=device)
    return draw_convex_polygon(patches, corners, patches.new_ones(1))[:, 0]


def _keep_nearest(chosen: Tensor, row: int, column: int, kept_count: int) -> Tensor:
    """Keep as many of the chosen pixels as asked for, those nearest to a place; ties in reading order."""
    rows, columns = chosen.nonzero(as_tuple=True)
    distance = (rows - row) ** 2 + (columns - column) ** 2
    nearest = distance.argsort(stable=True)[:kept_count]
    kept = torch.zeros_like(chosen)
    kept[rows[nearest], columns[nearest]] = True
    return kept


def _pick(number: float, low: int, high: int) -> int:
    """Turn a uniform number in [0, 1) into a whole number from low to high."""
    return low + int(number * (high - low + 1))
