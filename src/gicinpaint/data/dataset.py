"""Items and batches: an image, its hole and its box, the same in every run and every worker."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from kornia.geometry.transform import hflip
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from gicinpaint.checks import check_mask
from gicinpaint.data.image_io import ImageError, to_float, to_levels
from gicinpaint.data.order import Item, derive_seed
from gicinpaint.data.sources import DatasetError, ImageSource
from gicinpaint.data.transforms import ColorAugment, Crop
from gicinpaint.masks.sampler import MaskSampler, NumberedMasks, hole_extent, hole_window
from gicinpaint.models.compositing import Box

OnError = Literal["raise", "skip"]
LARGEST_SHARE = 0.01  # of bad images

_TRIES = 10  # replacements for one bad image; at 1 % of bad images, ten in a row never happen by chance
_SHOWN = 10  # bad images that are logged one by one

_LOG = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What a training or validation step receives.

    A loader yields 8-bit images and masks, a quarter of the bytes; they become float32 on the device.

    Attributes:
        image: Ground truth, (B, 3, H, W): float32 in [-1, 1], or uint8 on its way to the device.
        mask: Holes, (B, 1, H, W), {0, 1}, 1 = hole: float32, or uint8 on its way to the device.
        box: One box of a common size per image, for the local critic.
    """

    image: Tensor
    mask: Tensor
    box: Box

    @classmethod
    def of(cls, given: Any, size: tuple[int, int] | None = None) -> "Batch":
        """Return the batch that a loader of any kind yielded; a `Batch` as it is.

        Args:
            given: A mapping with `image` and `mask`, or a pair of both: as the attributes; masks may be bool too.
            size: Height and width of the boxes, each placed where it holds most of the hole. Default: the smallest that
                holds the hole of every image.

        Raises:
            TypeError: If it is something else.
        """
        if isinstance(given, Batch):
            return given
        if isinstance(given, Mapping) and {"image", "mask"} <= given.keys():
            given = given["image"], given["mask"]
        if not (isinstance(given, list | tuple) and len(given) == 2 and all(isinstance(x, Tensor) for x in given)):
            kind = f"a mapping of {', '.join(map(str, given))}" if isinstance(given, Mapping) else type(given).__name__
            raise TypeError(f"a batch must hold image and mask, got {kind}; let the loader yield a dict of both")
        image, mask = given
        check_mask(mask, image)
        size = hole_extent(mask) if size is None else size
        return cls(image, mask, hole_window(mask, size)).to_float()

    def to_float(self) -> "Batch":
        """Return the batch in float32; images and masks that are floating point stay as they are."""
        image = self.image if self.image.is_floating_point() else to_float(self.image)
        return Batch(image, self.mask if self.mask.is_floating_point() else self.mask.float(), self.box)


class Sample(NamedTuple):
    """One item of a batch: an image (3, H, W), its hole (1, H, W) as uint8, and its box."""

    image: Tensor
    mask: Tensor
    box: Box


def check_on_error(on_error: str) -> None:
    """Raise a ValueError unless it is one of the two ways to treat a bad image."""
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}; choose one of the two")


def collate(samples: Sequence[Sample]) -> Batch:
    """Join items; in a worker process the result is in shared memory.

    Raises:
        ValueError: If the boxes differ in size, which a sampler must not do.
    """
    boxes = [sample.box for sample in samples]
    sizes = sorted({(box.height, box.width) for box in boxes})
    if len(sizes) > 1:
        raise ValueError(f"a mask sampler must draw boxes of one size, got {sizes}; give its masks the same box")
    image, mask = default_collate([(sample.image, sample.mask) for sample in samples])
    top, left = torch.cat([box.top for box in boxes]), torch.cat([box.left for box in boxes])
    return Batch(image, mask, Box(top, left, *sizes[0]))


@dataclass(eq=False)
class BadImageCount:
    """Count the reads and the bad images of all worker processes of one data loader, in rows of a shared tensor.

    Each process adds to its own row, so no lock is needed. The share of bad images is taken of `length` at least.
    """

    name: str
    length: int
    workers: InitVar[int] = 0

    def __post_init__(self, workers: int) -> None:
        self._rows = torch.zeros(max(1, workers), 2, dtype=torch.int64).share_memory_()

    @property
    def totals(self) -> tuple[int, int]:
        """Number of images asked for so far, and of those that could not be used."""
        read, bad = self._rows.sum(0).tolist()
        return read, bad

    def add_read(self) -> None:
        """Count an image that was asked for."""
        self._rows[self._row(), 0] += 1

    def add_bad(self, error: ImageError) -> None:
        """Count a bad image, log the first ten, and raise a DatasetError if more than 1 % is bad."""
        self._rows[self._row(), 1] += 1
        read, bad = self.totals
        if bad <= _SHOWN:
            last = "; later ones are only counted" if bad == _SHOWN else ""
            _LOG.warning("skipped bad %s image %d: %s%s", self.name, bad, error, last)
        if bad > LARGEST_SHARE * max(read, self.length):
            raise DatasetError(
                f"{bad} of {read} {self.name} images read so far could not be used, more than {LARGEST_SHARE:.0%} of "
                f"the {self.length}; the last: {error}; list all of them with `gicinpaint prepare check=true`"
            )

    def log_total(self) -> None:
        """Log how many images were skipped, if any."""
        read, bad = self.totals
        if bad:
            _LOG.warning("skipped %d bad %s images of %d read", bad, self.name, read)

    def _row(self) -> int:
        worker = get_worker_info()
        return 0 if worker is None else worker.id % len(self._rows)


