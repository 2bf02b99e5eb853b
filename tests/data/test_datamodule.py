"""The data module: batches that depend on the seed and their number alone, and errors before the run starts."""

import gc
import hashlib
import itertools
import logging
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.data import (
    DatasetError,
    ImageError,
    InpaintingDataModule,
    RandomCrop,
)
from gicinpaint.data.datamodule import InpaintingDataset
from gicinpaint.data.sources import ImageSource
from gicinpaint.masks import RectangleMask, paper_random

SIZE = 32
MASK = RectangleMask(box=[16, 16], inset=[4, 4])


class Noise(ImageSource):
    """Pictures of noise, 40 x 48; the first pixel of picture i is (i, i, i), its row's last is white."""

    def __init__(self, length, bad=()):
        self.length = length
        self.bad = frozenset(bad)

    def __len__(self):
        return self.length

    def read(self, index):
        if index in self.bad:
            raise ImageError(f"cannot read image {self.name(index)}: broken")
        pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), np.uint8)
        pixels[0, 0], pixels[0, -1] = index, 255
        return Image.fromarray(pixels)

    def name(self, index):
        return f"noise {index}"


class Corner:
    """The upper left corner, so that a picture can be told by its first pixel."""

    def __call__(self, image, height, width, generator):
        return image.crop((0, 0, width, height))


class Hanging(Noise):
    """Pictures that no worker process ever gets, as of a network disk that has gone."""

    def read(self, index):
        if multiprocessing.parent_process() is not None:
            time.sleep(1000)
        return super().read(index)


class Collecting(Noise):
    """Pictures whose reading looks for garbage, as Python does by itself now and then."""

    def read(self, index):
        gc.collect()
        return super().read(index)


def build(train=10, validation=7, bad=(), bad_validation=(), **settings):
    settings = {"image_size": SIZE, "batch_size": 4, "workers": 0, **settings}
    return InpaintingDataModule(Noise(train, bad), Noise(validation, bad_validation), MASK, **settings)


def first(loader, count):
    return [batch.to_float() for batch in itertools.islice(loader, count)]


def picture_numbers(batch):
    return batch.image[:, 0, 0, 0].tolist()  # 8 bits


def assert_same(batches, others):
    assert len(batches) == len(others)
    for one, other in zip(batches, others, strict=True):
        for a, b in [(one.image, other.image), (one.mask, other.mask), (one.box.top, other.box.top)]:
            assert torch.equal(a, b)
        assert torch.equal(one.box.left, other.box.left)
        assert (one.box.height, one.box.width) == (other.box.height, other.box.width)


def as_trainer(batches_seen, rank=0, world_size=1):
    module = SimpleNamespace(batches_seen=batches_seen)
    return SimpleNamespace(
        lightning_module=module, global_rank=rank, world_size=world_size, check_val_every_n_epoch=None
    )


def test_batches_hold_images_masks_and_boxes_that_fit_each_other():
    (batch,) = first(build().train_dataloader(), 1)
    assert batch.image.shape == (4, 3, SIZE, SIZE)
    assert batch.image.dtype == torch.float32
    assert -1 <= batch.image.min() < -0.9
    assert 0.9 < batch.image.max() <= 1
    assert batch.mask.shape == (4, 1, SIZE, SIZE)
    assert set(batch.mask.unique().tolist()) == {0.0, 1.0}
    for mask, top, left in zip(batch.mask, batch.box.top, batch.box.left, strict=True):
        inside = mask[:, top : top + batch.box.height, left : left + batch.box.width]
        assert inside.sum() == mask.sum() > 0
    assert len({tuple(mask.flatten().tolist()) for mask in batch.mask}) > 1  # each image has its own hole


def test_batches_are_the_same_bit_for_bit_with_any_number_of_workers():
    alone = first(build(seed=3).train_dataloader(), 6)  # 24 items of 10 images: three epochs
    assert_same(alone, first(build(seed=3).train_dataloader(), 6))
    assert_same(alone, first(build(seed=3, workers=2).train_dataloader(), 6))
    assert not torch.equal(alone[0].image, first(build(seed=4).train_dataloader(), 1)[0].image)


def test_an_item_does_not_depend_on_what_was_made_before():
    dataset, other = build().train, build().train
    one = dataset[(5, 3)]
    for item in [(0, 0), (5, 2), (4, 3)]:
        assert not torch.equal(other[item].image, one.image)
    torch.manual_seed(99)
    assert_same([one], [other[(5, 3)]])


def test_drawing_items_leaves_the_global_random_state_alone():
    data = build()
    before = torch.random.get_rng_state()
    data.train[(0, 0)]
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_mask_leaves_the_crops_alone():
    other = InpaintingDataset(Noise(10), RandomCrop(), RectangleMask(box=[8, 8], inset=[0, 0]), height=SIZE, width=SIZE)
    mine = InpaintingDataset(Noise(10), RandomCrop(), MASK, height=SIZE, width=SIZE)
    assert torch.equal(other[(1, 2)].image, mine[(1, 2)].image)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_starts_at_the_batch_that_the_module_counts(workers):
    whole = first(build().train_dataloader(), 7)
    resumed = build(workers=workers)
    resumed.trainer = as_trainer(batches_seen=4)
    assert_same(whole[4:], first(resumed.train_dataloader(), 3))


