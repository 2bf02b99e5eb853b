"""A sketch reaches a guided generator from Inpainter, through padding, and others refuse it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint import GatedGenerator, Generator, Inpainter
from gicinpaint.models import composite, mask_out


@pytest.fixture(scope="module")
def generator() -> GatedGenerator:
    torch.manual_seed(0)
    generator = GatedGenerator(8, guided=True)
    for weight in generator.parameters():
        weight.data *= 3
    return generator.eval()


def scene(height: int = 37, width: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image, hole = rng.integers(0, 256, (height, width, 3), np.uint8), np.zeros((height, width), bool)
    hole[5:30, 8:40] = True
    edges = np.zeros_like(hole)
    edges[10:12, :] = edges[:, 20] = True
    return image, hole, edges


def test_the_sketch_is_the_networks_own(generator: GatedGenerator) -> None:
    """At a size that needs no padding, against the network called by hand."""
    image, hole, edges = scene(32, 48)
    filled = Inpainter(generator, "cpu")(image, hole, sketch=edges)
    mask, sketch = (torch.from_numpy(x).float()[None, None] for x in (hole, edges))
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        refined = generator(mask_out(tensor, mask), mask, sketch=sketch).refined
    expected = (composite(tensor, refined, mask)[0].permute(1, 2, 0) + 1) * 127.5
    assert np.abs(filled - expected.numpy()).max() <= 0.51


@pytest.mark.parametrize("kind", ["array", "pillow", "tensor"])
def test_a_sketch_of_any_kind_changes_the_hole_alone(generator: GatedGenerator, kind: str) -> None:
    image, hole, edges = scene()
    inpainter = Inpainter(generator, "cpu")
    sketch = {"array": edges, "pillow": Image.fromarray(edges), "tensor": torch.from_numpy(edges)}[kind]
    with_sketch, without = inpainter(image, hole, sketch=sketch), inpainter(image, hole)
    np.testing.assert_array_equal(with_sketch[~hole], image[~hole])
    assert (with_sketch != without)[hole].any()
    np.testing.assert_array_equal(inpainter(image, hole, sketch=edges & ~hole), without)  # outside it has no effect
    assert inpainter.fill(image, hole, sketch=sketch).offset is not None


def test_a_sketch_that_cannot_be_used_is_named(generator: GatedGenerator) -> None:
    image, hole, edges = scene()
    with pytest.raises(ValueError, match=r"a sketch needs a guided generator, got Generator without; train one"):
        Inpainter(Generator(2), "cpu")(image, hole, sketch=edges)
    inpainter = Inpainter(generator, "cpu", max_memory=0.28)
    with pytest.raises(ValueError, match=r"sketch must have the image's height and width 37x50, got 36x50"):
        inpainter(image, hole, sketch=edges[1:])
    large = [np.kron(x, np.ones((20, 20, 1)[: x.ndim], x.dtype)) for x in (image, hole, edges)]
    with pytest.raises(ValueError, match=r"with a sketch must fit one pass, .* got 1000x740; raise max_memory"):
        inpainter(large[0], large[1], sketch=large[2])


def test_several_images_have_a_sketch_each_or_one_for_all(generator: GatedGenerator) -> None:
    image, hole, edges = scene()
    inpainter = Inpainter(generator, "cpu", batch_size=2)
    alone = [inpainter(image, hole, sketch=one) for one in (edges, ~edges)]
    assert not np.array_equal(*alone)
    stacked = inpainter(np.stack([image, image]), hole, sketch=np.stack([edges, ~edges]))
    shared = inpainter([image, image], hole, sketch=edges)
    for found, expected in [*zip(stacked, alone, strict=True), (shared[0], alone[0]), (shared[1], alone[0])]:
        assert np.abs(found.astype(int) - expected).max() <= 1  # sums in another order
