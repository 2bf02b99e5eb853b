"""Images become regions, regions become passes of the networks, and passes are painted back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gicinpaint.inference.blending import Blend, blended
from gicinpaint.inference.canvas import Canvas, HoleColour, find_colour, read_canvas, read_mask
from gicinpaint.inference.coarse_to_fine import complete, fill_reduced, mirrored
from gicinpaint.inference.regions import Method, Region, divide, padded_size


@dataclass
class FillTask:
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


def read_task(
    image: Any, mask: Any, hole_colour: HoleColour | None, hole_tolerance: int, most_pixels: int, stages: bool = False
) -> FillTask:
    """Return an image, ready to be filled.

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
        return FillTask(canvas, coarse, hole, Method.NOTHING, [])
    if bool(hole.all()):
        raise ValueError("the mask must leave known pixels, got a hole everywhere; was it inverted? 1 = hole")
    canvas.check_known(~hole)
    return FillTask(canvas, coarse, hole, *divide(hole, most_pixels))


@dataclass(frozen=True)
class Engine:
    """Fill images with a generator; regions of one padded size share a pass.

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

    def fill(self, tasks: Sequence[FillTask], blend: Blend) -> None:
        """Paint the holes of images."""
        total = sum(len(task.regions) for task in tasks)
        divided = next((str(t.method) for t in tasks if t.method in (Method.CROPS, Method.COARSE_TO_FINE)), None)
        with tqdm(total=total, desc=divided, unit="part", disable=not self.progress or divided is None) as bar:
            for group in self._groups(tasks):
                if group[0][1].reduced:
                    self._fill_reduced(*group[0], blend)
                else:
                    self._fill_group(group, blend)
                bar.update(len(group))

    def _groups(self, tasks: Sequence[FillTask]) -> Iterator[list[tuple[FillTask, Region]]]:
        """Yield regions that share a pass: of one padded size, at most `batch_size`, and no more than the memory."""
        waiting: dict[tuple[int, int], list[tuple[FillTask, Region]]] = {}
        for task, region in [(one, region) for one in tasks for region in one.regions]:
            if region.reduced:
                yield [(task, region)]
                continue
            height, width = padded_size(region.box.height, region.box.width)
            group = waiting.setdefault((height, width), [])
            group.append((task, region))
            if len(group) >= min(self.batch_size, max(1, self.most_pixels // (height * width))):
                yield waiting.pop((height, width))
        yield from waiting.values()

    def _fill_group(self, group: list[tuple[FillTask, Region]], blend: Blend) -> None:
        images = torch.cat([mirrored(task.canvas.colours(region.box)) for task, region in group])
        holes = torch.cat([mirrored(task.hole[region.box.slices].float()[None, None]) for task, region in group])
        attends = any(getattr(network, "attention", None) is not None for network in self.generator.children())
        offset = attends and any(task.coarse is not None and task.method is Method.WHOLE for task, _ in group)
        completion = complete(self.generator, images.to(self.device), holes.to(self.device), return_offset=offset)
        for i, (task, region) in enumerate(group):
            _paint(task, region, completion.coarse[i], completion.prediction[i], blend)
            if completion.offset is not None and task.method is Method.WHOLE:
                task.offset = completion.offset[i].cpu()

    def _fill_reduced(self, task: FillTask, region: Region, blend: Blend) -> None:
        image = task.canvas.colours(region.box).to(self.device)
        hole = task.hole[region.box.slices].float()[None, None].to(self.device)
        coarse, prediction = fill_reduced(self.generator, image, hole, self.most_pixels, self.progress)
        _paint(task, region, coarse[0], prediction[0], blend)


def _paint(task: FillTask, region: Region, coarse: Tensor, prediction: Tensor, blend: Blend) -> None:
    box = region.box
    hole = task.hole[box.slices]
    own = torch.zeros_like(task.hole)
    own[region.own.slices] = True
    own = own[box.slices] & hole
    coarse, prediction = (x[:, : box.height, : box.width].float().cpu() for x in (coarse, prediction))
    task.canvas.paint(box, blended(prediction, task.canvas.colours(box)[0], hole, blend), own)
    if task.coarse is not None:
        task.coarse.paint(box, coarse, own)
