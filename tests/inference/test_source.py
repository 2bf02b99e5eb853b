"""Where to copy from: attention limited to a part of the known pixels, in Python and in the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

import golden
from gicinpaint import ContextualAttention, GatedGenerator, Generator, Inpainter, mask_out
from gicinpaint.attention import ReferenceAttention
from gicinpaint.inference.regions import Method
from gicinpaint.masks import grown
from gicinpaint.models.generator import CoarseGenerator
from gicinpaint.weights import save_generator
from inpaint_runs import run_here

BACKENDS = golden.attention_files()


def _case(height: int = 96, width: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return noise, a hole in its middle, and a source: the left third, outside of it."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    mask, source = np.zeros((height, width), bool), np.zeros((height, width), bool)
    mask[40:56, 40:56], source[:, : width // 3] = True, True
    return image, mask, source


def _generator(kind: type = Generator, backend: Any = None) -> Any:
    torch.manual_seed(0)
    return kind(width=4, attention=ContextualAttention(backend=backend)).eval()


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", [Generator, GatedGenerator])
def test_what_is_copied_lies_in_the_source_and_equals_the_reference(path: Path, kind: type) -> None:
    image, mask, source = _case()
    backend = instantiate(OmegaConf.load(path)).backend
    filled, judge = (
        Inpainter(_generator(kind, of), device="cpu").fill(image, mask, source=source)
        for of in (backend, ReferenceAttention())
    )
    hole = (1, slice(5, 7), slice(5, 7))  # its cells' columns
    # the key's own cell and, for its patch, those around it are allowed: 8 x 8 pixels each, 4 of the 12 columns
    assert filled.offset[hole].max() <= 2
    free = Inpainter(_generator(kind, backend), device="cpu").fill(image, mask)
    assert free.offset[hole].max() > 2
    assert not np.array_equal(free.image, filled.image)
    assert np.abs(filled.image.astype(int) - judge.image).max() <= 1  # one level: rounding


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.stem)
def test_everything_allowed_is_todays_result_to_the_bit(path: Path) -> None:
    image, mask, _ = _case(90, 83)
    generator = _generator(backend=instantiate(OmegaConf.load(path)).backend)
    inpainter = Inpainter(generator, device="cpu")
    expected = inpainter(image, mask)
    for source in (np.ones_like(mask), ~mask):
        assert np.array_equal(inpainter(image, mask, source=source), expected)
    x = torch.from_numpy(image[:88, :80]).permute(2, 0, 1)[None] / 127.5 - 1
    hole = torch.from_numpy(mask[:88, :80])[None, None].float()
    with torch.no_grad():
        free, limited = (generator(mask_out(x, hole), hole, source=s) for s in (None, torch.ones_like(hole)))
    assert torch.equal(free.refined, limited.refined)


def test_a_source_counts_in_a_pass_around_the_holes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask, source = _case(200, 160)
    inpainter = Inpainter(_generator(), device="cpu")
    around = inpainter.fill(image, mask, source=source)
    monkeypatch.setattr("gicinpaint.inference.engine.is_exact", lambda _: False)
    whole = inpainter.fill(image, mask, source=source)
    assert (around.method, whole.method) == (Method.EXACT, Method.WHOLE)
    assert np.abs(around.image.astype(int) - whole.image).max() <= 1
    assert not np.array_equal(whole.image, inpainter(image, mask))


def test_every_image_of_a_batch_has_its_own_source() -> None:
    image, mask, source = _case()
    inpainter = Inpainter(_generator(), device="cpu", batch_size=3)
    together = inpainter([image] * 3, mask, source=[source, None, source[:, ::-1].copy()])
    alone = [inpainter(image, mask, source=one) for one in (source, None, source[:, ::-1].copy())]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    assert not np.array_equal(together[0], together[2])
    stacked = inpainter(np.stack([image, image]), mask, source=np.stack([source, ~mask]))
    assert np.abs(stacked[0].astype(int) - alone[0]).max() <= 1
    assert np.abs(stacked[1].astype(int) - alone[1]).max() <= 1


def test_sources_that_say_nothing_are_refused() -> None:
    image, mask, source = _case()
    inpainter = Inpainter(_generator(), device="cpu")
    with pytest.raises(ValueError, match="source must hold known pixels to copy from, got none"):
        inpainter(image, mask, source=mask)
    with pytest.raises(ValueError, match="source must have the image's height and width 96x96, got 95x96"):
        inpainter(image, mask, source=source[1:])
    with pytest.raises(TypeError, match="source must be a Pillow image, a NumPy array or a tensor, got str"):
        inpainter(image, mask, source="left")
    with pytest.raises(ValueError, match="source needs an attention layer"):
        Inpainter(Generator(width=4, attention=None), device="cpu")(image, mask, source=source)
    with pytest.raises(ValueError, match="source needs an attention layer"):
        Inpainter(CoarseGenerator(width=4), device="cpu")(image, mask, source=source)


def test_parts_of_a_large_image_need_a_source_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gicinpaint.inference.engine.is_exact", lambda _: False)
    image, mask = np.zeros((700, 700, 3), np.uint8), np.zeros((700, 700), bool)
    mask[20:30, 20:30] = mask[650:660, 650:660] = True
    source = np.zeros_like(mask)
    source[:100] = True
    inpainter = Inpainter(_generator(), device="cpu", max_memory=0.3, progress=False)
    with pytest.raises(ValueError, match="an image that is filled in parts must have its source in each"):
        inpainter(image, mask, source=source)


@pytest.mark.parametrize("pixels", [-3, 0, 2])
def test_holes_grow_and_shrink_by_their_distance(pixels: int) -> None:
    image, mask, _ = _case()
    generator = _generator()
    expected = np.zeros_like(mask)  # a square shrinks to a square; it grows to one without the corners' pixels
    for row, column in np.ndindex(mask.shape):
        rows, columns = np.nonzero(mask if pixels >= 0 else ~mask)
        near = (np.hypot(rows - row, columns - column) <= abs(pixels)).any() if 36 <= row < 60 else False
        expected[row, column] = near if pixels >= 0 else mask[row, column] and not near
    assert np.array_equal(grown(mask, pixels), expected)
    inpainter = Inpainter(generator, device="cpu")
    assert np.array_equal(inpainter(image, mask, grow=pixels), inpainter(image, expected))


def test_the_job_takes_sources_by_name_and_shrinks_holes(tmp_path: Path) -> None:
    image, mask, source = _case()
    for folder in ("photos", "masks", "sources"):
        (tmp_path / folder).mkdir()
    save_generator(generator := _generator(), tmp_path / "model")
    Image.fromarray(image).save(tmp_path / "photos" / "a.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    Image.fromarray(source).save(tmp_path / "sources" / "a.png")
    options = ["input=photos", "masks=masks", "sources=sources", "grow=-2", "output=filled"]
    result = run_here(tmp_path / "model", *options, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = Inpainter(generator, device="cpu")(image, mask, source=source, grow=-2)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "filled" / "a.png")), expected)
    (tmp_path / "sources" / "a.png").rename(tmp_path / "sources" / "b.png")
    result = run_here(tmp_path / "model", *options, "overwrite=true", folder=tmp_path)
    assert result.returncode == 1
    assert "there is no mask called 'a'" in result.stderr
