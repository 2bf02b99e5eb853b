"""Sheets of pictures: rows are images, columns are what became of them."""

from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.attention import ContextualAttention
from gicinpaint.attention.visualize_offset import colour_legend, colour_offset, relative_offset

_GAP = 4  # pixels between pictures
_TITLE_HEIGHT = 20
_LINE_HEIGHT = 15  # of a title's further lines
_WHEEL_SIZE = 56
_WHEEL_TEXT = ("copied from: the hue is the direction of the source,", "white is in place, full colour the farthest")


def to_image(tensor: Tensor) -> Image.Image:
    """Return one image, (3, H, W) in [-1, 1], as an 8-bit picture, rounded to the nearest level."""
    levels = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def to_tensor(picture: Image.Image) -> Tensor:
    """Return a picture as an image, (3, H, W), [-1, 1]."""
    levels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return levels.reshape(picture.height, picture.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def draw_sheet(columns: Mapping[str, Tensor], with_wheel: bool = False, smallest_width: int = 1) -> Image.Image:
    """Draw batches of images side by side, each under its title.

    Args:
        columns: Images by title, from left to right, all of one shape; titles are broken into lines of their width.
        with_wheel: Whether the legend of the offsets' colours stands below.
        smallest_width: Narrower images are enlarged by repeating pixels until they are at least so wide.

    Shape:
        - each column: (B, 3, H, W), [-1, 1]
    """
    b, _, h, w = next(iter(columns.values())).shape
    times = -(-smallest_width // w)
    h, w = times * h, times * w
    font = ImageFont.load_default(13)
    titles = [_broken(title, w, font) for title in columns]
    top = _TITLE_HEIGHT + _LINE_HEIGHT * (max(len(lines) for lines in titles) - 1)
    width, bottom = len(columns) * (w + _GAP) - _GAP, top + b * (h + _GAP) - _GAP
    sheet = Image.new("RGB", (width, bottom + with_wheel * (_GAP + _WHEEL_SIZE)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (lines, images) in enumerate(zip(titles, columns.values(), strict=True)):
        x = column * (w + _GAP)
        for line, text in enumerate(lines):
            draw.text((x + 2, 2 + _LINE_HEIGHT * line), text, fill="black", font=font)
        for row, image in enumerate(images):
            sheet.paste(to_image(image).resize((w, h), Image.Resampling.NEAREST), (x, top + row * (h + _GAP)))
    if with_wheel:
        sheet.paste(to_image(colour_legend(_WHEEL_SIZE)), (0, bottom + _GAP))
        for line, text in enumerate(_WHEEL_TEXT):
            draw.text((_WHEEL_SIZE + 8, bottom + _GAP + 12 + 16 * line), text, fill="black", font=font)
    return sheet


def attention_of(generator: nn.Module) -> ContextualAttention | None:
    """Return a generator's attention layer, or None if it has none."""
    return next((layer for layer in generator.modules() if isinstance(layer, ContextualAttention)), None)


@torch.no_grad()
def draw_completions(generator: nn.Module, image: Tensor, mask: Tensor, smallest_width: int = 1) -> Image.Image:
    """Draw input, both stages, where the attention copied from, and the ground truth, one row per image.

    Args:
        generator: Maps (masked, mask) to a `Completion`; the offsets' column is left out where it has no attention.
        image: Ground truth.
        mask: Hole mask; 1 = hole.
        smallest_width: As for `draw_sheet`.

    Shape:
        - image: (B, 3, H, W), [-1, 1]
        - mask: (B, 1, H, W), {0, 1}
    """
    completion = generator(image.masked_fill(mask > 0, 0), mask, return_offset=attention_of(generator) is not None)
    columns = {"input": torch.where(mask > 0, torch.ones_like(image), image)}
    columns["coarse"] = torch.where(mask > 0, completion.coarse, image)
    if completion.refined is not None:
        columns["completed"] = torch.where(mask > 0, completion.refined, image)
    if completion.offset is not None:
        colours = colour_offset(relative_offset(completion.offset))
        columns["copied from"] = F.interpolate(colours, size=image.shape[-2:], mode="nearest")
    return draw_sheet({**columns, "ground truth": image}, completion.offset is not None, smallest_width)


def _broken(title: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Return the lines of a title, broken between words; a word that is too wide has a line of its own."""
    lines: list[str] = []
    for word in title.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width - 2:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
