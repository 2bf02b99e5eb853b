"""Pictures become regions, regions become passes of the networks, passes are painted back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gicinpaint.inference.blending import Blend, blended
from gicinpaint.inference.canvas import Canvas, read_canvas
from gicinpaint.inference.coarse_to_fine import fill_reduced
from gicinpaint.inference.hole import HoleColour, find_colour, read_mask
from gicinpaint.inference.padding import attends, complete, mirrored, padded_size
from gicinpaint.inference.regions import Method, Region, divide


@dataclass
class Picture:
    """An image on its way through.

    Attributes:
        canvas: The image, painted as its regions are filled.
        coarse: A second canvas for the first stage's guess, if that is wanted.
        hole: bool (H, W).
        method: How it is filled.
        regions: The parts that are filled one by one.
        offset: Where the attention copied from, once filled, if wanted and the image was one region.
    """

    canvas: Canvas
    coarse: Canvas | None
    hole: Tensor
    method: Method
    regions: list[Region]
    offset: Tensor | None = None


def read_picture(
    image: Any, mask: Any, hole_colour: HoleColour | None, hole_tolerance: int, most_pixels: int, stages: bool = False
) -> Picture:
    """Return a picture, ready to be filled.

    Args:
        image: As for `read_canvas`.
        mask: As for `read_mask`, or None.
        hole_colour: As for `find_colour`, or None.
        hole_tolerance: The same.
        most_pixels: Most pixels of one pass.
        stages: Whether the first stage's guess and the offset are wanted too.

    Raises:
        TypeError: If image or mask are of another kind.
        ValueError: If sizes or values are wrong, neither mask nor colour is given, or all is hole.
    """
    canvas = read_canvas(image)
    if mask is None and hole_colour is None:
        raise ValueError("the hole must be given, got neither mask nor hole_colour; pass a mask that is 1 in the hole")
    hole = torch.zeros(canvas.size, dtype=torch.bool)
    if mask is not None:
        hole |= read_mask(mask, canvas.size)
    if hole_colour is not None:
        hole |= find_colour(canvas, hole_colour, hole_tolerance)
    coarse = read_canvas(image) if stages else None
    if not bool(hole.any()):
        return Picture(canvas, coarse, hole, Method.NOTHING, [])
    if bool(hole.all()):
        raise ValueError("the mask must leave known pixels, got a hole everywhere; was it inverted? 1 = hole")
    canvas.check_known(~hole)
    method, regions = divide(hole, most_pixels)
    return Picture(canvas, coarse, hole, method, regions)


@dataclass(frozen=True)
class Engine:
    """Fill pictures with a generator; regions of one padded size share a pass.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        device: Where it lies.
        most_pixels: Most pixels of one pass.
        batch_size: Most regions of one pass.
        progress: Whether a bar shows the parts of images that are filled in parts.
    """

    generator: nn.Module
    device: torch.device
    most_pixels: int
    batch_size: int = 1
    progress: bool = True

    def fill(self, pictures: Sequence[Picture], blend: Blend) -> None:
        """Paint the holes of pictures."""
        total = sum(len(picture.regions) for picture in pictures)
        divided = next((str(p.method) for p in pictures if p.method in (Method.CROPS, Method.COARSE_TO_FINE)), None)
        with tqdm(total=total, desc=divided, unit="part", disable=not self.progress or divided is None) as bar:
            for group in self._groups(pictures):
                if group[0][1].reduced:
                    self._fill_reduced(*group[0], blend)
                else:
                    self._fill_group(group, blend)
                bar.update(len(group))

    def _groups(self, pictures: Sequence[Picture]) -> Iterator[list[tuple[Picture, Region]]]:
        """Yield regions that share a pass: of one padded size, at most `batch_size`, and no more than the memory."""
        waiting: dict[tuple[int, int], list[tuple[Picture, Region]]] = {}
        for picture in pictures:
            for region in picture.regions:
                if region.reduced:
                    yield [(picture, region)]
                    continue
                height, width = padded_size(region.box.height, region.box.width)
                group = waiting.setdefault((height, width), [])
                group.append((picture, region))
                if len(group) >= min(self.batch_size, max(1, self.most_pixels // (height * width))):
                    yield waiting.pop((height, width))
        yield from waiting.values()

    def _fill_group(self, group: list[tuple[Picture, Region]], blend: Blend) -> None:
        images = torch.cat([mirrored(picture.canvas.colours(region.box)) for picture, region in group])
        holes = torch.cat([mirrored(picture.hole[region.box.slices].float()[None, None]) for picture, region in group])
        offset = any(p.coarse is not None and p.method is Method.WHOLE for p, _ in group) and attends(self.generator)
        completion = complete(self.generator, images.to(self.device), holes.to(self.device), return_offset=offset)
        for i, (picture, region) in enumerate(group):
            _paint(picture, region, completion.coarse[i], completion.prediction[i], blend)
            if completion.offset is not None and picture.method is Method.WHOLE:
                picture.offset = completion.offset[i].cpu()

    def _fill_reduced(self, picture: Picture, region: Region, blend: Blend) -> None:
        image = picture.canvas.colours(region.box).to(self.device)
        hole = picture.hole[region.box.slices].float()[None, None].to(self.device)
        coarse, prediction = fill_reduced(self.generator, image, hole, self.most_pixels, self.progress)
        _paint(picture, region, coarse[0], prediction[0], blend)


def _paint(picture: Picture, region: Region, coarse: Tensor, prediction: Tensor, blend: Blend) -> None:
    box, inner = region.box, region.own
    hole = picture.hole[box.slices]
    own = torch.zeros_like(hole)
    own[inner.top - box.top : inner.bottom - box.top, inner.left - box.left : inner.right - box.left] = True
    own &= hole
    coarse, prediction = (x[:, : box.height, : box.width].float().cpu() for x in (coarse, prediction))
    picture.canvas.paint(box, blended(prediction, picture.canvas.colours(box)[0], hole, blend), own)
    if picture.coarse is not None:
        picture.coarse.paint(box, coarse, own)
