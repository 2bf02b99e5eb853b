"""What filling around the holes costs, in units of one whole pass over 512x512; a measurement, so it is no test.

    python tests/exact_speed.py [SIZE ...]      all of SIZES, or those named, such as 1024 1920x1088

Processor time of one thread, in turns with the unit, so that other programs disturb little; and the peak memory so far.
Weights are random, at width 32.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from gicinpaint import Generator
from gicinpaint.inference.exact import ExactPass, boxes_of, operations
from gicinpaint.models.windows import Rectangle

SIZES = {  # height, width, holes
    "512": (512, 512, [(192, 192, 128, 128)]),
    "768": (768, 768, [(320, 320, 128, 128)]),
    "1024": (1024, 1024, [(448, 448, 128, 128)]),
    "1536": (1536, 1536, [(700, 700, 128, 128)]),
    "2048": (2048, 2048, [(960, 960, 128, 128)]),
    "1920x1088": (1088, 1920, [(400, 800, 300, 300)]),
    "4000x3000": (3000, 4000, [(300, 500, 400, 400), (1500, 3000, 400, 400), (2500, 100, 400, 400)]),
}


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def example(height: int, width: int, holes: list[tuple[int, int, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a masked image and its mask."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 16, width // 16, generator=rng)
    image = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear") * 2 - 1
    mask = torch.zeros(1, 1, height, width)
    for top, left, rows, columns in holes:
        mask[..., top : top + rows, left : left + columns] = 1
    return image * (1 - mask), mask


def fill(generator: Generator, masked: torch.Tensor, mask: torch.Tensor) -> None:
    """Fill around the holes."""
    boxes = boxes_of(mask[0, 0] > 0)
    exact = ExactPass(generator, masked, mask, boxes)
    for box in boxes:
        exact.fill(box)


@torch.no_grad()
def main(names: list[str]) -> None:
    """Print a line per size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = Generator(32).eval()
    unit = example(*SIZES["512"])
    generator(*unit)
    for name in names or list(SIZES):
        height, width, holes = SIZES[name]
        inputs, whole = example(height, width, holes), [Rectangle(0, 0, height, width)]
        before, own, after = (
            seconds(call)
            for call in (partial(generator, *unit), partial(fill, generator, *inputs), partial(generator, *unit))
        )
        size = (height, width)
        share = operations(generator, size, boxes_of(inputs[1][0, 0] > 0)) / operations(generator, size, whole)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{name}: {own:.2f} s, unit {before:.2f} and {after:.2f} s, {2 * own / (before + after):.2f} units, "
            f"{share:.2f} of the whole pass's products, peak {peak:.2f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
