"""Does attention copy from afar? Fill holes that could be filled exactly from elsewhere, and see what is copied.

The measures are those of `gicinpaint.evaluation.copying`. `python train.py sweep=rq1` trains networks for it.

    python examples/measure_copying.py lattices_64_contextual lattices_64_baseline
    python examples/measure_copying.py MODEL ... --images 'photos/textures/val/*' --count 500 --picture copies.png
"""

import argparse
from glob import glob
from pathlib import Path

import torch

from gicinpaint.data import ImageFiles, SamplePhotographs
from gicinpaint.evaluation.copying import draw_copying, measure_copying, repeat_view
from gicinpaint.weights.pretrained import load_generator

COLUMNS = {
    "coarse": "first stage dB",
    "completed": "completed dB",
    "shuffled": "shuffled dB",
    "attention": "attention on copies",
    "copies": "copies to a cell",
    "chance": "by chance",
    "close copies": "to half a cell",
    "close chance": "by chance",
    "entropy": "entropy bit",
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names in weights, folders or checkpoints")
    parser.add_argument("--images", help="pattern of photographs; default: the sample photographs of scikit-image")
    parser.add_argument("--count", type=int, default=100, help="images to make (default: 100)")
    parser.add_argument("--size", type=int, default=64, help="their side in pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="draw images that the first model filled, with arrows, to this file")
    parser.add_argument("--drawn", type=int, nargs="+", default=[0, 1, 2], help="their numbers (default: 0 1 2)")
    options = parser.parse_args()
    if options.images and not glob(options.images, recursive=True):
        parser.error(f"--images {options.images}: there are no such files")
    if not all(0 <= number < options.count for number in options.drawn):
        parser.error(f"--drawn {options.drawn}: the images are 0 to {options.count - 1}")
    source = ImageFiles(options.images) if options.images else SamplePhotographs.train(1)
    rng, size = torch.Generator().manual_seed(options.seed), options.size
    periods = round(0.27 * size), round(0.375 * size)
    images = [repeat_view(source.read(i % len(source)), size, rng, periods) for i in range(options.count)]
    rows = {name: measure_copying(load_generator(name), images, size // 2) for name in options.models}
    print(f"{len(images)} images of {size}x{size} that repeat a view, hole in the middle half; seed {options.seed}\n")
    print("| model | " + " | ".join(COLUMNS.values()) + " |\n| --- |" + " ---: |" * len(COLUMNS))
    for name, row in rows.items():
        decimal = ("coarse", "completed", "shuffled", "entropy")
        cells = ("" if k not in row else f"{row[k]:.2f}" if k in decimal else f"{row[k]:.0%}" for k in COLUMNS)
        print(f"| {Path(name).name} | " + " | ".join(cells) + " |")
    if options.picture:
        drawn = [images[number] for number in options.drawn]
        draw_copying(load_generator(options.models[0]), drawn, size // 2, side=320).save(options.picture, optimize=True)
        print(f"\npicture {options.picture}")


if __name__ == "__main__":
    main()
