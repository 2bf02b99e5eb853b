"""Does attention copy from afar? Fill holes that could be filled exactly from elsewhere, and see what is copied.

Each image repeats one small view of a photograph on a lattice whose period, skew and phase are its own: a fixed offset,
which a convolution could learn, is of no use. For every model the table has the error in the hole; for those with
attention also how much of the hole takes a true copy as its best match, what chance would give, how sharp the attention
is, and the error after the rows of the attention have been shuffled within the hole: what is lost is what it is worth.

    python examples/measure_copying.py lattices_64_contextual lattices_64_baseline
    python examples/measure_copying.py MODEL ... --images 'photos/textures/val/*' --count 500 --picture copies.png
"""

import argparse
import math
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gicinpaint.attention.attention_map import overhear
from gicinpaint.attention.visualize import attention_of, draw_arrows, draw_sheet, to_tensor
from gicinpaint.data import RandomScaleCrop, SamplePhotographs
from gicinpaint.data.datasets import SAMPLE_TRAIN
from gicinpaint.models import composite, mask_out
from gicinpaint.weights.pretrained import load_generator

PERIODS = (0.27, 0.375)  # smallest and largest side of a view, as shares of the image's: 17 to 24 pixels of 64
COLUMNS = {
    "coarse": "first stage dB",
    "completed": "completed dB",
    "shuffled": "shuffled dB",
    "copies 4": "copies <=4 px",
    "chance 4": "by chance",
    "copies 2": "copies <=2 px",
    "chance 2": "by chance",
    "entropy": "entropy bit",
}
CELL = 4  # pixels of the image per cell of the features that attention works on, with rate=1


