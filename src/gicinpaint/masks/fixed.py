"""Masks for validation and evaluation, which depend on preset, seed and index only."""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gicinpaint.masks.free_form import FreeFormMask
from gicinpaint.masks.rectangle import CenterMask, RectangleMask
from gicinpaint.masks.sampler import Device, MaskSampler, common_box, read_pair
from gicinpaint.models.compositing import Box

_BUCKETS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))  # hole ratios of free_form


class FixedMasks:
    """Masks with numbers: mask i is the same for every batch size, order, worker and device.

    Each mask is drawn on the CPU by a generator seeded from preset, seed and index, from sampler i modulo their number.

    Args:
        preset: Name of the set; sets of different names draw different masks from one seed.
        samplers: One sampler or several, all with the same box.
        seed: Number of the set.

    Raises:
        ValueError: If there is no sampler, or the boxes differ; when called, if an index is negative or there is none.

    Source:
        Ours.

    Example:
        >>> masks = paper_center()
        >>> mask, box = masks([0, 7])
        >>> mask.shape, box.top
        (torch.Size([2, 1, 256, 256]), tensor([64, 64]))
    """

    def __init__(self, preset: str, samplers: MaskSampler | Sequence[MaskSampler], seed: int = 0) -> None:
        self.preset = preset
        self.samplers = tuple(samplers) if isinstance(samplers, Sequence) else (samplers,)
        self.seed = seed
        self.box = common_box(self.samplers, "samplers")

    def __call__(
        self, indices: Iterable[int], height: int = 256, width: int = 256, *, device: Device = None
    ) -> tuple[Tensor, Box]:
        """Return the masks with the given numbers.

        Shape:
            - returned: float32 (B, 1, height, width), {0, 1}, 1 = hole; and a box inside the image, tops and lefts (B,)
        """
        drawn = [self._draw(int(index), height, width) for index in indices]
        if not drawn:
            raise ValueError("indices must hold at least one number, got none; skip empty batches")
        masks, boxes = zip(*drawn, strict=True)
        top, left = torch.cat([box.top for box in boxes]), torch.cat([box.left for box in boxes])
        return torch.cat(masks).to(device or "cpu"), Box(top.to(device), left.to(device), *self.box)

    def manifest(self, count: int, height: int = 256, width: int = 256) -> dict[str, int | str]:
        """Describe masks 0 to count - 1, with the SHA-256 over all: results with equal manifests are comparable.

        Raises:
            ValueError: If the count is less than 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}; count the images that are evaluated")
        digest = hashlib.sha256()
        for index in range(count):
            mask, box = self._draw(index, height, width)
            digest.update(mask.to(torch.uint8).numpy().tobytes())
            digest.update(repr((int(box.top), int(box.left), box.height, box.width)).encode())
        described: dict[str, int | str] = {"preset": self.preset, "seed": self.seed, "count": count}
        return described | {"height": height, "width": width, "sha256": digest.hexdigest()}

    def _draw(self, index: int, height: int, width: int) -> tuple[Tensor, Box]:
        if index < 0:
            raise ValueError(f"indices must be 0 or more, got {index}; count from the first image")
        name = f"{self.preset}/{self.seed}/{index}".encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:8]) >> 1  # 63 bits
        sampler = self.samplers[index % len(self.samplers)]
        return sampler(1, height, width, generator=torch.Generator().manual_seed(seed))


def paper_center(box: int | Sequence[int] = (128, 128), seed: int = 0) -> FixedMasks:
    """Return the preset with one hole in the middle, `box` (height, width); the seed only stands in the manifest."""
    return FixedMasks("paper_center", CenterMask(box), seed)


def paper_random(box: int | Sequence[int] = (128, 128), seed: int = 0) -> FixedMasks:
    """Return the preset with one hole at a random place, each side from three quarters of the box to all of it."""
    height, width = read_pair(box, "box", 1)
    return FixedMasks("paper_random", RectangleMask((height, width), inset=(height // 8, width // 8)), seed)


def free_form(box: int | Sequence[int] = (128, 128), seed: int = 0) -> FixedMasks:
    """Return the preset of strokes: mask i has a hole ratio of 1-10, 10-20, ... 50-60 %, by i modulo 6.

    Args:
        box: Height and width of the local critic's window in pixels.
        seed: Number of the set.
    """
    return FixedMasks("free_form", [FreeFormMask(box, hole_ratio=ratio) for ratio in _BUCKETS], seed)
