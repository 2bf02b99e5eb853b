"""Images become regions, regions become passes of the networks, at once or coarse to fine, and are painted back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.config.progress_bar import Bar
from gicinpaint.inference.blending import Blend, blended
from gicinpaint.inference.canvas import Canvas, HoleColour, find_colour, read_canvas, read_mask
from gicinpaint.inference.exact import ExactPass, boxes_of, complete, is_exact, mirrored, operations
from gicinpaint.inference.regions import Method, Region, divide, padded_size, tiles
from gicinpaint.masks.files import grown
from gicinpaint.models.compositing import composite, mask_out
from gicinpaint.models.windows import Rectangle

_OVERLAP = 64  # pixels over which neighbouring tiles are mixed
_LARGEST_TILE = 768
_CHEAPER = 0.7  # share of a pass's products below which computing around the holes is worth its overhead
_EXACT = 5  # times the pixels of a pass: those of an image of which parts are computed; its memory is mostly features
_LEAST_KNOWN = 0.05  # ratio of known pixels that a tile needs to be refined from


@dataclass
class FillTask:
    """An image on its way through; all masks are bool (H, W)."""

    canvas: Canvas  # painted as the regions are filled
    hole: Tensor
    method: Method
    regions: list[Region]
    coarse: Canvas | None = None  # a second canvas for the first stage's guess, if it is wanted
    source: Tensor | None = None  # where attention may copy from; None: from all known pixels
    sketch: Tensor | None = None  # edges to follow, (1, 1, H, W) of the padded size, {0, 1}
    offset: Tensor | None = None  # where attention copied from, once filled, if it is wanted and saw the whole image


@dataclass(frozen=True)
class Engine:
    """Fill images with a generator; regions of one padded size share a pass."""

    generator: nn.Module  # maps (masked, mask) to a `Completion`
    device: torch.device  # where it lies
    most_pixels: int  # of one pass
    batch_size: int = 1  # most regions of one pass
    progress: bool = True  # a bar shows the parts of images that are filled in parts

    def read(
        self,
        image: Any,
        mask: Any,
        *,
        hole_colour: HoleColour | None = None,
        hole_tolerance: int = 0,
        grow: int = 0,
        source: Any = None,
        sketch: Any = None,
        stages: bool = False,
    ) -> FillTask:
        """Return an image, ready to be filled; with `stages` the first stage's guess and the offset are kept too.

        The other arguments and the errors are those of `Inpainter`.
        """
        canvas = read_canvas(image)
        if mask is None and hole_colour is None:
            raise ValueError(
                "the hole must be given, got neither mask nor hole_colour; pass a mask that is 1 in the hole"
            )
        hole = torch.zeros(canvas.size, dtype=torch.bool)
        if mask is not None:
            hole |= read_mask(mask, canvas.size)
        if hole_colour is not None:
            hole |= find_colour(canvas, hole_colour, hole_tolerance)
        if grow:
            hole = torch.from_numpy(grown(hole.numpy(), grow))
        edges = None if sketch is None else self._read_sketch(sketch, canvas.size)
        coarse = read_canvas(image) if stages else None
        if not bool(hole.any()):
            return FillTask(canvas, hole, Method.NOTHING, [], coarse)
        if bool(hole.all()):
            raise ValueError("the mask must leave known pixels, got a hole everywhere; is it inverted? 1 is the hole")
        canvas.check_known(~hole)
        whole = Rectangle(0, 0, *canvas.size)
        plan = self.divide(hole) if edges is None else (Method.WHOLE, [Region(whole, whole, False)])
        task = FillTask(canvas, hole, *plan, coarse, sketch=edges)
        if source is not None:
            task.source = _read_source(source, task)
        return task

    def divide(self, hole: Tensor) -> tuple[Method, list[Region]]:
        """Return the regions in which a hole, bool (H, W), is filled, and what that way is called.

        The whole image's pass is computed around the holes alone where that is less work or all that the memory
        allows; without a generator whose parts can be computed, and beyond that, see `gicinpaint.inference.regions`.
        """
        method, regions = divide(hole, self.most_pixels)
        (h, w), generator = hole.shape, self.generator
        if method is Method.COARSE_TO_FINE or h * w > _EXACT * self.most_pixels or not is_exact(generator):
            return method, regions
        size, boxes = padded_size(h, w), boxes_of(hole)
        if method is Method.WHOLE:
            whole = operations(generator, size, [Rectangle(0, 0, *size)])
            if self.batch_size > 1 or operations(generator, size, boxes) > _CHEAPER * whole:
                return method, regions
        return Method.EXACT, [Region(box.grown(1, 1, h, w), box, False) for box in boxes]  # blending reads the edge

    def fill(self, tasks: Sequence[FillTask], blend: Blend) -> None:
        """Paint the holes of images; raise an `ArithmeticError` if the generator's values are not finite."""
        total = sum(len(task.regions) for task in tasks)
        large = [f"filling {task.method}" for task in tasks if task.hole.numel() > self.most_pixels and task.regions]
        with Bar(total=total, desc=large and large[0], unit="part", disable=not self.progress or not large) as bar:
            for task in tasks:
                if task.method is Method.EXACT:
                    self._fill_exactly(task, blend, bar)
            for group in self._groups([task for task in tasks if task.method is not Method.EXACT]):
                task, region = group[0]
                if region.reduced:
                    image = task.canvas.colours(region.box).to(self.device)
                    hole = _plane(task.hole, region).to(self.device)
                    coarse, refined = fill_reduced(self.generator, image, hole, self.most_pixels, self.progress)
                    _paint(task, region, coarse[0], refined[0], blend)
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
        tasks = [task for task, _ in group]

        def batch(masks: Sequence[Tensor]) -> Tensor:
            planes = [mirrored(_plane(mask, region)) for mask, (_, region) in zip(masks, group, strict=True)]
            return torch.cat(planes).to(self.device)

        images = torch.cat([mirrored(task.canvas.colours(region.box)) for task, region in group]).to(self.device)
        holes, source, sketch = batch([task.hole for task in tasks]), None, None
        if any(task.source is not None for task in tasks):
            source = batch([~task.hole if task.source is None else task.source for task in tasks])
        if any(task.sketch is not None for task in tasks):
            nothing = torch.zeros_like(holes[:1], device="cpu")
            sketch = torch.cat([nothing if task.sketch is None else task.sketch for task in tasks]).to(self.device)
        offset = self._attends and any(task.coarse is not None and task.method is Method.WHOLE for task in tasks)
        completion = complete(self.generator, images, holes, offset, source, sketch)
        for i, (task, region) in enumerate(group):
            _paint(task, region, completion.coarse[i], completion.prediction[i], blend)
            if completion.offset is not None and task.method is Method.WHOLE:
                task.offset = completion.offset[i].cpu()

    @torch.no_grad()
    def _fill_exactly(self, task: FillTask, blend: Blend, bar: Any) -> None:
        hole = mirrored(task.hole.float()[None, None])
        boxes, mask = boxes_of(hole[0, 0] > 0), hole.to(self.device)
        image = mirrored(task.canvas.colours(Rectangle(0, 0, *task.hole.shape))).to(self.device)
        source = None if task.source is None else mirrored(task.source.float()[None, None]).to(self.device)
        offset = self._attends and task.coarse is not None
        exact = ExactPass(self.generator, mask_out(image, mask), mask, boxes, offset, source)
        del image  # the pass has its own
        for region in task.regions:
            completion = exact.fill(region.box)
            _paint(task, region, completion.coarse[0], completion.prediction[0], blend)
            bar.update()
        task.offset = None if exact.offset is None else exact.offset[0].cpu()

    @property
    def _attends(self) -> bool:
        return any(getattr(network, "attention", None) is not None for network in self.generator.children())

    def _read_sketch(self, sketch: Any, size: tuple[int, int]) -> Tensor:
        """Return the edges of a sketch, continued by nothing up to the padded size."""
        if not getattr(self.generator, "guided", False):
            raise ValueError(
                f"a sketch needs a guided generator, got {type(self.generator).__name__} without; train one with "
                "model=gated model.generator.guided=true, or leave the sketch out"
            )
        if size[0] * size[1] > self.most_pixels:
            raise ValueError(
                f"an image with a sketch must fit one pass, {self.most_pixels:,} pixels, got {size[1]}x{size[0]}; "
                "raise max_memory or make the image smaller"
            )
        edges = read_mask(sketch, size, "sketch").float()[None, None]
        height, width = padded_size(*size)
        return F.pad(edges, (0, width - size[1], 0, height - size[0]))


