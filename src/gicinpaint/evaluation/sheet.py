"""The picture of an evaluation: rows are images, columns are input, methods and ground truth."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from gicinpaint.attention.image_grid import draw_sheet, to_tensor
from gicinpaint.evaluation.measuring import Measurement
from gicinpaint.models.compositing import composite


def draw_methods(measurement: Measurement, names: Sequence[str]) -> Image.Image:
    """Draw the pictured images with each method's completion, as it was measured.

    Args:
        measurement: What was measured; its folder holds the completions.
        names: Methods, from left to right.
    """
    images = measurement.images
    truth = torch.stack([images[index] for index in measurement.pictured])
    mask, _ = measurement.masks(measurement.pictured, images.height, images.width)
    columns = {"input": composite(truth, torch.ones_like(truth), mask)}
    for name in names:
        columns[name.replace("_", " ")] = torch.stack(
            [_read(measurement, name, index) for index in measurement.pictured]
        )
    return draw_sheet({**columns, "ground truth": truth}, smallest_width=128)  # titles need that much room


def _read(measurement: Measurement, name: str, index: int) -> Tensor:
    with Image.open(measurement.picture(name, index)) as picture:
        return to_tensor(picture)
