"""Gradient accumulation: a batch in micro-batches, and losses by name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gicinpaint.data import Batch
from gicinpaint.models.compositing import Box


class MicroBatch(NamedTuple):
    """Consecutive images of a batch.

    Attributes:
        batch: The images.
        images: Where they lie in the batch.
        share: Their share of the batch; losses are means over images, so the weighted losses of the micro-batches add
            up to the batch's loss.
    """

    batch: Batch
    images: slice
    share: float


def split(batch: Batch, count: int) -> list[MicroBatch]:
    """Split a batch into micro-batches of as equal size as possible.

    Args:
        batch: At least one image.
        count: Number of micro-batches; no more than there are images.
    """
    b = len(batch.image)
    edges = [b * part // min(count, b) for part in range(min(count, b) + 1)]
    micro_batches = []
    for images in map(slice, edges, edges[1:]):
        box = Box(batch.box.top[images], batch.box.left[images], batch.box.height, batch.box.width)
        share = (images.stop - images.start) / b
        micro_batches.append(MicroBatch(Batch(batch.image[images], batch.mask[images], box), images, share))
    return micro_batches


def detached(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return losses without their graphs."""
    return {name: term.detach() for name, term in terms.items()}


def average(micro_batches: Sequence[MicroBatch], terms: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the batch's losses from those of its micro-batches."""
    if len(terms) == 1:
        return terms[0]
    batch: dict[str, Tensor] = {}
    for micro_batch, named in zip(micro_batches, terms, strict=True):
        for name, term in named.items():
            batch[name] = batch.get(name, torch.zeros_like(term)) + micro_batch.share * term
    return batch
