"""What the tiled backend promises beyond the contract: any block size, bounded memory, no second gradient."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import golden
from gicinpaint.attention import ContextualAttention, ReferenceAttention, TiledAttention, tiled, tiled_blocks
from gicinpaint.attention.tiled_scores import wrapped


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _results(layer: ContextualAttention, foreground: Tensor, background: Tensor, mask: Tensor | None) -> list[Tensor]:
    leaves = foreground.clone().requires_grad_(), background.clone().requires_grad_()
    output, offset = layer(*leaves, mask, return_offset=True)
    weights = torch.arange(output.numel(), dtype=output.dtype).sin().view_as(output)
    return [output.detach(), offset, *torch.autograd.grad((output * weights).sum(), leaves)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 4),
    columns=st.sampled_from([None, 1, 2, 3, 5]),
    grids=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
    rate=st.integers(1, 3),
    patch_size=st.sampled_from([1, 3, 5]),
    propagation_size=st.sampled_from([1, 3, 5, 7]),
    seed=st.integers(0, 1000),
)
def test_any_size_of_block_gives_the_reference(
    rows: int,
    columns: int | None,
    grids: tuple[int, int, int, int],
    rate: int,
    patch_size: int,
    propagation_size: int,
    seed: int,
) -> None:
    h, w, hb, wb = (rate * size for size in grids)
    inputs = _random(2, 2, h, w, seed=seed), _random(2, 2, hb, wb, seed=seed + 1)
    mask = (torch.rand(2, 1, hb, wb, generator=torch.Generator().manual_seed(seed)) < 0.05).double()
    chosen: dict[str, Any] = {"rate": rate, "patch_size": patch_size, "propagation_size": propagation_size}
    actual = _results(ContextualAttention(**chosen, backend=TiledAttention(rows, columns)), *inputs, mask)
    expected = _results(ContextualAttention(**chosen, backend=ReferenceAttention()), *inputs, mask)
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("rows", [1, 3, None])
def test_images_walked_together_equal_images_walked_one_by_one(
    monkeypatch: pytest.MonkeyPatch, rows: int | None
) -> None:
    # On an accelerator several images share a block; here the grouping is forced.
    inputs = _random(3, 4, 12, 8), _random(3, 4, 8, 12, seed=1)
    masks = (torch.rand(3, 1, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.1).double()
    layer = ContextualAttention(backend=TiledAttention(rows))
    expected = _results(layer, *inputs, masks)
    monkeypatch.setattr(tiled, "image_groups", lambda *_: [slice(0, 2), slice(2, 3)])
    for x, y in zip(_results(layer, *inputs, masks), expected, strict=True):
        torch.testing.assert_close(x, y, atol=1e-12, rtol=1e-12)


def test_small_problems_keep_their_blocks_and_give_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = _random(2, 4, 12, 8), _random(2, 4, 12, 8, seed=1)
    kept = _results(ContextualAttention(), *inputs, None)
    monkeypatch.setattr(tiled_blocks, "KEPT_NUMBERS", 0)
    for x, y in zip(_results(ContextualAttention(), *inputs, None), kept, strict=True):
        torch.testing.assert_close(x, y, atol=1e-12, rtol=1e-12)


def test_the_gradient_can_be_taken_twice_from_a_retained_graph() -> None:
    features = _random(1, 4, 12, 12).requires_grad_()
    output = ContextualAttention()(features).square().sum()
    first = torch.autograd.grad(output, features, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(output, features)[0], first, atol=0, rtol=0)


def test_a_second_gradient_is_refused() -> None:
    features = _random(1, 2, 8, 8).requires_grad_()
    output = ContextualAttention(backend=TiledAttention())(features)
    gradient = torch.autograd.grad(output.square().sum(), features, create_graph=True)[0]
    with pytest.raises(RuntimeError, match=r"no second gradient.* use FactorizedAttention"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("rows", [0, -1])
def test_a_wrong_block_size_says_what_to_do(rows: int) -> None:
    with pytest.raises(ValueError, match=f"block_rows must be at least 1, got {rows}; None chooses"):
        TiledAttention(rows)
    with pytest.raises(ValueError, match=f"block_columns must be at least 1, got {rows}; None chooses"):
        TiledAttention(block_columns=rows)


def test_the_scores_of_a_block_are_linear_in_the_pixels() -> None:
    # Scores per key: they would double with every doubling of a side if blocks held whole rows of any length.
    per_key = []
    for side in (128, 256, 512):
        features = torch.empty(1, 1, side, side, device="meta")
        tiles = tiled_blocks.Tiles.of(features, features, tiled_blocks.Settings(2, 3, 3, 0, 0, 0))
        assert [column for columns in tiles.columns for column in columns] == list(range(side))
        per_key.append(tiles.rows * max(len(columns) for columns in tiles.columns))
    assert max(per_key) <= 512


def test_peaked_attention_holds_no_denormal_numbers() -> None:
    features = 30 * _random(1, 16, 24, 24, dtype=torch.float32)
    shrunk, valid = features[:, :, ::2, ::2].contiguous(), torch.ones(1, 12, 12, dtype=torch.bool)
    attention = torch.ops.gicinpaint.tiled_attention(
        shrunk, shrunk, valid, features, [2, 3, 3, 0, 0, 0], 10.0, False, True
    )[2]
    tiny = torch.finfo(torch.float32).tiny
    assert (attention > 0).any()
    assert ((attention == 0) | (attention >= tiny * 2**40)).all()  # room for products with small gradients
    # The plain softmax of the same scores does hold them, so the test can fail.
    raw = torch.softmax(torch.linspace(0, -110, 200), dim=0)
    assert ((raw > 0) & (raw < tiny)).any()


def test_the_longest_kept_tensor_is_linear_in_the_pixels() -> None:
    # Above the size that is kept, the forward pass saves its inputs alone for the gradient.
    saved: list[int] = []
    features = torch.zeros(1, 1, 256, 256).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        ContextualAttention(backend=TiledAttention(1), rate=4, propagate=False)(features)
    assert max(saved) <= features.numel()


def test_off_the_grid_a_column_continues_in_the_next_one() -> None:
    # Expected: stepping along the column-major index by hand, cell by cell.
    for height, width in ((1, 1), (1, 4), (4, 1), (3, 4), (5, 2)):
        for position in (*range(-6, 0), *range(height, height + 6)):
            row, here, there = wrapped(position, height, width)
            found = dict(zip(range(width)[here], range(width)[there], strict=True))
            steps = {x: x * height + position for x in range(width)}
            inside = {x: step for x, step in steps.items() if 0 <= step < height * width}
            assert found == {x: step // height for x, step in inside.items()}
            assert all(step % height == row for step in inside.values())


@pytest.mark.skipif(" " in torch.__file__, reason="torch's C++ compiler cannot link from a folder with a space")
@pytest.mark.parametrize(("rows", "columns"), [(None, None), (2, 4)])
def test_compiled_sums_give_the_same_numbers(rows: int | None, columns: int | None) -> None:
    # The path for accelerators, on the CPU: the same functions, compiled for it.
    inputs = _random(2, 3, 14, 10), _random(2, 3, 10, 18, seed=1)
    mask = (torch.rand(2, 1, 10, 18, generator=torch.Generator().manual_seed(0)) < 0.05).double()
    expected = _results(ContextualAttention(backend=TiledAttention(rows)), *inputs, mask)
    actual = _results(ContextualAttention(backend=TiledAttention(rows, columns, compile=True)), *inputs, mask)
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, atol=1e-12, rtol=1e-12)


@pytest.mark.slow
def test_compiled_with_generated_code_it_gives_the_same_numbers() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), ContextualAttention(), torch.nn.Conv2d(4, 2, 1))
    image = _random(1, 3, 12, 16, dtype=torch.float32)
    compiled = torch.compile(network, fullgraph=True)
    weight = network[0].weight
    expected = torch.autograd.grad(network(image).square().sum(), weight)[0]
    assert golden.relative_norm(torch.autograd.grad(compiled(image).square().sum(), weight)[0], expected) < 1e-5


def test_gradients_after_a_pass_in_inference_mode() -> None:
    """Memory kept from an inference pass must serve training; the expected gradient is the reference's."""
    features = torch.randn(1, 4, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        ContextualAttention(backend=TiledAttention())(features)
    gradients = []
    for backend in (TiledAttention(), ReferenceAttention()):
        x = features.clone().requires_grad_()
        ContextualAttention(backend=backend)(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
