"""Does attention copy from afar? Holes that could be filled exactly from elsewhere, and what is copied into them.

Each image repeats one view of a photograph on a lattice whose period, skew and phase are its own: a fixed offset, which
a convolution could learn, is of no use.
"""

import copy
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import Callback
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree
from torch import Tensor, nn

from gicinpaint.attention.attention_map import AttentionCall, overhear, relative_offset
from gicinpaint.attention.visualize import attention_of, draw_arrows, draw_sheet, to_image, to_tensor
from gicinpaint.data import RandomScaleCrop
from gicinpaint.data.transforms import lattice_places
from gicinpaint.masks import CenterMask
from gicinpaint.models import composite, mask_out

_ROWS = 16  # of the attention of an image that are looked at as a whole


class RepeatedImage(NamedTuple):
    """An image that repeats one view."""

    image: Tensor  # (3, H, W), [-1, 1]
    places: Tensor  # row and column within the view that each pixel shows, int64 (2, H, W)
    period: tuple[int, int]  # height and width of the view in pixels


def repeat_view(
    photograph: Image.Image, size: int, rng: torch.Generator, periods: tuple[int, int] = (17, 24)
) -> RepeatedImage:
    """Return an image, size x size, that repeats a view of a photograph.

    The view is cut at a random place and scale; its height and width lie between the `periods`, in pixels.
    """
    rows, columns = torch.randint(periods[0], periods[1] + 1, (2,), generator=rng).tolist()
    view = np.asarray(RandomScaleCrop(0.5, enlarge=True)(photograph, rows, columns, rng))
    top, left, shift = (int(torch.randint(side, (), generator=rng)) for side in (rows, columns, columns))
    places = lattice_places(size, size, (rows, columns), (top, left), shift)
    return RepeatedImage(to_tensor(Image.fromarray(view[places])), torch.from_numpy(np.stack(places)), (rows, columns))


def copy_distance(repeated: RepeatedImage, hole: Tensor) -> Tensor:
    """Return each hole pixel's distance to the nearest known pixel that shows the same place of the view.

    Shape:
        - hole: bool (H, W)
        - returned: float64 (pixels of the hole,), in pixels, row by row; infinite where no known pixel shows the place
    """
    h, w = hole.shape
    apart = 2 * (h + w)  # between two places of the view: more than any distance in the image
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    place = repeated.places[0] * repeated.period[1] + repeated.places[1]
    points = torch.stack([y, x, apart * place], -1).double()
    distance, _ = cKDTree(points[~hole].numpy()).query(points[hole].numpy())
    return torch.from_numpy(np.where(distance < apart, distance, np.inf))


