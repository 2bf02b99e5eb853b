"""Offsets as pictures: the optical-flow colour wheel with its legend, and arrows from holes to their sources."""

import torch
from torch import Tensor
from torch.nn import functional as F

_SEGMENTS = (15, 6, 4, 11, 13, 6)  # red-yellow, yellow-green, green-cyan, cyan-blue, blue-magenta, magenta-red


def relative_offset(offset: Tensor) -> Tensor:
    """Return offsets counted from each patch's own position.

    Args:
        offset: Absolute (row, column) of each patch's source.

    Shape:
        - offset: (B, 2, H, W), integer
        - returned: (B, 2, H, W), int64
    """
    h, w = offset.shape[-2:]
    rows, columns = torch.arange(h, device=offset.device), torch.arange(w, device=offset.device)
    return offset.long() - torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def colour_offset(relative: Tensor, largest: Tensor | None = None, rate: int = 1) -> Tensor:
    """Colour offsets: the hue is their direction, the saturation their length.

    Args:
        relative: Offsets from each patch's own position, as (row, column) in feature cells.
        largest: Length that gets full saturation, per image; by default each image's longest offset. The released
            code uses the longest one so far in the batch.
        rate: How many pixels a cell becomes along each axis.

    Shape:
        - relative: (B, 2, H, W)
        - largest: (B,)
        - returned: (B, 3, rate * H, rate * W), [-1, 1], in 256 levels

    Source:
        Released code, `flow_to_image_tf`, with the colour wheel of Baker et al. 2007. Differs from the released code:
        each image has its own scale unless `largest` says otherwise.
    """
    row, column = relative.double().unbind(1)
    length = torch.hypot(row, column)
    if largest is None:
        largest = length.flatten(1).amax(1)
    length = length / (largest.double()[:, None, None] + torch.finfo(torch.float64).eps)
    wheel = _wheel().to(relative.device)
    place = (torch.atan2(-column, -row) / torch.pi + 1) / 2 * (len(wheel) - 1)
    below = place.floor().long()
    share = (place - below)[..., None]
    hue = (1 - share) * wheel[below] + share * wheel[(below + 1) % len(wheel)]  # (B, H, W, 3)
    length = length[..., None]
    colour = torch.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    levels = (255 * colour).floor().movedim(-1, 1)
    return F.interpolate((levels / 127.5 - 1).float(), scale_factor=rate, mode="nearest")


def hole_arrows(offset: Tensor, mask: Tensor, every: int = 1) -> list[Tensor]:
    """Return arrows from the patches of each image's hole to where they were copied from.

    A cell of the offset's grid belongs to the hole where at least half of its pixels do.

    Args:
        offset: Absolute (row, column) of each patch's source.
        mask: Hole mask; 1 = hole.
        every: Take the cells of every so many rows and columns of the grid.

    Shape:
        - offset: (B, 2, h, w), integer
        - mask: (B, 1, H, W), {0, 1}
        - returned: for each image (arrows, 2, 2), float64: the middle of the patch, then that of its source, each
          as (row, column) in pixels, where whole numbers are middles of pixels; in row-major order of the patches

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 1, 8, 16)
        >>> mask[..., 8:] = 1  # the second of two cells, copied from the first
        >>> hole_arrows(torch.zeros(1, 2, 1, 2, dtype=torch.int64), mask)
        [tensor([[[ 3.5000, 11.5000],
                 [ 3.5000,  3.5000]]], dtype=torch.float64)]
    """
    (h, w), (height, width) = offset.shape[-2:], mask.shape[-2:]
    size = torch.tensor([height / h, width / w], dtype=torch.float64)
    share = F.adaptive_avg_pool2d(mask.double(), (h, w))[:, 0].cpu()
    wanted = torch.zeros(h, w, dtype=torch.bool)
    wanted[every // 2 :: every, every // 2 :: every] = True
    arrows = []
    for sources, hole in zip(offset.cpu(), share >= 0.5, strict=True):
        cells = (hole & wanted).nonzero()  # (arrows, 2)
        ends = torch.stack([cells, sources[:, cells[:, 0], cells[:, 1]].t()], dim=1)
        arrows.append((ends + 0.5) * size - 0.5)
    return arrows


def colour_legend(size: int = 64) -> Tensor:
    """Return the wheel that explains the colours: each pixel shows an offset from the middle to itself.

    Args:
        size: Height and width in pixels.

    Shape:
        - returned: (3, size, size), [-1, 1], white outside the circle
    """
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    relative = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))[None]
    colours = colour_offset(relative, largest=torch.ones(1))[0]
    return torch.where(relative[0].norm(dim=0) <= 1, colours, 1.0)


def _wheel() -> Tensor:
    """The 55 hues of the wheel, (55, 3), [0, 1]: one channel rises or falls along each segment."""
    changing = (1, 0, 2, 1, 0, 2)
    colour = torch.tensor([255.0, 0.0, 0.0], dtype=torch.float64)
    hues = []
    for length, channel in zip(_SEGMENTS, changing, strict=True):
        start = colour[channel].item()
        for step in range(length):
            change = float(255 * step // length)
            colour[channel] = start + change if start == 0 else start - change
            hues.append(colour.clone())
        colour[channel] = 255 - start
    return torch.stack(hues) / 255
