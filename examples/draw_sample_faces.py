"""Fill holes in two portraits in the public domain that come with scikit-image and matplotlib: the picture in docs.

python examples/draw_sample_faces.py [MODEL] [--picture faces.png]
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from gicinpaint.attention.visualize import draw_sheet, to_tensor
from gicinpaint.models import composite, mask_out
from gicinpaint.weights.pretrained import load_generator

# Windows in which eyes and mouth lie as in the mean of the training faces: at 0.29 and 0.68 of the height.
PORTRAITS = (
    ("skimage", "data/astronaut.png", (172, 72, 279, 179)),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (156, 123, 374, 341)),
)
HOLES = ((32, 32, 96, 96), (28, 36, 100, 64), (44, 52, 84, 112))  # top, left, bottom, right of 128 pixels


def portrait(package: str, path: str, window: tuple[int, int, int, int], size: int) -> Image.Image:
    """Return the aligned face, square, some pixels wide."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed; pip install 'gicinpaint[plots]'")
    with Image.open(Path(found.origin).parent / path) as image:
        return image.convert("RGB").crop(window).resize((size, size), Image.Resampling.LANCZOS)


@torch.no_grad()
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="faces_128", help="name in weights, folder or checkpoint")
    parser.add_argument("--size", type=int, default=128, help="what the model was trained at: 128 (default) or 64")
    parser.add_argument("--picture", default="faces.png", help="where to write (default: faces.png)")
    options = parser.parse_args()
    faces = torch.stack([to_tensor(portrait(*one, options.size)) for one in PORTRAITS])
    image = faces.repeat_interleave(len(HOLES), 0)
    mask = torch.zeros(len(image), 1, options.size, options.size)
    for number in range(len(image)):
        top, left, bottom, right = (side * options.size // 128 for side in HOLES[number % len(HOLES)])
        mask[number, :, top:bottom, left:right] = 1
    completion = load_generator(options.model)(mask_out(image, mask), mask)
    columns = {
        "input": image.masked_fill(mask > 0, 1),
        "first stage": composite(image, completion.coarse, mask),
        "completed": composite(image, completion.prediction, mask),
        "ground truth": image,
    }
    large = {name: F.interpolate(one, scale_factor=2, mode="bicubic").clamp(-1, 1) for name, one in columns.items()}
    draw_sheet(large).save(options.picture)
    print(f"picture {options.picture}")


if __name__ == "__main__":
    main()
