"""Measure a method on all images: exact sums that can be interrupted and resumed, in one process or several."""

import contextlib
import ctypes
import gc
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch
from lightning import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from gicinpaint.attention.visualize import to_image
from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.progress_bar import Bar
from gicinpaint.data.datamodule import ignore_signals
from gicinpaint.evaluation.images import EvaluationImages
from gicinpaint.evaluation.methods import Method
from gicinpaint.masks.sampler import NumberedMasks
from gicinpaint.metrics import PatchDistance, RegionMetric
from gicinpaint.training.checkpoint import AtomicCheckpointIO
from gicinpaint.training.run_record import resident_memory

_SECONDS_BETWEEN_SAVES = 15.0


@dataclass(frozen=True)
class MethodResult:
    """Result of one method.

    `each` has the value of each image by column, None where an image has none, without columns that measure the images
    as a set, such as FID. `groups` has the patch distances of each group, by column.
    """

    values: dict[str, float]  # of each column, over all images
    images: int
    seconds_per_image: float  # of the method alone, without reading and measuring
    peak_memory_mib: float  # beyond what the process held before
    each: dict[str, list[float | None]] = field(default_factory=dict, repr=False)
    groups: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)

    def summary(self) -> dict[str, Any]:
        """Return values and costs as JSON can hold them: text for an infinite value, None for NaN."""
        values = {c: None if isnan(v) else v if isfinite(v) else str(v) for c, v in self.values.items()}
        costs = {"seconds_per_image": self.seconds_per_image, "peak_memory_mib": self.peak_memory_mib}
        return {"values": values, "images": self.images, **costs}


@dataclass(frozen=True)
class Measurement:
    """Everything that is the same for all methods."""

    images: EvaluationImages
    masks: NumberedMasks  # mask i belongs to image i
    metrics: MetricCollection  # columns of the table
    folder: Path  # of results and of interrupted work
    pictured: Sequence[int]  # indices of the images whose completions are saved
    fabric: Fabric  # the processes and their devices; it must be launched
    batch_size: int = 8  # images per call of a method, in each process
    workers: int = 0  # processes that read images, for each process
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)  # indices, for patch distances of each group

    def run(self, name: str, make: Callable[[], Method], identity: dict[str, Any]) -> MethodResult:
        """Measure the method that `make` builds, or return its result if the folder has it.

        The identity is plain data that sets it apart from every other method, images and masks included.

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
        self.unfinished(name).unlink(missing_ok=True)
        return result

    def unfinished(self, name: str) -> Path:
        """Return the path of this process's interrupted work on a method."""
        rank = f"{self.fabric.global_rank}-of-{self.fabric.world_size}"
        return self.folder / "methods" / f"{name}.{rank}.partial"

    def picture(self, name: str, index: int) -> Path:
        """Return the path of a method's completion of an image."""
        return self.folder / "completed" / name / f"{index:06d}.png"

    def _measure(self, name: str, method: Method, key: str) -> MethodResult:
        fabric, progress = self.fabric, _Progress(self, name, key)
        mine = range(fabric.global_rank, len(self.images), fabric.world_size)
        progress.load()
        left = mine[progress.done :]
        batches = [list(left[start : start + self.batch_size]) for start in range(0, len(left), self.batch_size)]
        options: dict[str, Any] = {"num_workers": self.workers, "worker_init_fn": ignore_signals}
        loader = DataLoader(self.images, batch_sampler=batches, **options)
        shown = {"desc": name, "unit": " images", "disable": not fabric.is_global_zero}
        with Bar(total=len(mine), initial=progress.done, **shown) as bar:
            for indices, image in zip(batches, loader, strict=True):
                image = image.to(fabric.device)
                mask = self.masks(indices, self.images.height, self.images.width)[0].to(fabric.device)
                with progress.cost.running():
                    completed = method(image, mask)
                progress.add(indices, completed, image, mask)
                for index, picture in zip(indices, completed, strict=True):
                    if index in self.pictured:
                        path = self.picture(name, index)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        to_image(picture).save(path)
                if time.monotonic() - progress.saved >= _SECONDS_BETWEEN_SAVES:
                    progress.save()
                bar.update(len(indices))
        progress.save()
        spent = torch.tensor([progress.cost.seconds, progress.cost.peak], dtype=torch.float32, device=fabric.device)
        everyones = torch.as_tensor(fabric.all_gather(spent)).reshape(-1, 2)  # (processes, 2)
        seconds, peak, count = everyones[:, 0].sum(), everyones[:, 1].max(), len(self.images)
        joined = fabric.all_reduce(progress.each.to(fabric.device), reduce_op="sum")  # zeros for the others' images
        rows = torch.as_tensor(joined).unbind(1)  # for each column (images, 2)
        each = {
            column: [value if counted else None for value, counted in values.tolist()]
            for column, values in zip(progress.columns, rows, strict=True)
        }
        groups = {group: _computed(metrics) for group, metrics in progress.of_groups.items()}
        values, seconds_per_image = _computed(progress.metrics), float(seconds) / count
        return MethodResult(values, count, seconds_per_image, float(peak) / 2**20, each, groups)