class Recorder(lightning.LightningModule):
    """Counts batches as the training module does and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches_seen = 0
        self.batches = []

    def training_step(self, batch):
        self.batches.append(batch)
        self.batches_seen += 1
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint):
        self.batches_seen = checkpoint["batches_seen"]


def fit(module, steps, checkpoint=None):
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=build(), ckpt_path=checkpoint)
    return trainer


@pytest.mark.filterwarnings("ignore")  # the trainer advises more workers
def test_a_resumed_run_of_the_trainer_continues_with_the_next_batch(tmp_path):
    whole, part, rest = Recorder(), Recorder(), Recorder()
    fit(whole, 7)
    fit(part, 3).save_checkpoint(tmp_path / "run.ckpt")
    fit(rest, 7, tmp_path / "run.ckpt")
    assert len(rest.batches) == 4
    assert_same(whole.batches, part.batches + rest.batches)


def test_the_position_is_read_when_iteration_starts():
    data = build()
    data.trainer = as_trainer(batches_seen=0)
    loader = data.train_dataloader()
    data.trainer.lightning_module.batches_seen = 2  # a checkpoint is loaded after the loader is made
    assert_same(first(build().train_dataloader(), 3)[2:], first(loader, 1))


def test_processes_together_see_the_batch_that_one_process_would_see():
    whole = first(build().train_dataloader(), 3)
    parts = []
    for rank in range(2):
        data = build()
        data.trainer = as_trainer(0, rank, world_size=2)
        parts.append(first(data.train_dataloader(), 3))
    for batch, one, two in zip(whole, *parts, strict=True):
        assert torch.equal(batch.image, torch.cat([one.image, two.image]))
        assert torch.equal(batch.mask, torch.cat([one.mask, two.mask]))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_validation_image_comes_once(world_size):
    numbers, steps = [], set()
    for rank in range(world_size):
        data = build(validation=7, validation_crop=Corner())
        data.trainer = as_trainer(0, rank, world_size)
        batches = list(data.val_dataloader())
        steps.add(len(batches))
        numbers += [number for batch in batches for number in picture_numbers(batch)]
    assert sorted(numbers) == list(range(7))
    assert len(steps) == 1


def test_validation_has_the_same_holes_in_every_run():
    def batches(**settings):
        return list(build(train_crop=Corner(), **settings).val_dataloader())

    fixed = batches(seed=0)
    assert_same(fixed, batches(seed=1, workers=2))
    loader = build().val_dataloader()
    assert_same(list(loader), list(loader))
    one_by_one = torch.cat([batch.mask for batch in batches(validation_batch_size=1)])
    assert torch.equal(torch.cat([batch.mask for batch in fixed]), one_by_one)
    other = batches(validation_seed=1)
    assert torch.equal(other[0].image, fixed[0].image)
    assert not torch.equal(other[0].mask, fixed[0].mask)


@pytest.mark.parametrize("workers", [0, 2])
def test_numbered_masks_validate_with_the_holes_of_their_manifest(workers):
    masks = paper_random(box=16, seed=3)
    data = build(validation_mask=masks, workers=workers, validation_seed=9, validation_batch_size=3)
    digest = hashlib.sha256()
    for batch in data.val_dataloader():
        for mask, top, left in zip(batch.mask, batch.box.top, batch.box.left, strict=True):
            digest.update(mask.to(torch.uint8).numpy().tobytes())
            digest.update(f"({int(top)}, {int(left)}, 16, 16)".encode())
    assert digest.hexdigest() == masks.manifest(7, SIZE, SIZE)["sha256"]


def test_flips_come_as_often_as_asked():
    def share(flip):
        dataset = InpaintingDataset(Noise(200), Corner(), MASK, height=40, width=48, flip=flip)
        corners = torch.stack([dataset.read(0, index)[0, 0, 0] for index in range(200)])  # i, or white where flipped
        return (corners == 1).double().mean().item()

    assert share(0) == 0
    assert share(1) == 1
    assert 0.4 < share(0.5) < 0.6  # 200 fair coins: outside once in 200 seeds, and this seed is fixed


def seconds_without_a_core():
    """Return for how long this thread was ready and the machine had no core for it."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def test_workers_that_hang_end_at_once_when_the_run_fails():
    module = InpaintingDataModule(Hanging(8), Noise(7), MASK, image_size=SIZE, batch_size=4, workers=2)
    module.train_dataloader()  # one that nobody reads
    batches = iter(loader := module.train_dataloader())
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    status = Path(f"/proc/{workers[0].pid}/status")
    while not int(re.search(r"SigIgn:\s*(\w+)", status.read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:
        time.sleep(0.01)  # until the worker has set its signals
    os.kill(workers[0].pid, signal.SIGTERM)
    time.sleep(0.5)
    assert workers[0].is_alive()  # they outlive that signal: the run saves first
    watch, start = signal.getsignal(signal.SIGCHLD), time.monotonic() - seconds_without_a_core()
    module.on_exception(RuntimeError("the run fails"))
    assert not any(worker.is_alive() for worker in workers)
    del batches, loader
    assert time.monotonic() - seconds_without_a_core() - start < 2
    assert signal.getsignal(signal.SIGCHLD) is watch


def private_memory_of_a_worker():
    """Return the kilobytes that a worker has for itself after it looked for garbage among many objects."""
    heap = [[number] for number in range(600_000)]  # 50 MB of objects
    module = InpaintingDataModule(Collecting(8), Noise(7), MASK, image_size=SIZE, batch_size=4, workers=1)
    batches = iter(module.train_dataloader())
    next(batches)
    assert gc.get_freeze_count() > 600_000
    (worker,) = multiprocessing.active_children()
    rollup = Path(f"/proc/{worker.pid}/smaps_rollup").read_text()
    fields = dict(line.split()[:2] for line in rollup.splitlines()[1:])
    module.on_exception(RuntimeError())
    assert gc.get_freeze_count() == 0
    assert len(heap) == 600_000
    return int(fields["Private_Dirty:"])


def test_looking_for_garbage_does_not_copy_the_memory_that_workers_share():
    program = "import test_datamodule; print(test_datamodule.private_memory_of_a_worker())"
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    result = subprocess.run(  # a process of its own: what other tests left in memory counts too
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 30_000


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, EOFError])
def test_a_worker_lost_while_it_hands_its_memory_over_is_called_a_lost_worker(error, monkeypatch):
    module = build(workers=1)
    batches = iter(module.train_dataloader())
    next(batches)

    def torn(*_):
        raise error("the other end is gone")

    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.connection.Connection, "recv_bytes", torn)
        with pytest.raises(RuntimeError, match="DataLoader worker was lost"):
            first(batches, 20)
    module.on_exception(RuntimeError())


