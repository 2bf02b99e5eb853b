"""How items become batches: 8 bits until they are on the device, float32 there."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.data import Batch, ImageFiles, InpaintingDataModule
from gicinpaint.data.dataset import Sample, collate
from gicinpaint.masks import RectangleMask
from gicinpaint.models.compositing import Box

BOX = Box(torch.tensor([1]), torch.tensor([2]), 3, 2)


def levels(number: int) -> torch.Tensor:
    pixels = np.random.default_rng(number).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).movedim(-1, 0)


def hole(number: int) -> torch.Tensor:
    return (torch.arange(20).reshape(1, 5, 4) % (number + 2) == 0).to(torch.uint8)


def test_a_batch_of_8_bits_becomes_the_values_of_its_images() -> None:
    packed = collate([Sample(levels(number), hole(number), BOX) for number in range(3)])
    assert (packed.image.dtype, packed.mask.dtype) == (torch.uint8, torch.uint8)
    batch = packed.to_float()
    for number in range(3):
        expected = levels(number).numpy().astype(np.float64) / 127.5 - 1  # by NumPy
        torch.testing.assert_close(batch.image[number].double(), torch.from_numpy(expected), atol=1e-7, rtol=0)
        assert torch.equal(batch.mask[number], hole(number).float())
    assert (batch.image.dtype, batch.mask.dtype) == (torch.float32, torch.float32)
    assert batch.image.is_contiguous()
    assert (batch.box.top.tolist(), batch.box.left.tolist(), *batch.box[2:]) == ([1] * 3, [2] * 3, 3, 2)


def test_float_images_stay_as_they_are() -> None:
    image = torch.rand(3, 5, 4) * 2 - 1
    assert torch.equal(collate([Sample(image, hole(0), BOX)]).to_float().image, image[None])


def test_boxes_of_two_sizes_are_refused_in_one_line() -> None:
    samples = [Sample(levels(0), hole(0), BOX), Sample(levels(1), hole(1), BOX._replace(height=2))]
    with pytest.raises(ValueError, match=r"boxes of one size, got \[\(2, 2\), \(3, 2\)\]; give its masks the same box"):
        collate(samples)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_that_are_kept_do_not_change_when_later_ones_come(tmp_path: Path, workers: int) -> None:
    for number in range(6):
        Image.fromarray(levels(number).movedim(0, -1).numpy()).resize((40, 40)).save(tmp_path / f"{number}.png")
    source = ImageFiles(tmp_path)
    data = InpaintingDataModule(
        source, source, RectangleMask(box=8, inset=1), image_size=32, batch_size=2, workers=workers, prefetch=2
    )
    kept = list(itertools.islice(data.train_dataloader(), 14))
    for one, other in zip(data.train_dataloader(), kept, strict=False):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.mask, other.mask)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("64-true", torch.float64), ("bf16-true", torch.bfloat16)]
)
def test_a_trainer_gets_floating_point_in_its_precision(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    import lightning

    for number in range(2):
        Image.fromarray(levels(number).movedim(0, -1).numpy()).save(tmp_path / f"{number}.png")
    source = ImageFiles(tmp_path)
    data = InpaintingDataModule(source, source, RectangleMask(2, 0), image_size=4, batch_size=2, workers=0)
    data.trainer = lightning.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    packed = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(packed, 0)
    assert isinstance(batch, Batch)
    assert batch.image.dtype == batch.mask.dtype == dtype
    torch.testing.assert_close(batch.image.double(), packed.image.double() / 127.5 - 1, atol=1e-2, rtol=0)