class Cost:
    """Seconds, and peak memory in bytes, of the work done inside `with cost.running():` and of earlier work.

    On a processor the memory is the growth of the process's resident memory, on an accelerator what the allocator gave
    out beyond what was held.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0, peak: int = 0) -> None:
        self.device = device
        self.seconds = seconds
        self.peak = peak
        gc.collect()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the work inside."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        else:
            with contextlib.suppress(OSError, AttributeError):  # returns memory that was freed but kept for reuse
                ctypes.CDLL(None).malloc_trim(0)
            with contextlib.suppress(OSError):  # only Linux forgets peaks; elsewhere the earlier peak is the start
                Path("/proc/self/clear_refs").write_text("5")
            before = resident_memory()
        started = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else resident_memory(field="VmHWM")
        self.peak = max(self.peak, peak - before)


class _Progress:
    """State of one process and method, saved every few seconds so that an interruption costs little."""

    def __init__(self, measurement: Measurement, name: str, key: str) -> None:
        fabric = measurement.fabric
        self.path = measurement.unfinished(name)
        self.key = key
        self.metrics = measurement.metrics.clone().to(fabric.device)
        self.metrics.reset()
        self.columns = [column for column, metric in self.metrics.items() if isinstance(metric, RegionMetric)]
        of_sets: Any = {column: metric for column, metric in self.metrics.items() if isinstance(metric, PatchDistance)}
        self.members = {group: set(indices) for group, indices in measurement.groups.items() if of_sets}
        self.of_groups = {g: MetricCollection(of_sets, compute_groups=False).clone() for g in self.members}
        self.each = torch.zeros(len(measurement.images), len(self.columns), 2, dtype=torch.float64)
        self.cost = Cost(fabric.device)
        self.done = 0
        self.saved = time.monotonic()

    def load(self) -> None:
        """Resume an interrupted run of the same work, if there was one."""
        io = AtomicCheckpointIO()
        kept = io.load_checkpoint(self.path, map_location=self.cost.device) if self.path.is_file() else {}
        if kept.get("key") == self.key:
            for name, metric in self._all_metrics().items():
                metric.merge_state(kept["states"][name])
            self.cost = Cost(self.cost.device, kept["seconds"], kept["peak"])
            self.each = kept["each"].cpu()
            self.done = kept["done"]

    def add(self, indices: list[int], completed: Tensor, image: Tensor, mask: Tensor) -> None:
        """Measure a batch."""
        self.metrics.update(completed, image, mask)
        for group, metrics in self.of_groups.items():
            for i, index in enumerate(indices):
                if index in self.members[group]:
                    metrics.update(completed[i, None], image[i, None], mask[i, None])
        for place, column in enumerate(self.columns):
            self.each[indices, place] = torch.as_tensor(self.metrics[column].latest).cpu()
        self.done += len(indices)

    def save(self) -> None:
        """Save the sums so far."""
        states = {name: metric.metric_state for name, metric in self._all_metrics().items()}
        kept = {"key": self.key, "done": self.done, "seconds": self.cost.seconds, "peak": self.cost.peak}
        AtomicCheckpointIO().save_checkpoint({**kept, "states": states, "each": self.each}, self.path)
        self.saved = time.monotonic()

    def _all_metrics(self) -> dict[str, Any]:
        collections = {"": self.metrics, **{f"{group}: ": metrics for group, metrics in self.of_groups.items()}}
        return {prefix + name: metric for prefix, found in collections.items() for name, metric in found.items()}


def _computed(metrics: MetricCollection) -> dict[str, float]:
    with warnings.catch_warnings():  # merged states do not count as an update, and an empty metric is NaN
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        return {column: float(value) for column, value in metrics.compute().items()}


def _read_result(path: Path, key: str) -> MethodResult | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return MethodResult(**{k: v for k, v in kept.items() if k != "key"}) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, or cut off
        return None
