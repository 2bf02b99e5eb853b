"""How batches travel: whole, small, and in memory that is used again only when nobody reads it any more."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from gicinpaint.data import ImageFiles, InpaintingDataModule
from gicinpaint.data.batch import BatchBuffer, BatchMemory, PackedBatch
from gicinpaint.masks import RectangleMask
from gicinpaint.models.compositing import Box

BOX = Box(torch.tensor([1]), torch.tensor([2]), 3, 2)


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (5, 4, 3), dtype=np.uint8))


def hole(number: int) -> torch.Tensor:
    return (torch.arange(20).reshape(1, 1, 5, 4) % (number + 2) == 0).float()


def pack(numbers: range, memory: BatchMemory) -> PackedBatch:
    buffer = BatchBuffer(len(numbers), memory)
    for number in numbers:
        buffer.add(picture(number), hole(number), BOX)
    return buffer.finish()


def test_a_batch_is_unpacked_to_the_values_of_its_images() -> None:
    batch = pack(range(3), BatchMemory()).unpack()
    for number in range(3):
        expected = np.asarray(picture(number), np.float64).transpose(2, 0, 1) / 127.5 - 1  # by NumPy
        torch.testing.assert_close(batch.image[number].double(), torch.from_numpy(expected), atol=1e-7, rtol=0)
        assert torch.equal(batch.mask[number : number + 1], hole(number))
    assert (batch.image.dtype, batch.mask.dtype) == (torch.float32, torch.float32)
    assert batch.image.is_contiguous()
    assert (batch.box.top.tolist(), batch.box.left.tolist(), *batch.box[2:]) == ([1] * 3, [2] * 3, 3, 2)


def test_a_buffer_that_is_not_full_gives_what_it_has() -> None:
    buffer = BatchBuffer(4, BatchMemory())
    buffer.add(picture(7), hole(7), BOX)
    batch = buffer.finish().unpack()
    assert batch.image.shape == (1, 3, 5, 4)
    assert torch.equal(batch.mask, hole(7))


def test_values_that_come_as_such_stay_as_they_are() -> None:
    values = torch.rand(3, 5, 4) * 2 - 1
    buffer = BatchBuffer(1, BatchMemory())
    buffer.add(values, hole(0), BOX)
    packed = buffer.finish()
    image = packed.unpack().image
    packed.pixels.zero_()  # as the next batch in this memory would
    assert torch.equal(image, values[None])


def test_boxes_of_two_sizes_are_one_line() -> None:
    buffer = BatchBuffer(2, BatchMemory())
    buffer.add(picture(0), hole(0), BOX)
    with pytest.raises(ValueError, match=r"boxes of one size, got \[\(2, 2\), \(3, 2\)\]; give its masks the same box"):
        buffer.add(picture(1), hole(1), BOX._replace(height=2))


class Places(Dataset):
    """Item k is where a worker keeps batch k, after another batch was sent."""

    def __init__(self) -> None:
        self.memory = BatchMemory()

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> tuple[PackedBatch, int]:
        packed = pack(range(number, number + 2), self.memory)
        return packed, packed.pixels.data_ptr()


def _leave(items: tuple[PackedBatch, int]) -> tuple[PackedBatch, int]:
    return items


def test_a_worker_uses_memory_again_once_its_batch_was_unpacked_and_not_before() -> None:
    loader = DataLoader(Places(), batch_size=None, num_workers=1, prefetch_factor=2, collate_fn=_leave)
    places, held = [], []
    for number, (packed, place) in enumerate(loader):
        places.append(place)
        if number < 5:
            held.append(packed)
            continue
        assert torch.equal(packed.unpack().mask[:1], hole(number))
    assert len(set(places[:5])) == 5  # none was given back
    assert len(set(places)) <= 5 + 4  # of 40: then the same few, at most those under way
    for number, packed in enumerate(held):
        assert torch.equal(packed.unpack().mask[:1], hole(number))  # nobody wrote over what was not given back


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_that_are_kept_do_not_change_when_later_ones_come(tmp_path: Path, workers: int) -> None:
    for number in range(6):
        picture(number).resize((40, 40)).save(tmp_path / f"{number}.png")
    source = ImageFiles(tmp_path)
    data = InpaintingDataModule(
        source, source, RectangleMask(box=8, inset=1), image_size=32, batch_size=2, workers=workers, prefetch=2
    )
    kept = list(itertools.islice(data.train_dataloader(), 14))  # more than a worker has memory for
    for number, batch in enumerate(data.train_dataloader()):
        assert torch.equal(batch.image, kept[number].image)
        assert torch.equal(batch.mask, kept[number].mask)
        if number == 13:
            break