def true_copies(repeated: RepeatedImage, cell: int, within: int) -> Tensor:
    """Return which cells of the attention's grid show the same place of the view: bool (cells, cells).

    A cell has `cell` x `cell` pixels; the middles of two may differ by `within` pixels along each axis.
    """
    middles = repeated.places[:, cell // 2 :: cell, cell // 2 :: cell].flatten(1)
    near = torch.ones(middles.shape[1], middles.shape[1], dtype=torch.bool)
    for place, period in zip(middles, repeated.period, strict=True):
        apart = (place[:, None] - place[None]).abs()
        near &= torch.minimum(apart, period - apart) <= within
    return near


class Shuffled(nn.Module):
    """An attention layer whose results change places at random within the hole."""

    def __init__(self, layer: nn.Module, rng: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        self.rng = rng

    def forward(self, foreground: Tensor, background: Any = None, mask: Any = None, return_offset: bool = False) -> Any:
        """Call the layer, then shuffle."""
        output, offset = self.layer(foreground, background, mask, return_offset=True)
        hole = nn.functional.adaptive_max_pool2d(mask, output.shape[-2:])[0, 0].flatten() > 0
        cells = hole.nonzero()[:, 0]
        flat = output.flatten(2).clone()
        flat[..., cells] = flat[..., cells[torch.randperm(len(cells), generator=self.rng)]]
        shuffled = flat.reshape(output.shape)
        return (shuffled, offset) if return_offset else shuffled


@torch.no_grad()
def measure_copying(
    generator: nn.Module, images: Sequence[RepeatedImage], hole: int, edges: Sequence[int] = ()
) -> dict[str, float]:
    """Return what a generator reaches on images that repeat, with a square hole in the middle; means over images.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        images: The images, all of one size.
        hole: Height and width of the hole in pixels.
        edges: Distances to the nearest true copy, in pixels, between which pixels are taken together.

    Returns:
        PSNR in the hole in dB: `coarse`, `completed`, and `8 to 16` for pixels whose nearest copy is that far. With
        attention also shares: `attention` of its weights that fall on true copies, `copies` and `close copies` of the
        cells whose best match is one, to a cell and to half a cell, and `chance` and `close chance` of the known cells
        that are; `entropy` in bit; and `shuffled`, the PSNR after the attention's results have changed places.
    """
    mask = CenterMask(hole)(1, *images[0].image.shape[-2:])[0]
    inside, layer = mask[0, 0] > 0, attention_of(generator)
    rows: list[dict[str, float]] = []
    for number, repeated in enumerate(images):
        image = repeated.image[None]
        listening: AbstractContextManager[list[AttentionCall]] = nullcontext([]) if layer is None else overhear(layer)
        with listening as calls:
            completion = generator(mask_out(image, mask), mask, return_offset=layer is not None)
        coarse, errors = (_errors(filled, image)[inside] for filled in (completion.coarse, completion.prediction))
        rows.append({"coarse": _psnr(coarse), "completed": _psnr(errors)})
        if edges:
            distance = copy_distance(repeated, inside)
            for low, high in pairwise((0, *edges, math.inf)):
                some = (distance > low) & (distance <= high) & distance.isfinite()
                rows[-1] |= {bin_name(low, high): _psnr(errors[some])} if some.any() else {}
        if layer is not None:
            shuffled = _fill_shuffled(generator, layer, mask_out(image, mask), mask, number)
            rows[-1] |= _what_is_copied(calls[0], completion.offset, repeated, mask)
            rows[-1]["shuffled"] = _psnr(_errors(shuffled, image)[inside])
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: fmean(row[name] for row in rows if name in row) for name in names}


class CopiedShare(Callback):
    """Print, when training ends, what share of the hole attention fills with true copies, on images that repeat a view.

    Args:
        count: Images, in turn views of the validation images.
        size: Their height and width in pixels.
        hole: Height and width of the hole in the middle, in pixels.
        periods: Smallest and largest height and width of the repeated view in pixels.
    """

    def __init__(self, count: int = 24, size: int = 64, hole: int = 16, periods: tuple[int, int] = (17, 24)) -> None:
        self.count = count
        self.size = size
        self.hole = hole
        self.periods = periods

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure a copy of the generator on the processor and print a line."""
        generator = copy.deepcopy(pl_module.generator).cpu().float().eval()
        source = trainer.datamodule.validation.source
        if trainer.is_global_zero and attention_of(generator) is not None:
            rng = torch.Generator().manual_seed(0)
            photographs = (source.read(number % len(source)) for number in range(self.count))
            images = [repeat_view(photograph, self.size, rng, self.periods) for photograph in photographs]
            found = measure_copying(generator, images, self.hole)
            print(
                f"copied       {found['copies']:.0%} of the hole from true copies, {found['chance']:.0%} by chance "
                f"({self.count} validation images, in each of which a view is repeated)",
                flush=True,
            )


def bin_name(low: float, high: float) -> str:
    """Return the name of the pixels whose nearest copy lies between two distances."""
    return f"over {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"


@torch.no_grad()
def copied_distance(generator: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Return how far the cells of a hole lie from their best matches, in pixels, float64 (cells,).

    Shape:
        - image: (1, 3, H, W), [-1, 1]
        - mask: (1, 1, H, W), {0, 1}, 1 = hole
    """
    offset = generator(mask_out(image, mask), mask, return_offset=True).offset
    hole = nn.functional.adaptive_max_pool2d(mask, offset.shape[-2:])[0, 0] > 0
    return relative_offset(offset)[0].double().norm(dim=0)[hole] * (image.shape[-1] / offset.shape[-1])


@torch.no_grad()
def draw_copying(generator: nn.Module, images: Sequence[RepeatedImage], hole: int, side: int = 576) -> Image.Image:
    """Draw each image with arrows from the hole to their sources, `side` pixels wide, and four close-ups of the hole.

    The close-ups show input, first stage, the completed image and the truth, three times as wide as the hole, which is
    outlined in white.
    """
    size, near, gap = images[0].image.shape[-1], side // 2 - 12, 4  # two close-ups with titles are as high as the whole
    mask = CenterMask(hole)(1, size, size)[0]
    wide = min(size, 3 * hole)
    start, first = (size - wide) // 2, (size - hole) // 2
    outline = [(first - start) * near / wide - 1] * 2 + [(first - start + hole) * near / wide] * 2
    sheet = Image.new("RGB", (side + 2 * (near + gap), len(images) * (side + 24) - gap), "white")

    def close_up(picture: Tensor) -> Tensor:
        cut = to_image(picture[0, :, start : start + wide, start : start + wide])
        large = cut.resize((near, near), Image.Resampling.LANCZOS)
        ImageDraw.Draw(large).rectangle(outline, outline="white")
        return to_tensor(large)[None]

    for number, repeated in enumerate(images):
        image, top = repeated.image[None], number * (side + 24)
        completion = generator(mask_out(image, mask), mask, return_offset=True)
        completed = composite(image, completion.refined, mask)
        arrows = draw_arrows(completed[0], mask[0], completion.offset[0], every=2, zoom=side // size)
        whole = to_tensor(arrows.resize((side, side), Image.Resampling.LANCZOS))[None]
        asked = {"input": image.masked_fill(mask > 0, 1), "first stage": composite(image, completion.coarse, mask)}
        filled = {"completed": completed, "ground truth": image}
        sheet.paste(draw_sheet({"arrows lead to what was copied": whole}), (0, top))
        for part, y in ((asked, top), (filled, top + near + 24)):
            sheet.paste(draw_sheet({name: close_up(one) for name, one in part.items()}), (side + gap, y))
    return sheet


def _what_is_copied(call: AttentionCall, offset: Tensor, repeated: RepeatedImage, mask: Tensor) -> dict[str, float]:
    """Compare the attention of the hole's cells with the true copies."""
    side = offset.shape[-1]
    cell = mask.shape[-1] // side
    cells = (nn.functional.adaptive_max_pool2d(mask, side)[0, 0] > 0).flatten().nonzero()[:, 0]
    source = (offset[0, 0] * side + offset[0, 1]).flatten()[cells, None]
    known = call.valid[0].flatten()
    near, close = (true_copies(repeated, cell, within)[cells] for within in (cell, max(1, cell // 2)))
    some = torch.arange(0, len(cells), max(1, len(cells) // _ROWS))
    rows = torch.stack([call.row(0, divmod(int(cells[i]), side)).flatten().double() for i in some])
    return {
        "attention": float((rows * near[some]).sum(1).mean()),
        "copies": float(near.gather(1, source).double().mean()),
        "chance": float(near[:, known].double().mean()),
        "close copies": float(close.gather(1, source).double().mean()),
        "close chance": float(close[:, known].double().mean()),
        "entropy": float(torch.special.entr(rows).sum(1).mean()) / math.log(2),
    }


def _fill_shuffled(generator: nn.Module, layer: nn.Module, masked: Tensor, mask: Tensor, seed: int) -> Tensor:
    branch = next(part for part in generator.modules() if getattr(part, "attention", None) is layer)
    branch.attention = Shuffled(layer, torch.Generator().manual_seed(seed))
    try:
        prediction: Tensor = generator(masked, mask).prediction
        return prediction
    finally:
        branch.attention = layer


def _errors(filled: Tensor, image: Tensor) -> Tensor:
    return (filled - image).square().mean(1)[0]


def _psnr(errors: Tensor) -> float:
    """Return the PSNR of squared errors of levels in [-1, 1]; at most 100 dB."""
    return -10 * math.log10(max(float(errors.mean()) / 4, 1e-10))
