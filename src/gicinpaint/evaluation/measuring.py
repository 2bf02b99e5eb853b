"""One method over all images: exact sums that can be interrupted and continued, by one process or several."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from tqdm import tqdm

from gicinpaint.attention.image_grid import to_image
from gicinpaint.evaluation.cost import Cost
from gicinpaint.evaluation.images import EvaluationImages
from gicinpaint.evaluation.masks import NumberedMasks
from gicinpaint.evaluation.methods import Method
from gicinpaint.evaluation.writing import write_text
from gicinpaint.metrics import RegionMetric
from gicinpaint.training.checkpoint import AtomicCheckpointIO

_SECONDS_BETWEEN_SAVES = 15.0


@dataclass(frozen=True)
class Result:
    """What a method reached.

    Attributes:
        values: Averages over all images, by column.
        images: Number of images.
        seconds_per_image: Time of the method alone, without reading and measuring.
        peak_memory_mib: Memory that it took beyond what the process held, in MiB.
        each: Numbers of the images one by one, by column, None where an image has none; a column that measures the
            images as a set, such as FID, is not among them.
    """

    values: dict[str, float]
    images: int
    seconds_per_image: float
    peak_memory_mib: float
    each: dict[str, list[float | None]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Measurement:
    """All that methods are measured with, the same for every method.

    Args:
        images: The images.
        masks: Mask i belongs to image i.
        metrics: Columns of the table.
        folder: Where results and interrupted work are kept.
        pictured: Numbers of the images of which the completions are kept.
        fabric: The processes and their devices; it must be launched.
        batch_size: Images per call of a method, in each process.
        workers: Processes that read images, for each process.
    """

    images: EvaluationImages
    masks: NumberedMasks
    metrics: MetricCollection
    folder: Path
    pictured: Sequence[int]
    fabric: Fabric
    batch_size: int = 8
    workers: int = 0

    def run(self, name: str, make: Callable[[], Method], identity: dict[str, Any]) -> Result:
        """Measure a method, or return its result if the folder has it.

        Args:
            name: What to call the method.
            make: Builds it; not called if the folder has the result.
            identity: Plain data that tells it from every other method, images and masks included.

        Raises:
            ImageError: If an image cannot be used.
        """
        key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        kept = self.folder / "methods" / f"{name}.json"
        result = _read_result(kept, key)
        if result is None or not all(self.picture(name, index).is_file() for index in self.pictured):
            result = self._measure(name, make(), key)
            if self.fabric.is_global_zero:
                write_text(kept, json.dumps({"key": key, **asdict(result)}) + "\n")
        self.fabric.barrier()
        _Progress(self, name, key).path.unlink(missing_ok=True)
        return result

    def picture(self, name: str, index: int) -> Path:
        """Return where a method's completion of an image is kept."""
        return self.folder / "completed" / name / f"{index:06d}.png"

    def _measure(self, name: str, method: Method, key: str) -> Result:
        fabric, progress = self.fabric, _Progress(self, name, key)
        mine = range(fabric.global_rank, len(self.images), fabric.world_size)
        progress.load()
        bar = tqdm(
            total=len(mine),
            initial=progress.done,
            desc=name,
            unit=" images",
            disable=not fabric.is_global_zero,
            dynamic_ncols=True,
        )
        with bar:
            for indices, image in self._batches(mine[progress.done :]):
                image, mask = image.to(fabric.device), self._mask(indices)
                with progress.cost.running():
                    completed = method(image, mask)
                progress.add(indices, completed, image, mask)
                self._keep_pictures(name, indices, completed)
                progress.save_now_and_then()
                bar.update(len(indices))
        progress.save()
        values = {column: float(value) for column, value in progress.metrics.compute().items()}
        spent = torch.tensor([progress.cost.seconds, progress.cost.peak], dtype=torch.float64, device=fabric.device)
        everyones = torch.as_tensor(fabric.all_gather(spent)).reshape(-1, 2)  # (processes, 2)
        seconds, peak = everyones[:, 0].sum(), everyones[:, 1].max()
        count, each = len(self.images), self._each(progress)
        return Result(values, count, float(seconds) / count, float(peak) / 2**20, each)

    def _each(self, progress: "_Progress") -> dict[str, list[float | None]]:
        """Join what the processes noted of their images; each left zeros where the images were another's."""
        everyones = self.fabric.all_reduce(progress.each.to(self.fabric.device), reduce_op="sum")
        columns = torch.as_tensor(everyones).unbind(1)  # of (images, 2)
        return {
            column: [value if counted else None for value, counted in rows.tolist()]
            for column, rows in zip(progress.columns, columns, strict=True)
        }

    def _batches(self, indices: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        batches = [list(indices[start : start + self.batch_size]) for start in range(0, len(indices), self.batch_size)]
        loader = DataLoader(self.images, batch_sampler=batches, num_workers=self.workers)
        return zip(batches, loader, strict=True)

    def _mask(self, indices: Sequence[int]) -> Tensor:
        return self.masks(indices, self.images.height, self.images.width)[0].to(self.fabric.device)

    def _keep_pictures(self, name: str, indices: Sequence[int], completed: Tensor) -> None:
        for index, image in zip(indices, completed, strict=True):
            if index in self.pictured:
                path = self.picture(name, index)
                path.parent.mkdir(parents=True, exist_ok=True)
                to_image(image).save(path)


class _Progress:
    """How far one process has come with one method; written now and then, so that an interruption costs seconds."""

    def __init__(self, measurement: Measurement, name: str, key: str) -> None:
        fabric = measurement.fabric
        place = f"{fabric.global_rank}-of-{fabric.world_size}"
        self.path = measurement.folder / "methods" / f"{name}.{place}.partial"
        self.key = key
        self.metrics = measurement.metrics.clone().to(fabric.device)
        self.metrics.reset()
        self.columns = [column for column, metric in self.metrics.items() if isinstance(metric, RegionMetric)]
        self.each = torch.zeros(len(measurement.images), len(self.columns), 2, dtype=torch.float64)
        self.cost = Cost(fabric.device)
        self.done = 0
        self._saved = time.monotonic()

    def load(self) -> None:
        """Continue where an earlier run of the same work stopped, if there was one."""
        if not self.path.is_file():
            return
        kept = AtomicCheckpointIO().load_checkpoint(self.path, map_location=self.cost.device)
        if kept["key"] == self.key:
            for name, metric in self.metrics.items():
                metric.merge_state(kept["states"][name])
                metric._update_count = 1  # merging does not count, and computing would warn
            self.cost = Cost(self.cost.device, kept["seconds"], kept["peak"])
            self.each = kept["each"].cpu()
            self.done = kept["done"]

    def add(self, indices: list[int], completed: Tensor, image: Tensor, mask: Tensor) -> None:
        """Measure a batch."""
        self.metrics.update(completed, image, mask)
        for place, column in enumerate(self.columns):
            self.each[indices, place] = torch.as_tensor(self.metrics[column].latest).cpu()
        self.done += len(indices)

    def save_now_and_then(self) -> None:
        """Save if the last time was a while ago."""
        if time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Save the sums so far."""
        states = {name: metric.metric_state for name, metric in self.metrics.items()}
        kept = {"key": self.key, "done": self.done, "seconds": self.cost.seconds, "peak": self.cost.peak}
        AtomicCheckpointIO().save_checkpoint({**kept, "states": states, "each": self.each}, self.path)
        self._saved = time.monotonic()


def _read_result(path: Path, key: str) -> Result | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Result(**{k: v for k, v in kept.items() if k != "key"}) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, or not whole
        return None
