"""A guided generator with the sketch of one image: the network that fills that image as a whole."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.inference.canvas import read_mask
from gicinpaint.models.gated import GatedGenerator
from gicinpaint.models.generator import Completion


class Sketched(nn.Module):
    """A guided generator that also sees one sketch, called as any generator.

    Args:
        generator: A `GatedGenerator` with guided=True.

    Attributes:
        sketch: Edges to follow in the hole, bool (H, W); what lies outside the hole has no effect. To be set.

    Raises:
        ValueError: If the generator is not guided.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        if not getattr(generator, "guided", False):
            raise ValueError(
                f"a sketch needs a guided generator, got {type(generator).__name__} without; train one with "
                "model=gated model.generator.guided=true, or leave the sketch out"
            )
        self.coarse_network, self.refinement_network = cast(GatedGenerator, generator).children()
        self._generator = (generator,)  # in a tuple, so that its parts are registered once
        self.sketch = torch.zeros(0, 0, dtype=torch.bool)

    def forward(
        self, masked: Tensor, mask: Tensor, return_offset: bool = False, source: Tensor | None = None
    ) -> Completion:
        """Return the completion of the image padded at the bottom and right; the sketch is continued by nothing."""
        (h, w), (height, width) = masked.shape[-2:], self.sketch.shape
        sketch = F.pad(self.sketch.to(masked), (0, w - width, 0, h - height))[None, None]
        completion: Completion = self._generator[0](masked, mask, return_offset, sketch, source)
        return completion


def read_sketch(sketch: Any, size: tuple[int, int], most_pixels: int) -> Tensor:
    """Return the edges of a sketch, bool (H, W).

    Args:
        sketch: As a mask for `read_mask`: white, true or 1 where an edge is.
        size: Height and width of its image.
        most_pixels: Most pixels of one pass.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If its size differs, its values are none of a mask, or the image takes more than one pass.
    """
    if size[0] * size[1] > most_pixels:
        raise ValueError(
            f"an image with a sketch must fit one pass, {most_pixels:,} pixels, got {size[1]}x{size[0]}; raise "
            "max_memory or make the image smaller"
        )
    try:
        return read_mask(sketch, size)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the sketch: {error}") from error
