"""Reading of training data: images per second, holes and batches, memory."""

import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gicinpaint.benchmark.cases import Figure, check_parts
from gicinpaint.data import ImageFiles, InpaintingDataModule, InpaintingDataset, Packing, RandomCrop, TarShards, prepare
from gicinpaint.data.dataset import collate
from gicinpaint.data.sources import ImageSource
from gicinpaint.masks.sampler import MaskSampler
from gicinpaint.training.run_record import resident_memory

PARTS = ("speed", "memory")
IMAGES_PER_SECOND = 150.0  # of a worker process; the goals are those of docs/data.md
WIDTH, HEIGHT = 500, 375
_QUALITY = 92  # with the spectrum below a file has about 58 KB, the average of Places2
_ROUGHNESS = 1.48  # amplitudes fall with this power of the frequency; those of photographs with about 1


@dataclass
class DataBenchmark:
    """Measure what training data costs, with files of its own in a temporary folder.

    The part "speed" has the images/s of one worker from a folder of JPEGs of 500 x 375 and from shards, and what holes
    and batches add; "memory" has the growth of a worker. Processor time counts where one process works alone: other
    programs disturb it least.

    Raises:
        ValueError: If a part is none of those, or a number is too small.
    """

    mask: MaskSampler  # draws the holes
    parts: Sequence[str] = PARTS
    images: int = 256  # number of JPEGs
    image_size: int = 256  # height and width of the crops
    batch_size: int = 16
    items: int = 10_000  # images that a worker reads while its memory is watched, from a tenth of them on
    scratch: str | None = None  # folder for the files, deleted at the end; None: the system's for temporary files

    def __post_init__(self) -> None:
        check_parts(self.parts, PARTS)
        images, batch_size, items = self.images, self.batch_size, self.items
        if min(self.image_size, batch_size) < 1 or images < batch_size or items < 2 * batch_size:
            raise ValueError(
                "numbers must be at least 1, images at least batch_size and items at least twice that, got "
                f"images={images}, batch_size={batch_size} and items={items}; choose larger ones"
            )

    def figures(self, rounds: int) -> Iterator[Figure]:
        """Return the figures one after the other, the best of several rounds where something is repeated."""
        torch.set_num_threads(1)  # as in a worker process
        with tempfile.TemporaryDirectory(dir=self.scratch) as scratch:
            folder = Path(scratch)
            make_photographs(folder / "photographs", self.images)
            files = ImageFiles(folder / "photographs")
            packing = Packing(images_per_shard=max(1, self.images // 4))
            prepare({"train": files}, folder / "shards", packing, workers=0, progress=False)
            sources: dict[str, ImageSource] = {"folder": files, "shards": TarShards(folder / "shards" / "train")}
            if "speed" in self.parts:
                yield from self._speed(sources, rounds)
            if "memory" in self.parts:
                yield from self._memory(sources["folder"])

    def _speed(self, sources: dict[str, ImageSource], rounds: int) -> Iterator[Figure]:
        size = sum(len(sources["folder"].encoded(index)) for index in range(self.images)) / self.images
        yield Figure("speed", "size of a JPEG of 500 x 375", size / 1000, "KB")
        rates = {}
        for name, source in sources.items():
            read, packed, unpacked = self._seconds(source, rounds)
            rates[name] = 1 / packed
            least = IMAGES_PER_SECOND if name == "folder" else rates["folder"]
            yield Figure("speed", f"{name}: read, crop, flip, to values", 1 / read, "images/s", IMAGES_PER_SECOND)
            yield Figure("speed", f"{name}: a worker's batches with holes", rates[name], "images/s", least)
            added = packed + unpacked - read
            yield Figure("speed", f"{name}: holes and batches, all processes", 1000 * added, "ms/image")
            yield Figure("speed", f"{name}: the same, of the time to read", 100 * added / read, "%", most=5)
            share = 100 * added * IMAGES_PER_SECOND
            yield Figure("speed", f"{name}: the same, of 1/{IMAGES_PER_SECOND:.0f} s", share, "%", most=5)
            yield Figure("speed", f"{name}: to values, where it trains", 1000 * unpacked, "ms/image")
            through = self._rate_of_loader(source, rounds)
            yield Figure("speed", f"{name}: one worker's loader, by the clock", through, "images/s", IMAGES_PER_SECOND)

    def _seconds(self, source: ImageSource, rounds: int) -> tuple[float, float, float]:
        """Return the processor seconds per image: to read, in 8-bit batches with holes, and from these to float32."""
        size = self.image_size
        dataset = InpaintingDataset(source, RandomCrop(), self.mask, height=size, width=size)
        pieces = source.order(0, 0).split(self.batch_size)
        batches = [[(0, index) for index in piece.tolist()] for piece in pieces]
        found = torch.full((len(batches), 3), torch.inf, dtype=torch.float64)
        for _ in range(rounds + 1):  # the best counts, batch by batch: never the first, which warms up
            for number, items in enumerate(batches):
                batch = collate(dataset.__getitems__(items))
                steps: list[Callable[[], object]] = [
                    lambda items=items: [dataset.read(*item) for item in items],  # type: ignore[misc]
                    lambda items=items: collate(dataset.__getitems__(items)),  # type: ignore[misc]
                    batch.to_float,
                ]
                times = torch.tensor([_processor_seconds(step) for step in steps], dtype=torch.float64)
                found[number] = torch.minimum(found[number], times)
        read, whole, unpacked = (found.sum(0) / len(source)).tolist()
        return read, whole, unpacked

    def _rate_of_loader(self, source: ImageSource, rounds: int) -> float:
        """Return the images per second that one worker process delivers to this one."""
        batches = iter(self._module(source).train_dataloader())
        count = -(-self.images // self.batch_size)
        best = 0.0
        for _ in range(rounds + 1):
            start = time.perf_counter()
            for _ in itertools.islice(batches, count):
                pass
            best = max(best, count * self.batch_size / (time.perf_counter() - start))
        return best

    def _memory(self, source: ImageSource) -> Iterator[Figure]:
        batches = iter(self._module(source).train_dataloader())
        count = -(-self.items // self.batch_size)
        first = -(-count // 10)  # until then caches and the memory for batches fill
        before = after = 0
        for number in range(1, count + 1):
            next(batches)
            if number in (first, count):
                (worker,) = multiprocessing.active_children()
                before, after = after, resident_memory(str(worker.pid))
        yield Figure("memory", f"a worker after {first * self.batch_size:,} images", before / 1e6, "MB")
        yield Figure("memory", f"the same after {count * self.batch_size:,} images", after / 1e6, "MB")
        yield Figure("memory", "growth", 100 * (after / before - 1), "%", most=1)

    def _module(self, source: ImageSource) -> InpaintingDataModule:
        return InpaintingDataModule(
            source, source, self.mask, image_size=self.image_size, batch_size=self.batch_size, workers=1
        )


def make_photographs(folder: Path, count: int) -> None:
    """Write JPEGs of 500 x 375 whose spectrum and size are those of photographs."""
    folder.mkdir(parents=True)
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / WIDTH) ** _ROUGHNESS
    for number in range(count):
        noise = np.random.default_rng(number).standard_normal((4, HEIGHT, WIDTH))
        planes = np.fft.irfft2(np.fft.rfft2(noise) * amplitude, (HEIGHT, WIDTH))
        planes /= planes.std((1, 2), keepdims=True)
        colour = 128 + 45 * planes[0] + 12 * planes[1:]  # mostly light and dark
        pixels = colour.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=_QUALITY)


def _processor_seconds(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start