def test_a_bad_image_stops_the_run_with_its_name():
    data = build(train=100, bad=[50])
    with pytest.raises(ImageError, match="cannot read image noise 50: broken"):
        data.train[(0, 50)]


def test_a_skipped_training_image_is_replaced_by_the_same_one_in_every_run(caplog):
    settings = {"train": 200, "bad": [50], "on_error": "skip", "flip": 0, "train_crop": Corner()}
    data = build(**settings)
    with caplog.at_level(logging.WARNING):
        replacement = data.train[(0, 50)]
    assert "skipped bad training image 1: cannot read image noise 50: broken" in caplog.text
    assert_same([replacement], [build(**settings).train[(0, 50)]])
    assert picture_numbers(replacement) != [50]
    assert data.train.bad_images.totals[1] == 1
    assert not torch.equal(replacement.image, data.train[(1, 50)].image)  # another one in the next epoch


def test_a_skipped_validation_image_is_left_out(caplog):
    data = build(validation=200, bad_validation=[5], on_error="skip", validation_crop=Corner(), workers=2)
    numbers = [number for batch in data.val_dataloader() for number in picture_numbers(batch)]
    assert sorted(numbers) == [number for number in range(200) if number != 5]
    assert data.validation.bad_images.totals == (200, 1)
    with caplog.at_level(logging.WARNING):
        data.teardown("fit")
    assert "skipped 1 bad validation images of 200 read" in caplog.text


def test_more_than_one_per_cent_of_bad_images_stops_the_run():
    data = build(train=100, bad=[50, 51], on_error="skip")
    data.train[(0, 50)]
    with pytest.raises(
        DatasetError, match=r"2 of 2 training images read so far .* more than 1% of the 100; .*noise 51"
    ):
        data.train[(0, 51)]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"train": 3},
            DatasetError,
            "a batch of 4 needs at least as many training images, found 3; set batch_size to 3",
        ),
        (
            {"image_size": 41},
            DatasetError,
            r"4 of 4 images tried .* noise 0: the image is 40x48, smaller than the crop",
        ),
        ({"train": 10, "bad": [0]}, DatasetError, "1 of 4 images tried before the start cannot be used; .* noise 0"),
        ({"bad_validation": [6]}, DatasetError, "1 of 4 images tried before the start cannot be used; .* noise 6"),
        ({"bad": range(10), "on_error": "skip"}, DatasetError, "4 of 4 images tried before the start cannot be used"),
        ({"batch_size": 0}, ValueError, "batch_size and prefetch must be at least 1"),
        ({"workers": -1}, ValueError, "workers at least 0, got 32x32, 4, 2 and -1"),
        ({"flip": 1.5}, ValueError, r"flip must be a probability in 0\.\.1, got 1\.5"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_impossible_settings_stop_before_the_run(settings, error, message):
    with pytest.raises(error, match=message):
        build(**settings)


def test_small_images_are_enlarged_on_request():
    data = build(image_size=[44, 60], train_crop=RandomCrop(enlarge=True))
    assert next(iter(data.train_dataloader())).image.shape == (4, 3, 44, 60)
