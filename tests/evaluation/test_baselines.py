"""Every baseline through its one call; expected values from the libraries or from patterns with one answer."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gicinpaint.data import SamplePhotographs
from gicinpaint.data.image_io import to_tensor
from gicinpaint.evaluation.baselines import biharmonic, navier_stokes, patchmatch, telea
from gicinpaint.models.compositing import fill_with_mean
from gicinpaint.models.harmonic_fill import fill_harmonically

for library in ("cv2", "patchmatch"):
    pytest.importorskip(library, reason="needs the extra: pip install 'gicinpaint[baselines]'")

BASELINES = [fill_with_mean, telea, navier_stokes, fill_harmonically, biharmonic, patchmatch]
Baseline = Callable[[Tensor, Tensor], Tensor]
every_baseline = pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.__name__)


def photographs(size: int = 64) -> Tensor:
    source = SamplePhotographs.validation()
    return torch.stack([to_tensor(source.read(number).resize((size, size))) for number in range(2)])


def holes(size: int = 64) -> Tensor:
    mask = torch.zeros(2, 1, size, size)
    mask[0, :, 20:40, 24:44] = 1
    mask[1, :, 5:20, 30:60] = 1
    mask[1, :, 50:60, 3:13] = 1  # two holes in one image
    return mask


@every_baseline
def test_known_pixels_pass_through_unchanged_and_the_hole_changes(baseline: Baseline) -> None:
    image, mask = photographs(), holes()
    completed = baseline(image, mask)
    assert torch.equal(completed * (1 - mask), image * (1 - mask))
    assert completed.shape == image.shape
    assert completed.dtype == image.dtype
    assert completed.abs().max() <= 1
    assert ((completed - image).abs() * mask).sum() > 0


@every_baseline
def test_pixels_under_the_hole_have_no_influence(baseline: Baseline) -> None:
    image, mask = photographs(), holes()
    other = torch.where(mask > 0, -image.roll(7, -1), image)
    assert torch.equal(baseline(image, mask), baseline(other, mask))


@every_baseline
def test_an_image_of_a_batch_equals_its_own_batch(baseline: Baseline) -> None:
    image, mask = photographs(), holes()
    together = baseline(image, mask)
    alone = torch.cat([baseline(image[i : i + 1], mask[i : i + 1]) for i in (1, 0)]).flip(0)
    assert torch.equal(together, alone)


@every_baseline
def test_a_flat_image_is_filled_with_its_colour(baseline: Baseline) -> None:
    colour = torch.tensor([51.0, 102.0, 204.0])[None, :, None, None] / 127.5 - 1  # whole 8-bit levels
    image = colour.expand(2, 3, 64, 64).contiguous()
    levels = 3 if baseline is telea else 0  # OpenCV rounds each pixel before it fills the next
    torch.testing.assert_close(baseline(image, holes()), image, atol=(levels + 0.01) / 127.5, rtol=0)


def test_biharmonic_continues_a_ramp() -> None:
    """A plane solves the biharmonic equation."""
    ramp = (torch.arange(64.0)[None, :] * 2 + torch.arange(64.0)[:, None]) / 127.5 - 1
    image = ramp.expand(1, 3, 64, 64).contiguous()
    mask = holes()[:1]
    torch.testing.assert_close(biharmonic(image, mask), image, atol=1e-3, rtol=0)


def test_patchmatch_continues_a_pattern_that_averages_cannot() -> None:
    """A random tile of 24x24, repeated: the right filling is known."""
    tile = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tile = tile.repeat_interleave(2, -1).repeat_interleave(2, -2)
    image = tile.repeat(1, 1, 4, 4)
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 30:54, 34:60] = 1
    error = {b: ((b(image, mask) - image).abs() * mask).sum() / mask.sum() / 3 for b in BASELINES}
    assert all(error[patchmatch] < error[other] / 3 for other in BASELINES if other is not patchmatch)


def test_opencv_methods_are_opencvs() -> None:
    import cv2

    image, mask = photographs()[:1], holes()[:1]
    picture = np.round((image[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
    for baseline, flag in ((telea, cv2.INPAINT_TELEA), (navier_stokes, cv2.INPAINT_NS)):
        expected = cv2.inpaint(picture, mask[0, 0].numpy().astype(np.uint8), 5, flag)
        found = baseline(image, mask, radius=5)
        np.testing.assert_allclose((found[0].permute(1, 2, 0).numpy() + 1) * 127.5, expected, atol=1e-3)


@every_baseline
def test_no_hole_and_nothing_but_hole_are_answered(baseline: Baseline) -> None:
    image = photographs()
    mask = torch.cat([torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)])
    completed = baseline(image, mask)
    assert torch.equal(completed[0], image[0])
    torch.testing.assert_close(completed[1], torch.zeros_like(image[1]), atol=0.01, rtol=0)


def test_patchmatch_repeats_itself_and_follows_its_seed() -> None:
    image, mask = photographs(), holes()
    assert torch.equal(patchmatch(image, mask, seed=1), patchmatch(image, mask, seed=1))
    assert not torch.equal(patchmatch(image, mask, seed=1), patchmatch(image, mask, seed=2))


@pytest.mark.parametrize(("baseline", "library"), [(telea, "cv2"), (navier_stokes, "cv2"), (patchmatch, "patchmatch")])
def test_a_missing_library_names_the_extra(baseline: Baseline, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # importing it fails
    with pytest.raises(ImportError, match=rf"{library}, which is not installed; .*gicinpaint\[baselines\]"):
        baseline(photographs(), holes())


@every_baseline
def test_masks_of_another_size_are_reported(baseline: Baseline) -> None:
    with pytest.raises(ValueError, match="mask must have the image's height and width"):
        baseline(photographs(), holes(32))
