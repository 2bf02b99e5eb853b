"""The data module: images from a source, holes from a mask sampler, in an order that resumes exactly."""

import gc
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import lightning
import torch
from torch.utils.data import DataLoader

from gicinpaint.data.dataset import Batch, InpaintingDataset, OnError, collate
from gicinpaint.data.image_io import ImageError
from gicinpaint.data.order import EndlessBatchSampler, EpochBatchSampler, FiniteBatchSampler
from gicinpaint.data.sources import DatasetError, ImageSource
from gicinpaint.data.transforms import CenterCropResize, ColorAugment, Crop, RandomCrop
from gicinpaint.masks.sampler import MaskSampler, NumberedMasks

_FIXED_EPOCH = -1  # validation items belong to no epoch: their crops and masks depend on (seed, index) only
_PROBES = 4


class InpaintingDataModule(lightning.LightningDataModule):
    """Training batches without end and fixed validation batches.

    Training starts at the batch that the module counts in `batches_seen` (0 without a trainer). It has no end for a
    trainer that counts batches, not epochs (`check_val_every_n_epoch=None`), or for none; any other gets one epoch at a
    time. Validation, which also serves `Trainer.test` and `Trainer.predict`, takes every image once, with the hole that
    belongs to it: a function of the sampler, `validation_seed` and index, or for masks with numbers of preset, seed and
    index alone. Loaders yield uint8 batches, which become float32 on the device. The trainer must leave the samplers
    alone: `use_distributed_sampler=False`.

    Args:
        train: Images to train on.
        validation: Images to validate on.
        mask: Draws the holes. None is for configurations that are not built, as in `evaluate`.
        validation_mask: Draws the validation holes, or masks with numbers (`FixedMasks`): image i gets mask i.
            Default: `mask`.
        image_size: Height and width in pixels, or one number for both.
        train_crop: Brings a training image to that size. Default: a random crop at its own scale.
        validation_crop: Does the same in validation. Default: the largest centred window, resized.
        flip: Probability of a left-right flip in training.
        color_augment: Changes the colors of training images, (3, H, W) in [-1, 1]. Default: they stay as they are.
        batch_size: Images per batch over all processes together.
        validation_batch_size: The same in validation. Default: `batch_size`.
        workers: Worker processes for each process's training loader, and as many for validation; 0 reads in the
            process itself.
        seed: The run's seed, for order, crops, flips and holes.
        validation_seed: Seed of the validation holes; the same for all runs that are to be compared.
        on_error: "raise": a bad image stops the run with its name. "skip": it is counted, the first ten are logged,
            and above 1 % the run stops; in training another image takes its place, in validation none does.
        prefetch: Batches that each worker prepares in advance.
        multiprocessing_context: How workers start: "fork", "spawn", "forkserver", or None for the platform's default.

    Raises:
        ValueError: If a size or count is impossible.
        DatasetError: If there are fewer images than a batch, or the first ones cannot be used.
    """

    def __init__(
        self,
        train: ImageSource,
        validation: ImageSource,
        mask: MaskSampler | None,
        *,
        validation_mask: MaskSampler | NumberedMasks | None = None,
        image_size: int | Sequence[int] = 256,
        train_crop: Crop | None = None,
        validation_crop: Crop | None = None,
        flip: float = 0.5,
        color_augment: ColorAugment | None = None,
        batch_size: int = 16,
        validation_batch_size: int | None = None,
        workers: int = 4,
        seed: int = 0,
        validation_seed: int = 0,
        on_error: OnError = "raise",
        prefetch: int = 2,
        multiprocessing_context: str | None = None,
    ) -> None:
        super().__init__()
        if mask is None:
            raise ValueError("mask must be a sampler of holes, got None; choose one, e.g. RectangleMask()")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(height, width, batch_size, prefetch) < 1 or workers < 0:
            raise ValueError(
                "image_size, batch_size and prefetch must be at least 1 and workers at least 0, "
                f"got {height}x{width}, {batch_size}, {prefetch} and {workers}; correct the dataset's settings"
            )
        if len(train) < batch_size:
            raise DatasetError(
                f"a batch of {batch_size} needs at least as many training images, found {len(train)}; "
                f"set batch_size to {len(train)} or less, or add images"
            )
        self.batch_size = batch_size
        self.validation_batch_size = validation_batch_size or batch_size
        self.workers = workers
        self.seed = seed
        self.prefetch = prefetch
        self.multiprocessing_context = multiprocessing_context
        dataset = partial(InpaintingDataset, height=height, width=width, on_error=on_error, workers=workers)
        train_crop = train_crop or RandomCrop()
        self.train = dataset(
            train, train_crop, mask, seed=seed, flip=flip, color_augment=color_augment, name="training"
        )
        validation_crop, validation_mask = validation_crop or CenterCropResize(), validation_mask or mask
        self.validation = dataset(
            validation, validation_crop, validation_mask, seed=validation_seed, flip=0, replace=False, name="validation"
        )
        _probe(self.train)
        _probe(self.validation)
        self._loaders: WeakSet[_BatchLoader] = WeakSet()  # their workers end with them

    def check_processes(self, count: int) -> None:
        """Raise a ValueError unless that many processes can share the batches and the validation images."""
        EndlessBatchSampler(len(self.train), self.batch_size, world_size=count)
        FiniteBatchSampler(len(self.validation), count, epoch=_FIXED_EPOCH, world_size=count)

    def train_dataloader(self) -> DataLoader:
        """Return this process's part of the stream of training batches, endless or of the epoch that is going on."""
        endless = self.trainer is None or self.trainer.check_val_every_n_epoch is None
        kind, order = EndlessBatchSampler if endless else EpochBatchSampler, self.train.source.order
        sampler = kind(
            len(self.train), self.batch_size, seed=self.seed, position=self._batches_seen, order=order, **self._share()
        )
        return self._load(self.train, sampler)

    def val_dataloader(self) -> DataLoader:
        """Return this process's part of the validation images, each exactly once over all processes."""
        share = self._share()
        batch_size = -(-self.validation_batch_size // share["world_size"]) * share["world_size"]
        sampler = FiniteBatchSampler(len(self.validation), batch_size, epoch=_FIXED_EPOCH, **share)
        return self._load(self.validation, sampler)

    test_dataloader = predict_dataloader = val_dataloader

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn 8-bit images and masks into floating point, in the trainer's precision."""
        if not isinstance(batch, Batch):
            return batch
        batch = batch.to_float()
        return batch if self.trainer is None else self.trainer.precision_plugin.convert_input(batch)

    def on_exception(self, exception: BaseException) -> None:
        """End the workers at once: they ignore SIGTERM, and a process that fails would wait for them for ever."""
        for loader in self._loaders:
            loader.kill_workers()
        gc.unfreeze()

    def teardown(self, stage: str) -> None:
        """Return all objects to the garbage collector, and log how many images were skipped."""
        gc.unfreeze()
        self.train.bad_images.log_total()
        self.validation.bad_images.log_total()

    def _load(self, dataset: InpaintingDataset, sampler: EndlessBatchSampler | FiniteBatchSampler) -> DataLoader:
        loader = _BatchLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=self.prefetch if self.workers else None,
            persistent_workers=self.workers > 0,
            multiprocessing_context=self.multiprocessing_context if self.workers else None,
            worker_init_fn=ignore_signals,
        )
        self._loaders.add(loader)
        return loader

    def _share(self) -> dict[str, int]:
        trainer = self.trainer
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return {"rank": rank, "world_size": world_size}

    def _batches_seen(self) -> int:
        module = None if self.trainer is None else self.trainer.lightning_module
        return int(getattr(module, "batches_seen", 0))


