"""Filling at the cost of the hole: what a pass over the whole image gives there, from no more than it depends on.

The coarse network, the dilated branch and the decoder are computed around each hole, in the receptive field of what
comes after them. Attention copies from the whole image, so its encoder runs over all of it, tile by tile; its queries
are those around the holes.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.attention.layer import resize_nearest
from gicinpaint.inference.regions import groups, merged, padded_size, tight
from gicinpaint.models.compositing import mask_out
from gicinpaint.models.gated import GatedGenerator
from gicinpaint.models.generator import CoarseGenerator, CoarseNetwork, Completion, Generator, RefinementNetwork, closed
from gicinpaint.models.harmonic_fill import fill_harmonically
from gicinpaint.models.windows import Rectangle, compute, steps

_BOX = 1024  # pixels: what is larger is computed in parts, so that the memory of a hole is bounded
_TILE = 512  # pixels: the same for the encoder of the whole image, whose margins are small
_FEATURE = 4  # pixels per cell of the features
_MARGIN = 80  # pixels: boxes are joined where that saves work, each counted with such a margin
_SCORE = 2.0  # a score of the attention takes as long as so many times its products, measured


def boxes_of(hole: Tensor) -> list[Rectangle]:
    """Return rectangles that hold the whole hole, bool (H, W), and are each filled by themselves."""

    def saves(one: Rectangle, other: Rectangle) -> bool:
        return _work(one.joined(other)) <= _work(one) + _work(other)

    def halved(box: Rectangle) -> list[Rectangle]:
        """Halve the sides of a box while that saves work: a diagonal scratch fills little of it."""
        halves = [part for part in _split(box, -(-max(box.height, box.width) // 2)) if bool(hole[part.slices].any())]
        halves = merged([tight(hole, part) for part in halves], saves)
        if sum(map(_work, halves)) >= _work(box):
            return [box]
        return [part for half in halves for part in halved(half)]

    boxes = merged([part for box in merged(groups(hole), saves) for part in halved(box)], saves)
    parts = [part for box in boxes for part in _split(box, _BOX)]
    return [part for part in parts if bool(hole[part.slices].any())]


def _work(box: Rectangle) -> int:
    return (box.height + 2 * _MARGIN) * (box.width + 2 * _MARGIN)


def is_exact(generator: nn.Module) -> bool:
    """Return whether a generator is one whose parts can be computed."""
    stages = dict(generator.named_children())
    known = type(generator) in (Generator, GatedGenerator, CoarseGenerator)
    return known and all(isinstance(stage, CoarseNetwork | RefinementNetwork) for stage in stages.values())


def operations(generator: nn.Module, size: tuple[int, int], boxes: list[Rectangle]) -> float:
    """Return about how many products filling boxes of an image takes; with one box for all of it, those of a pass.

    `is_exact` must hold for the generator; `size` is the image's height and width, multiples of 8.
    """
    whole, total = Rectangle(0, 0, size[0] // _FEATURE, size[1] // _FEATURE), 0.0
    coarse, refinement = _stages(generator)

    def add(layers: list[nn.Module], size: tuple[int, int], box: Rectangle) -> Rectangle:
        nonlocal total
        walk = steps(layers, size, box)
        total += sum(step.operations for step in walk)
        return walk[0].needed

    for box in boxes:
        add([*coarse.encoder, *coarse.dilated, *coarse.decoder], size, box)
        if refinement is not None:
            features = add([*refinement.decoder], whole[2:], box)
            add([*refinement.dilated_encoder, *refinement.dilated], size, features)
            if refinement.attention is not None:
                attended, rate = add([*refinement.attended], whole[2:], features), refinement.attention.rate
                scores = attended.area / rate**2 * whole.area / rate**2
                channels = refinement.decoder.merge.in_channels // 2
                total += _SCORE * scores * channels * (1 + rate**2)
    if refinement is not None and refinement.attention is not None:
        add([*refinement.attention_encoder], size, whole)
    return total


class ExactPass:
    """A pass over one image, of which parts are computed.

    Args:
        generator: A generator for which `is_exact` holds.
        masked: (1, 3, H, W), [-1, 1], the hole 0; H and W multiples of 8.
        mask: (1, 1, H, W), {0, 1}, 1 = hole.
        holes: Rectangles that hold the whole hole.
        return_offset: Whether `offset` is wanted: as in `Completion`; cells not computed hold their own place.
        source: Where attention may copy from, like the mask; a ValueError without attention.
    """

    def __init__(
        self,
        generator: nn.Module,
        masked: Tensor,
        mask: Tensor,
        holes: list[Rectangle],
        return_offset: bool = False,
        source: Tensor | None = None,
    ) -> None:
        self.coarse_network, refinement = _stages(generator)
        self.refinement: Any = refinement
        if source is not None and getattr(self.refinement, "attention", None) is None:
            raise ValueError("source needs an attention layer, got none; build a Generator with attention")
        (h, w), self.mask = masked.shape[-2:], mask
        self.size, self.quarter = (h, w), (h // _FEATURE, w // _FEATURE)
        self.guided = getattr(generator, "guided", False)
        image = fill_harmonically(masked, mask) if self.coarse_network.residual else masked
        self.offset: Tensor | None = None
        if self.refinement is None:
            self.image = image
            return
        self.completed = masked.clone()
        for hole in holes:
            place = (..., *hole.slices)
            self.completed[place] = masked[place] + self._coarse(image, hole) * mask[place]
        if self.refinement.attention is None:
            return
        self.features = self._attention_features()
        self.small_mask = resize_nearest(mask if source is None else closed(mask, source, masked), self.quarter)
        if return_offset:
            grid = [torch.arange(n // self.refinement.attention.rate) for n in self.quarter]
            self.offset = torch.stack(torch.meshgrid(*grid, indexing="ij"))[None].to(mask.device)

    def fill(self, box: Rectangle) -> Completion:
        """Return both stages' results in a box, (1, 3, box.height, box.width); the first one's in its hole only."""
        if self.refinement is None:
            return Completion(self._coarse(self.image, box), None, None)
        coarse = self.completed[..., *box.slices]
        output = compute([*self.refinement.decoder], self._branches, self.quarter, box)
        return Completion(coarse, F.hardtanh(coarse + output) if self.refinement.residual else output, None)

    def _coarse(self, image: Tensor, box: Rectangle) -> Tensor:
        network = self.coarse_network

        def planes(part: Rectangle) -> Tensor:
            mask = self.mask[..., *part.slices]
            return network.planes(image[..., *part.slices], mask, *[torch.zeros_like(mask)] * self.guided)

        output = compute([*network.encoder, *network.dilated, *network.decoder], planes, self.size, box)
        return F.hardtanh(image[..., *box.slices] + output) if network.residual else output

    def _planes(self, part: Rectangle) -> Tensor:
        return self.refinement.planes(self.completed[..., *part.slices], self.mask[..., *part.slices])

    def _attention_features(self) -> Tensor:
        layers, channels = [*self.refinement.attention_encoder], self.refinement.decoder.merge.in_channels // 2
        features = self.completed.new_empty(1, channels, *self.quarter)
        for tile in _split(Rectangle(0, 0, *self.quarter), _TILE // _FEATURE):
            features[..., *tile.slices] = compute(layers, self._planes, self.size, tile)
        return features

    def _branches(self, part: Rectangle) -> Tensor:
        refinement = self.refinement
        features = compute([*refinement.dilated_encoder, *refinement.dilated], self._planes, self.size, part)
        if refinement.attention is None:
            return features
        attended = compute([*refinement.attended], self._attended, self.quarter, part)
        return torch.cat([features, attended], dim=1)

    def _attended(self, part: Rectangle) -> Tensor:
        attention = self.refinement.attention
        rate = attention.rate
        rows = range(part.top // rate, -(-part.bottom // rate))
        columns = range(part.left // rate, -(-part.right // rate))
        wanted = self.offset is not None
        result = attention(self.features, mask=self.small_mask, return_offset=wanted, window=(rows, columns))
        if self.offset is not None:
            result, offset = result
            self.offset[..., rows.start : rows.stop, columns.start : columns.stop] = offset
        top, left = part.top - rate * rows.start, part.left - rate * columns.start
        return result[..., top : top + part.height, left : left + part.width]


@torch.no_grad()
def complete(
    generator: nn.Module,
    image: Tensor,
    hole: Tensor,
    return_offset: bool = False,
    source: Tensor | None = None,
    sketch: Tensor | None = None,
) -> Completion:
    """Return both stages' outputs, of the image's size; the offset's grid is that of the padded image.

    Shape:
        - image: (B, 3, H, W), [-1, 1]; what lies in the hole does not matter
        - hole, source, sketch: (B, 1, H, W), {0, 1}, as for `GatedGenerator`
    """
    h, w = image.shape[-2:]
    mask = mirrored(hole)
    given = {name: mirrored(x) for name, x in (("source", source), ("sketch", sketch)) if x is not None}
    completion = generator(mask_out(mirrored(image), mask), mask, return_offset=return_offset, **given)
    refined = None if completion.refined is None else completion.refined[..., :h, :w]
    return Completion(completion.coarse[..., :h, :w], refined, completion.offset)


def mirrored(image: Tensor) -> Tensor:
    """Return images (..., H, W) continued by mirroring at the bottom and right up to the next multiple of 8."""
    h, w = image.shape[-2:]
    if padded_size(h, w) == (h, w):
        return image
    rows, columns = (torch.arange(size, device=image.device) for size in padded_size(h, w))
    rows, columns = (
        torch.minimum(index % (2 * size), 2 * size - 1 - index % (2 * size))  # 0 1 2 2 1 0 0 1 ...: the edge repeats
        for index, size in ((rows, h), (columns, w))
    )
    return image[..., rows[:, None], columns]


def _split(box: Rectangle, size: int) -> list[Rectangle]:
    """Return rectangles of at most `size` x `size` that cut a box evenly."""
    sides = []
    for start, length in ((box.top, box.height), (box.left, box.width)):
        count = -(-length // size)
        sides.append(list(pairwise(start + length * i // count for i in range(count + 1))))
    return [Rectangle(top, left, bottom, right) for top, bottom in sides[0] for left, right in sides[1]]


def _stages(generator: nn.Module) -> tuple[CoarseNetwork, RefinementNetwork | None]:
    return generator.coarse_network, getattr(generator, "refinement_network", None)  # type: ignore[return-value]