def _read_source(source: Any, task: FillTask) -> Tensor | None:
    """Return where an image may be copied from, or None if that is everywhere."""
    allowed = read_mask(source, task.canvas.size, "source") & ~task.hole
    if not allowed.any():
        raise ValueError("source must hold known pixels to copy from, got none; pass 1 where copying is allowed")
    crops = task.method not in (Method.WHOLE, Method.EXACT)
    if crops and any(region.reduced or not allowed[region.box.slices].any() for region in task.regions):
        raise ValueError("an image that is filled in parts must have its source in each; raise max_memory")
    return None if allowed.equal(~task.hole) else allowed


def _plane(mask: Tensor, region: Region) -> Tensor:
    return mask[region.box.slices].float()[None, None]


def _paint(task: FillTask, region: Region, coarse: Tensor, prediction: Tensor, blend: Blend) -> None:
    box, hole = region.box, task.hole[region.box.slices]
    own = torch.zeros_like(task.hole)
    own[region.own.slices] = True
    own = own[box.slices] & hole
    coarse, prediction = (x[:, : box.height, : box.width].float().cpu() for x in (coarse, prediction))
    if not prediction[:, own].isfinite().all():
        raise ArithmeticError("the generator filled the hole with NaN or infinity; its weights or settings are damaged")
    task.canvas.paint(box, blended(prediction, task.canvas.colours(box)[0], hole, blend), own)
    if task.coarse is not None:
        task.coarse.paint(box, coarse, own)