class _BatchLoader(DataLoader):
    """A loader that knows its worker processes, so that they can be killed."""

    _workers: tuple[multiprocessing.process.BaseProcess, ...] = ()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises a class of its own
        if not self.num_workers or self._workers:
            return _received(super().__iter__())
        gc.collect()
        gc.freeze()  # a collection would write to, and so copy, the pages that forked workers share
        before = set(multiprocessing.active_children())
        batches = super().__iter__()
        self._workers = tuple(set(multiprocessing.active_children()) - before)
        return _received(batches)

    def kill_workers(self) -> None:
        """Kill the worker processes; the loader is of no use afterwards."""
        if not self._workers or threading.current_thread() is not threading.main_thread():
            return
        ended = getattr(signal, "SIGCHLD", None)  # absent on Windows
        handler = ended and signal.signal(ended, signal.SIG_DFL)  # torch's raises an error for every killed worker
        try:
            for worker in self._workers:
                worker.kill()
            for worker in self._workers:
                worker.join()
        finally:
            if ended:
                signal.signal(ended, handler)


def _received(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches; a worker lost while its memory is taken over gets the name that torch gives it elsewhere."""
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        raise RuntimeError("DataLoader worker was lost while its batch was taken over") from error


def ignore_signals(_: int) -> None:
    """Let a worker survive a SIGTERM or Ctrl+C that its whole process group gets: the main process ends it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _probe(dataset: InpaintingDataset) -> None:
    """Use a few images before the run starts, so that a wrong folder or size shows in its first second."""
    count = len(dataset)
    indices = sorted({index * (count - 1) // max(1, _PROBES - 1) for index in range(_PROBES)})
    errors = []
    for index in indices:
        try:
            dataset.read(_FIXED_EPOCH, index)
        except ImageError as error:
            errors.append(error)
    if errors and (dataset.on_error == "raise" or len(errors) == len(indices)):
        raise DatasetError(
            f"{len(errors)} of {len(indices)} images tried before the start cannot be used; the first: {errors[0]}"
        )
