"""What happens to an image that cannot be used: raise, or skip, count and stop above one per cent."""

import logging

import torch
from torch.utils.data import get_worker_info

from gicinpaint.data.image_io import ImageError
from gicinpaint.data.listing import DatasetError

LARGEST_SHARE = 0.01
_SHOWN = 10

_log = logging.getLogger(__name__)


class FaultCount:
    """Count the reads and the bad images of all worker processes of one data loader.

    Each process adds to its own row of a shared tensor, so no lock is needed and no count is lost.

    Args:
        name: What the images are, for messages.
        length: Number of images in the dataset; the share of bad ones is taken of at least that many.
        workers: Number of worker processes.
    """

    def __init__(self, name: str, length: int, workers: int = 0) -> None:
        self.name = name
        self.length = length
        self._rows = torch.zeros(max(1, workers), 2, dtype=torch.int64).share_memory_()

    @property
    def read(self) -> int:
        """Number of images asked for so far."""
        return int(self._rows[:, 0].sum())

    @property
    def bad(self) -> int:
        """Number of them that could not be used."""
        return int(self._rows[:, 1].sum())

    def add_read(self) -> None:
        """Count an image that was asked for."""
        self._rows[self._row(), 0] += 1

    def add_bad(self, error: ImageError) -> None:
        """Count a bad image and log it if it is among the first ten.

        Raises:
            DatasetError: If more than 1 % is bad.
        """
        self._rows[self._row(), 1] += 1
        bad, read = self.bad, self.read
        if bad <= _SHOWN:
            last = "; later ones are only counted" if bad == _SHOWN else ""
            _log.warning("skipped bad %s image %d: %s%s", self.name, bad, error, last)
        if bad > LARGEST_SHARE * max(read, self.length):
            raise DatasetError(
                f"{bad} of {read} {self.name} images read so far could not be used, more than {LARGEST_SHARE:.0%} of "
                f"the {self.length}; the last: {error}; list all of them with `gicinpaint prepare check=true`"
            )

    def log_total(self) -> None:
        """Log how many images were skipped, if any."""
        if self.bad:
            _log.warning("skipped %d bad %s images of %d read", self.bad, self.name, self.read)

    def _row(self) -> int:
        worker = get_worker_info()
        return 0 if worker is None else worker.id % len(self._rows)