def fill_reduced(
    generator: nn.Module, image: Tensor, hole: Tensor, pixels: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """Return the enlarged filling of the reduced image, and its refinement at full size, by passes of so many `pixels`.

    The enlarged filling stays where a tile has hardly any known pixel to copy from, and everywhere if the generator has
    no second stage.

    Shape:
        - image: (1, 3, H, W), [-1, 1]; what lies in the hole does not matter
        - hole: (1, 1, H, W), {0, 1}, 1 = hole
        - returned: both (1, 3, H, W), [-1, 1]
    """
    h, w = image.shape[-2:]
    factor = math.sqrt(0.9 * pixels / (h * w))
    height, width = max(8, int(h * factor)), max(8, int(w * factor))
    known = _resize(1 - hole, height, width)
    small = _resize(image * (1 - hole), height, width) / known.clamp_min(1e-3)  # the mean of the known pixels alone
    small, small_hole = small.clamp(-1, 1), (known < 0.5).float()
    filled = complete(generator, small, small_hole).prediction
    enlarged = _resize(composite(small, filled, small_hole), h, w)
    if not hasattr(generator, "refinement_network"):
        return enlarged, enlarged
    return enlarged, _refined(generator, image, hole, enlarged, pixels, progress)


@torch.no_grad()
def _refined(generator: Any, image: Tensor, hole: Tensor, enlarged: Tensor, pixels: int, progress: bool) -> Tensor:
    h, w = image.shape[-2:]
    size = min(_LARGEST_TILE, int(math.sqrt(pixels)) // 8 * 8)
    total, weights = torch.zeros_like(image), torch.zeros_like(hole)
    parts = [(..., *box.slices) for box in tiles(Rectangle(0, 0, h, w), size, _OVERLAP)]
    parts = [part for part in parts if bool(hole[part].any())]
    for part in Bar(parts, desc="refining", unit="tile", disable=not progress, leave=False):
        mask, guess = hole[part], enlarged[part]
        if 1 - mask.mean() >= _LEAST_KNOWN:
            padded = mirrored(mask)
            stage_input = composite(mirrored(image[part] * (1 - mask)), mirrored(guess), padded)
            guess = generator.refinement_network(stage_input, padded)[0][..., : guess.shape[-2], : guess.shape[-1]]
        rows, columns = (_ramp(side, length).to(image.device) for side, length in zip(part[1:], (h, w), strict=True))
        ramp = rows[:, None] * columns
        total[part] += guess * ramp
        weights[part] += ramp
    return torch.where(weights > 0, total / weights.clamp_min(1e-6), enlarged)


def _ramp(side: slice, length: int) -> Tensor:
    """Return weights along a tile's side that fall to its ends, but not where an end is the image's own."""
    place = torch.arange(side.stop - side.start, dtype=torch.float32) + 1
    rising = (place / _OVERLAP).clamp(max=1)
    first, last = (rising if end else torch.ones_like(rising) for end in (side.start > 0, side.stop < length))
    return torch.minimum(first, last.flip(0))


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    smaller = height < image.shape[-2]
    return F.interpolate(image, size=(height, width), mode="bilinear", antialias=smaller, align_corners=False)
