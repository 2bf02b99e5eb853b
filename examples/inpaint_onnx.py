"""Fill the hole of a picture with an exported generator: needs numpy, pillow and onnxruntime, no torch.

pip install numpy pillow onnxruntime
python inpaint_onnx.py generator.onnx picture.png mask.png filled.png        white is the hole
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image


def inpaint(session: onnxruntime.InferenceSession, picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the RGB picture with the white part of the mask filled; the other pixels stay as they are."""
    pixels = np.asarray(picture.convert("RGB"))
    hole = np.asarray(mask.convert("L")) > 127
    if pixels.shape[:2] != hole.shape:
        raise ValueError(f"the mask must have the picture's size {picture.size}, got {mask.size}")
    completed = session.run(["completed"], {"image": planes(pixels / 127.5 - 1), "mask": planes(hole[..., None])})[0]
    height, width = hole.shape
    levels = np.round((completed[0, :, :height, :width].transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5)
    return Image.fromarray(np.where(hole[..., None], levels, pixels).astype(np.uint8))


def planes(values: np.ndarray) -> np.ndarray:
    """Return (H, W, C) as float32 (1, C, H, W), mirrored at the bottom and right to multiples of 8."""
    rows, columns = (mirrored(size) for size in values.shape[:2])
    return values[rows[:, None], columns].transpose(2, 0, 1)[None].astype(np.float32)


def mirrored(size: int) -> np.ndarray:
    """Return the positions 0, 1, ..., size - 1, size - 1, ..., 1, 0, 0, 1, ... up to the next multiple of 8."""
    position = np.arange(-(-size // 8) * 8) % (2 * size)
    return np.minimum(position, 2 * size - 1 - position)


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    if len(arguments) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    model, picture, mask, filled = arguments
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inpaint(session, Image.open(picture), Image.open(mask)).save(filled)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
