"""A batch in pieces whose gradients are added up, for batches that do not fit into memory, and losses by name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gicinpaint.data import Batch
from gicinpaint.models.compositing import Box


class Piece(NamedTuple):
    """Consecutive images of a batch.

    Attributes:
        batch: The images.
        images: Where they lie in the batch.
        share: Their share of the batch; losses are means over images, so shares of the pieces' losses add up to the
            batch's loss.
    """

    batch: Batch
    images: slice
    share: float


def split(batch: Batch, count: int) -> list[Piece]:
    """Cut a batch into pieces of as equal size as possible.

    Args:
        batch: At least one image.
        count: Number of pieces; no more than there are images.
    """
    b = len(batch.image)
    edges = [b * piece // min(count, b) for piece in range(min(count, b) + 1)]
    pieces = []
    for images in map(slice, edges, edges[1:]):
        box = Box(batch.box.top[images], batch.box.left[images], batch.box.height, batch.box.width)
        share = (images.stop - images.start) / b
        pieces.append(Piece(Batch(batch.image[images], batch.mask[images], box), images, share))
    return pieces


def detached(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return losses without their graphs."""
    return {name: term.detach() for name, term in terms.items()}


def average(pieces: Sequence[Piece], terms: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the batch's losses from those of its pieces."""
    if len(terms) == 1:
        return terms[0]
    batch: dict[str, Tensor] = {}
    for piece, named in zip(pieces, terms, strict=True):
        for name, term in named.items():
            batch[name] = batch.get(name, torch.zeros_like(term)) + piece.share * term
    return batch