@dataclass(eq=False)
class InpaintingDataset(Dataset[Batch | None]):
    """Images with a crop, a flip and a hole of their own.

    Item (epoch, index) depends on (seed, epoch, index) and the files alone: not on the worker that makes it, nor on
    what was made before. Crop and mask have separate generators, so another mask preset leaves the crops alone.

    Args:
        source: Where the images come from.
        crop: Brings an image to the training size.
        mask: Draws the holes. Masks with numbers give item (epoch, index) mask `index`, whatever the seed.
        height: Height of the items.
        width: Width of the items.
        seed: The run's seed.
        flip: Probability of a left-right flip.
        color_augment: Changes an image's colors, (3, H, W) in [-1, 1]; None keeps them.
        on_error: What to do with an image that cannot be used: "raise" its `ImageError`, or "skip" it.
        replace: What takes its place then: another image, the same in every run, or None (for validation).
        name: What messages call the images.
        workers: Number of processes that make items.

    Raises:
        ValueError: If `on_error` or `flip` is none of the values above.
    """

    source: ImageSource
    crop: Crop
    mask: MaskSampler | NumberedMasks
    _: KW_ONLY
    height: int
    width: int
    seed: int = 0
    flip: float = 0.5
    color_augment: ColorAugment | None = None
    on_error: OnError = "raise"
    replace: bool = True
    name: str = "dataset"
    workers: int = 0

    def __post_init__(self) -> None:
        check_on_error(self.on_error)
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability in 0..1, got {self.flip}; use 0.5, or 0 for no flips")
        self.bad_images = BadImageCount(self.name, len(self.source), self.workers)
        self._is_numbered = isinstance(self.mask, NumberedMasks)  # asked once: for a protocol the question is slow

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Item) -> Batch | None:
        """Return item (epoch, index) as a batch of one, or None for a bad image that nothing replaces."""
        sample = self._make(*item)
        return None if sample is None else collate([sample])

    def __getitems__(self, items: Sequence[Item]) -> list[Sample]:
        """Return the items of a batch, (epoch, index) each, without bad images that nothing replaces.

        Raises:
            ImageError: If an image cannot be used and `on_error` is "raise"; and if none is left.
            DatasetError: If more than 1 % of the images cannot be used and `on_error` is "skip".
        """
        samples = [sample for item in items if (sample := self._make(*item)) is not None]
        if not samples:
            raise ImageError(
                f"none of the {len(items)} images of a batch can be used; list all bad ones with "
                "`gicinpaint prepare check=true`"
            )
        return samples

    def read(self, epoch: int, index: int) -> Tensor:
        """Return the cropped and flipped image of an item, float32 (3, H, W), [-1, 1], or raise an ImageError."""
        image = self._read(epoch, index, index)
        return image if image.is_floating_point() else to_float(image)

    def _make(self, epoch: int, index: int) -> Sample | None:
        image = self._find_usable(epoch, index)
        if image is None:
            return None
        if self._is_numbered:
            mask, box = cast(NumberedMasks, self.mask)([index], self.height, self.width)
        else:
            generator = self._generator(epoch, index, "mask")
            mask, box = cast(MaskSampler, self.mask)(1, self.height, self.width, generator=generator)
        return Sample(image, mask[0].to(torch.uint8), box)

    def _find_usable(self, epoch: int, index: int) -> Tensor | None:
        self.bad_images.add_read()
        chosen = index
        for attempt in range(1, _TRIES + 1):
            try:
                return self._read(epoch, index, chosen)
            except ImageError as error:
                if self.on_error == "raise":
                    raise
                self.bad_images.add_bad(error)
                if not self.replace:
                    return None
                chosen = derive_seed(self.seed, epoch, index, "replacement", attempt) % len(self.source)
        raise ImageError(f"{_TRIES} images drawn to replace {self.source.name(index)} cannot be used either")

    def _read(self, epoch: int, index: int, chosen: int) -> Tensor:
        """Return image `chosen` as item (epoch, index) crops and flips it; float32 if colors are augmented."""
        generator = self._generator(epoch, index, "crop")
        image = self.source.read(chosen)
        try:
            image = self.crop(image, self.height, self.width, generator)
        except ImageError as error:
            raise ImageError(f"cannot use image {self.source.name(chosen)}: {error}") from None
        levels = to_levels(image)
        if self.flip and torch.rand((), generator=generator).item() < self.flip:
            levels = hflip(levels)
        if self.color_augment is None:
            return levels
        return self.color_augment(to_float(levels), self._generator(epoch, index, "colours"))

    def _generator(self, epoch: int, index: int, use: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, epoch, index, use))
