"""Item i of epoch e is one image, crop, flip and hole, for any number of workers and processes."""

import itertools
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.data import Batch, ColorJitter, ImageFiles, InpaintingDataModule, Packing, TarShards, prepare
from gicinpaint.data.sources import ImageSource
from gicinpaint.masks import FreeFormMask, MixedMask, RectangleMask

SPAWN = multiprocessing.get_context("spawn")
BATCHES = 7  # of 6 images out of 17: more than two epochs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(17):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 44 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    prepare({"train": ImageFiles(folder)}, folder / "shards", Packing(images_per_shard=4), workers=0, progress=False)
    return folder


def open_source(folder: Path, kind: str) -> ImageSource:
    return TarShards(folder / "shards" / "train") if kind == "shards" else ImageFiles(f"{folder}/*.png")


def draw(source: ImageSource, workers: int, rank: int = 0, world_size: int = 1, **settings) -> list[Batch]:
    masks = MixedMask([RectangleMask(box=16, inset=3), FreeFormMask(box=16, brush=(2, 5))])
    settings = {"image_size": 32, "batch_size": 6, "seed": 11, "color_augment": ColorJitter(), **settings}
    data = InpaintingDataModule(source, source, masks, workers=workers, **settings)
    module = SimpleNamespace(batches_seen=0)
    data.trainer = SimpleNamespace(
        lightning_module=module, global_rank=rank, world_size=world_size, check_val_every_n_epoch=None
    )
    return list(itertools.islice(data.train_dataloader(), BATCHES))


def values(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.image, batch.mask, batch.box.top, batch.box.left


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    for one, other in zip(some, others, strict=True):
        for a, b in zip(values(one), values(other), strict=True):
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_batches_are_the_same_bit_for_bit_with_0_1_and_3_workers_and_any_prefetch(folder: Path, kind: str) -> None:
    alone = draw(open_source(folder, kind), workers=0)
    assert_same(alone, draw(open_source(folder, kind), workers=0))
    assert_same(alone, draw(open_source(folder, kind), workers=1, prefetch=4))
    assert_same(alone, draw(open_source(folder, kind), workers=3))
    assert not torch.equal(alone[0].image, draw(open_source(folder, kind), workers=0, seed=12)[0].image)


def _draw_part(folder: Path, rank: int, workers: int, target: Path) -> None:
    torch.set_num_threads(1)  # two processes share the cores
    parts = {kind: draw(open_source(folder, kind), workers, rank, 2) for kind in ("folder", "shards")}
    torch.save({kind: [values(batch) for batch in batches] for kind, batches in parts.items()}, target)


def test_two_processes_share_the_batches_of_one(folder: Path, tmp_path: Path) -> None:
    processes = [SPAWN.Process(target=_draw_part, args=(folder, rank, rank, tmp_path / str(rank))) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    parts = [torch.load(tmp_path / str(rank)) for rank in (0, 1)]
    for kind in ("folder", "shards"):
        for batch, first, second in zip(
            draw(open_source(folder, kind), 0), *(part[kind] for part in parts), strict=True
        ):
            for whole, one, two in zip(values(batch), first, second, strict=True):
                assert torch.equal(whole, torch.cat([one, two]))


def test_images_of_one_batch_and_of_two_epochs_differ(folder: Path) -> None:
    """Workers that shared a random state would repeat each other's crops and holes."""
    batches = draw(open_source(folder, "folder"), workers=3)
    masks = torch.cat([batch.mask for batch in batches]).flatten(1)
    images = torch.cat([batch.image for batch in batches]).flatten(1)
    assert len(torch.unique(masks, dim=0)) == len(masks)
    assert len(torch.unique(images, dim=0)) == len(images)