def lattice(photograph: Image.Image, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return an image that repeats a view of a photograph, and the place within the view that each pixel shows.

    Shape:
        - returned: image (3, size, size), [-1, 1]; places (4, size, size), int64: row and column within the view, then
          height and width of the view
    """
    low, high = (round(share * size) for share in PERIODS)
    rows, columns = torch.randint(low, high + 1, (2,), generator=rng).tolist()
    view = np.asarray(RandomScaleCrop(0.5, enlarge=True)(photograph, rows, columns, rng))
    top, left, shift = (int(torch.randint(side, (), generator=rng)) for side in (rows, columns, columns))
    y, x = np.arange(size)[:, None] + top, np.arange(size)[None] + left
    places = np.stack(np.broadcast_arrays(y % rows, (x + y // rows * shift) % columns))
    return to_tensor(Image.fromarray(view[places[0], places[1]])), torch.from_numpy(
        np.concatenate([places, np.broadcast_to(np.array([rows, columns])[:, None, None], places.shape)])
    )


def true_copies(places: Tensor, within: int) -> Tensor:
    """Return which cells show the same place of the view, to some pixels along each axis: bool (cells, cells)."""
    middles = places[:, CELL // 2 :: CELL, CELL // 2 :: CELL].flatten(1)
    near = torch.ones(middles.shape[1], middles.shape[1], dtype=torch.bool)
    for place, period in zip(middles[:2], middles[2:], strict=True):
        apart = (place[:, None] - place[None]).abs()
        near &= torch.minimum(apart, period[:, None] - apart) <= within
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


def decibel(errors: list[float]) -> float:
    """Return the mean PSNR of squared errors of levels in [-1, 1]."""
    return float(np.mean([-10 * math.log10(error / 4) for error in errors]))


@torch.no_grad()
def measure(generator: nn.Module, images: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the table's row of a generator."""
    size = images[0][0].shape[-1]
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    layer = attention_of(generator)
    branch = next((child for child in generator.children() if getattr(child, "attention", None) is layer), None)
    found: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            found.setdefault(name, []).append(value)

    def error(prediction: Tensor, image: Tensor) -> float:
        return float((composite(image, prediction, mask) - image)[mask.expand_as(image) > 0].square().mean())

    for number, (picture, places) in enumerate(images):
        image = picture[None]
        if layer is None or branch is None:
            completion = generator(mask_out(image, mask), mask)
        else:
            with overhear(layer) as calls:
                completion = generator(mask_out(image, mask), mask, return_offset=True)
            side = completion.offset.shape[-1]
            if side * CELL != size:
                raise SystemExit(f"measure_copying needs attention with rate=1, whose cells are {CELL} pixels wide")
            hole = nn.functional.adaptive_max_pool2d(mask, side)[0, 0] > 0
            source = (completion.offset[0, 0] * side + completion.offset[0, 1]).flatten()
            cells = hole.flatten().nonzero()[:, 0]
            rows = [calls[0].row(0, divmod(int(cell), side)).flatten().double() for cell in cells[:: max(1, side // 4)]]
            entropy = [float(torch.special.entr(row).sum()) / math.log(2) for row in rows]
            known = calls[0].valid[0].flatten()
            for within in (2, 4):
                near = true_copies(places, within)[cells]
                note(
                    **{
                        f"copies {within}": float(near.gather(1, source[cells, None]).float().mean()),
                        f"chance {within}": float(near[:, known].float().mean()),
                    }
                )
            branch.attention = Shuffled(layer, torch.Generator().manual_seed(number))
            note(
                entropy=float(np.mean(entropy)),
                shuffled=error(generator(mask_out(image, mask), mask).refined, image),
            )
            branch.attention = layer
        note(coarse=error(completion.coarse, image), completed=error(completion.refined, image))
    return {k: decibel(v) if k in ("coarse", "completed", "shuffled") else float(np.mean(v)) for k, v in found.items()}


@torch.no_grad()
def draw(generator: nn.Module, images: list[tuple[Tensor, Tensor]], zoom: int = 4) -> Image.Image:
    """Draw input, arrows from the hole to its sources, the completed image and the truth."""
    columns: dict[str, list[Tensor]] = {}
    for picture, _ in images:
        image, size = picture[None], picture.shape[-1]
        mask = torch.zeros(1, 1, size, size)
        mask[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
        completion = generator(mask_out(image, mask), mask, return_offset=True)
        completed = composite(image, completion.refined, mask)
        arrows = draw_arrows(completed[0], mask[0], completion.offset[0], every=3, zoom=zoom)
        shown = {
            "input": image.masked_fill(mask > 0, 1),
            "first stage": composite(image, completion.coarse, mask),
            "completed": completed,
            "ground truth": image,
        }
        large = {k: nn.functional.interpolate(v, scale_factor=zoom, mode="nearest")[0] for k, v in shown.items()}
        for name, column in {**large, "what was copied from where": to_tensor(arrows)}.items():
            columns.setdefault(name, []).append(column.clamp(-1, 1))
    order = ("input", "first stage", "completed", "what was copied from where", "ground truth")
    return draw_sheet({name: torch.stack(columns[name]) for name in order})


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names in weights, folders or checkpoints")
    parser.add_argument("--images", help="pattern of photographs; default: the sample photographs of scikit-image")
    parser.add_argument("--count", type=int, default=100, help="images to make (default: 100)")
    parser.add_argument("--size", type=int, default=64, help="their side in pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="draw the first model's first three images, with arrows, to this file")
    options = parser.parse_args()
    if options.images:
        paths = sorted(glob(options.images, recursive=True))
        if not paths:
            parser.error(f"--images {options.images}: there are no such files")
        photographs = [lambda path=path: Image.open(path).convert("RGB") for path in paths]
    else:
        samples = SamplePhotographs(SAMPLE_TRAIN)
        photographs = [lambda number=number: samples.read(number) for number in range(len(SAMPLE_TRAIN))]
    rng = torch.Generator().manual_seed(options.seed)
    images = [lattice(photographs[i % len(photographs)](), options.size, rng) for i in range(options.count)]
    rows = {name: measure(load_generator(name), images) for name in options.models}
    size = f"{options.size}x{options.size}"
    print(f"{options.count} images of {size} that repeat a view, hole in the middle half; seed {options.seed}\n")
    print("| model | " + " | ".join(COLUMNS.values()) + " |\n| --- |" + " ---: |" * len(COLUMNS))
    for name, row in rows.items():
        cells = ("" if k not in row else f"{row[k]:.0%}" if k[-1] in "24" else f"{row[k]:.2f}" for k in COLUMNS)
        print(f"| {Path(name).name} | " + " | ".join(cells) + " |")
    if options.picture:
        draw(load_generator(options.models[0]), images[:3]).save(options.picture)
        print(f"\npicture {options.picture}")


if __name__ == "__main__":
    main()
