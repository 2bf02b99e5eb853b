"""Sheets of pictures: rows are images, columns are what became of them."""

from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.attention.flow import colour_offset, relative_offset
from gicinpaint.compositing import composite, mask_out

_GAP = 4  # pixels between pictures
_TITLE_HEIGHT = 20


def to_image(tensor: Tensor) -> Image.Image:
    """Return one image, (3, H, W) in [-1, 1], as an 8-bit picture, rounded to the nearest level."""
    levels = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def draw_sheet(columns: Mapping[str, Tensor]) -> Image.Image:
    """Draw batches of images side by side, each under its title.

    Args:
        columns: Images by title, from left to right, all of one shape.

    Shape:
        - each column: (B, 3, H, W), [-1, 1]
    """
    b, _, h, w = next(iter(columns.values())).shape
    sheet = Image.new("RGB", (len(columns) * (w + _GAP) - _GAP, _TITLE_HEIGHT + b * (h + _GAP) - _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, (title, images) in enumerate(columns.items()):
        x = column * (w + _GAP)
        draw.text((x + 2, 2), title, fill="black", font=font)
        for row, image in enumerate(images):
            sheet.paste(to_image(image), (x, _TITLE_HEIGHT + row * (h + _GAP)))
    return sheet


@torch.no_grad()
def draw_completions(generator: nn.Module, image: Tensor, mask: Tensor) -> Image.Image:
    """Draw input, both stages, where the attention copied from, and the ground truth, one row per image.

    Args:
        generator: Maps (masked, mask) to a `Completion`; the offsets' column is left out where it has no attention.
        image: Ground truth.
        mask: Hole mask; 1 = hole.

    Shape:
        - image: (B, 3, H, W), [-1, 1]
        - mask: (B, 1, H, W), {0, 1}
    """
    masked = mask_out(image, mask)
    attends = any(getattr(network, "attention", None) is not None for network in generator.children())
    completion = generator(masked, mask, return_offset=attends)
    columns = {"input": composite(image, torch.ones_like(image), mask)}
    columns["coarse"] = composite(image, completion.coarse, mask)
    if completion.refined is not None:
        columns["completed"] = composite(image, completion.refined, mask)
    if completion.offset is not None:
        colours = colour_offset(relative_offset(completion.offset))
        columns["copied from"] = F.interpolate(colours, size=image.shape[-2:], mode="nearest")
    return draw_sheet({**columns, "ground truth": image})
