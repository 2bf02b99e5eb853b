"""Images of what the attention does: arrows to the sources, heat maps, and sheets that show the images side by side."""

import math
from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.attention.attention_map import colour_legend, colour_offset, hole_arrows, overhear, relative_offset
from gicinpaint.attention.layer import ContextualAttention

_GAP = 4  # pixels between pictures
_TITLE_HEIGHT = 20
_LINE_HEIGHT = 15  # of a title's further lines
_WHEEL_SIZE = 56
_WHEEL_TEXT = ("copied from: the hue is the direction of the source,", "white is in place, full colour the farthest")
_SMOOTH = 4  # lines are drawn this many times larger and shrunk
_SMALLEST = 256  # pixels of height to which smaller images are enlarged, so that arrows can be told apart
_ROWS_OF_ARROWS = 16  # what an image has of them by default, the hole or not
_FAINT = 0.45  # brightness of the photograph under a heat map


@torch.no_grad()
def draw_attention(generator: nn.Module, image: Tensor, mask: Tensor, every: int | None = None) -> Image.Image:
    """Draw where the attention copied from in four ways, one row per image.

    The columns are the input, the completed image, the offsets' colours, arrows from patches of the hole to their
    sources, and the attention of the patch nearest to the middle of the hole.

    Args:
        generator: Maps (masked, mask) to a `Completion`; it must have an attention layer.
        image: Ground truth, (B, 3, H, W), [-1, 1].
        mask: Hole mask, (B, 1, H, W), {0, 1}; 1 = hole.
        every: Draw every n-th row and column of arrows. Default: at most 16 rows and columns.

    Raises:
        ValueError: If the generator has no attention.
    """
    attention = attention_of(generator)
    if attention is None:
        raise ValueError(
            f"draw_attention needs a generator with attention, got {type(generator).__name__} without; "
            "use draw_completions for others"
        )
    with overhear(attention) as calls:
        completion = generator(image.masked_fill(mask > 0, 0), mask, return_offset=True)
    zoom = max(1, _SMALLEST // image.shape[-2])
    h, w = completion.offset.shape[-2:]
    cells = [middle_of_hole(one, (h, w)) for one in mask]
    completed = torch.where(mask > 0, completion.prediction, image)
    arrows = [draw_arrows(*one, every=every, zoom=zoom) for one in zip(completed, mask, completion.offset, strict=True)]
    heat = [draw_heat(completed[i], calls[0].row(i, cell), cell, zoom=zoom) for i, cell in enumerate(cells)]
    colours = colour_offset(relative_offset(completion.offset))
    size = [zoom * side for side in image.shape[-2:]]
    columns = {
        "input": F.interpolate(torch.where(mask > 0, torch.ones_like(image), image), size=size),
        "completed": F.interpolate(completed, size=size),
        "copied from": F.interpolate(colours, size=size),
        "patch to source": torch.stack([to_tensor(picture) for picture in arrows]),
        "the boxed patch attends to": torch.stack([to_tensor(picture) for picture in heat]),
    }
    return draw_sheet({title: column.cpu() for title, column in columns.items()}, with_wheel=True, with_scale=True)


@torch.no_grad()
def draw_completions(generator: nn.Module, image: Tensor, mask: Tensor, smallest_width: int = 1) -> Image.Image:
    """Draw input, both stages, where the attention copied from, and the ground truth, one row per image.

    Args:
        generator: Maps (masked, mask) to a `Completion`; the offsets' column is left out where it has no attention.
        image: Ground truth, (B, 3, H, W), [-1, 1].
        mask: Hole mask, (B, 1, H, W), {0, 1}; 1 = hole.
        smallest_width: As for `draw_sheet`.
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


def attention_of(generator: nn.Module) -> ContextualAttention | None:
    """Return a generator's attention layer, or None if it has none."""
    return next((layer for layer in generator.modules() if isinstance(layer, ContextualAttention)), None)


def draw_arrows(image: Tensor, mask: Tensor, offset: Tensor, every: int | None = None, zoom: int = 1) -> Image.Image:
    """Draw arrows from patches of the hole to where they were copied from, in the colours of the wheel.

    Args:
        image: What lies under the arrows, usually the completed image, (3, H, W), [-1, 1].
        mask: Hole mask, (1, H, W), {0, 1}; 1 = hole. Its outline is drawn in white.
        offset: Absolute (row, column) of each patch's source, (2, h, w).
        every: Take every n-th row and column of patches. Default: at most 16 rows and columns.
        zoom: Factor by which the picture is larger than the image.
    """
    every = every or -(-max(offset.shape[-2:]) // _ROWS_OF_ARROWS)
    (arrows,) = hole_arrows(offset[None], mask[None], every)
    picture, draw, scale = _enlarged(image, zoom)
    outline = (F.max_pool2d(mask[None].float(), 3, 1, 1)[0] - mask.float())[0].cpu()
    for row, column in outline.nonzero().tolist():
        draw.rectangle((column * scale, row * scale, (column + 1) * scale - 1, (row + 1) * scale - 1), fill="white")
    relative = (arrows[:, 1] - arrows[:, 0]).t()[None, :, :, None]  # (1, 2, arrows, 1)
    for ends, colour in zip(arrows, colour_offset(relative)[0, :, :, 0].t() if len(arrows) else (), strict=True):
        levels = tuple(int(level) for level in ((colour + 1) * 127.5).round())
        _arrow(draw, ((ends + 0.5) * scale).flip(-1).tolist(), levels, scale)
    return _reduced(picture)


def draw_heat(image: Tensor, row: Tensor, query: tuple[int, int], zoom: int = 1) -> Image.Image:
    """Draw how much a patch takes from everywhere, in the colours of the scale: from nothing over red to yellow.

    White, in which holes are drawn, is no colour of the scale.

    Args:
        image: What lies under the heat, dimmed and grey, (3, H, W), [-1, 1].
        row: Attention of the patch, (h, w), see `AttentionCall.row`.
        query: Row and column of the patch on the grid of patches; it is boxed in cyan.
        zoom: Factor by which the picture is larger than the image.
    """
    heat = F.interpolate((row / row.amax().clamp_min(1e-30)).float()[None, None], size=image.shape[-2:])[0]
    grey = (image.float().mean(dim=0, keepdim=True) + 1) / 2 * _FAINT
    shown = torch.maximum(grey.expand(3, -1, -1) * (1 - heat), colour_heat(heat))
    picture, draw, scale = _enlarged(2 * shown - 1, zoom)
    h, w = row.shape
    height, width = picture.height / h, picture.width / w
    box = (query[1] * width, query[0] * height, (query[1] + 1) * width - 1, (query[0] + 1) * height - 1)
    draw.rectangle(box, outline="cyan", width=scale)
    return _reduced(picture)


def colour_heat(heat: Tensor) -> Tensor:
    """Return the colours of shares of the largest, (1, H, W) in [0, 1], as (3, H, W): black, red, yellow."""
    return torch.cat([(2 * heat).clamp(max=1), (2 * heat - 1).clamp(min=0), torch.zeros_like(heat)])


def draw_sheet(
    columns: Mapping[str, Tensor], with_wheel: bool = False, smallest_width: int = 1, with_scale: bool = False
) -> Image.Image:
    """Draw batches of images side by side, each under its title.

    Args:
        columns: Batches, (B, 3, H, W), [-1, 1], by title, from left to right; titles are broken into lines.
        with_wheel: Whether the legend of the offsets' colours stands below.
        smallest_width: Narrower images are enlarged by repeating pixels until they are at least so wide.
        with_scale: Whether the scale of the heat maps' colours stands below the last column.
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
    if with_scale:
        sheet.paste(to_image(2 * colour_heat(torch.linspace(0, 1, w).expand(1, 14, -1)) - 1), (width - w, bottom + 12))
        for text, x, anchor in (("copies nothing", width - w, "la"), ("copies most", width, "ra")):
            draw.text((x, bottom + 32), text, fill="black", font=font, anchor=anchor)
    return sheet


def to_image(tensor: Tensor) -> Image.Image:
    """Return one image, (3, H, W) in [-1, 1], as an 8-bit picture, rounded to the nearest level."""
    levels = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def to_tensor(picture: Image.Image) -> Tensor:
    """Return a picture as an image, (3, H, W), [-1, 1]."""
    levels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return levels.reshape(picture.height, picture.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def middle_of_hole(mask: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """Return the row and column of the patch in the hole, on a grid of patches, that is nearest to the hole's middle.

    Without a hole in the mask, (1, H, W), all of the image counts.

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 64, 64)
        >>> mask[:, 8:24, 32:48] = 1
        >>> middle_of_hole(mask, (8, 8))
        (1, 4)
    """
    share = F.adaptive_avg_pool2d(mask.double(), grid)[0].cpu()
    cells = (share >= share.max()).nonzero().double()
    distance = (cells - cells.mean(dim=0)).square().sum(dim=1)
    row, column = cells[distance.argmin()].long().tolist()
    return row, column


def _broken(title: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Break a title between words; a word that is too wide has a line of its own."""
    lines: list[str] = []
    for word in title.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width - 2:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _enlarged(image: Tensor, zoom: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    picture, scale = to_image(image), _SMOOTH * zoom
    large = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    return large, ImageDraw.Draw(large), scale


def _reduced(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // _SMOOTH, picture.height // _SMOOTH), Image.Resampling.BOX)


def _arrow(draw: ImageDraw.ImageDraw, ends: list[list[float]], colour: tuple[int, ...], scale: int) -> None:
    """Draw an arrow between two points (x, y), with a dark rim so that it shows on any ground."""
    (x0, y0), (x1, y1) = ends
    length, head = math.hypot(x1 - x0, y1 - y0), 1.25 * _SMOOTH * 4
    if length < 1:
        return
    along_x, along_y = (x1 - x0) / length, (y1 - y0) / length
    back = min(head, length)
    base_x, base_y = x1 - back * along_x, y1 - back * along_y
    sides = [(base_x - side * back / 2 * along_y, base_y + side * back / 2 * along_x) for side in (1, -1)]
    for fill, width in (("black", _SMOOTH * 2), (colour, _SMOOTH)):
        draw.line((x0, y0, base_x, base_y), fill=fill, width=width)
        draw.polygon(((x1, y1), *sides), fill=fill, outline="black")
