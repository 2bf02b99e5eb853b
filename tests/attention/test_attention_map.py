"""One cell's attention equals its column of the reference's whole matrix, and equals what the golden offsets say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import golden
from gicinpaint.attention import ContextualAttention, FactorizedAttention, ReferenceAttention
from gicinpaint.attention.attention_map import AttentionCall, overhear
from gicinpaint.attention.reference import attend, match, spread

CASES = {
    "one grid": {"foreground": (16, 20), "background": (16, 20)},
    "another grid of keys": {"foreground": (12, 20), "background": (16, 14)},
    "a long diagonal": {"foreground": (12, 8), "background": (12, 8), "propagation_size": 7},
    "no propagation": {"foreground": (10, 12), "background": (10, 12), "propagate": False},
    "larger patches, not shrunk": {"foreground": (7, 6), "background": (7, 6), "patch_size": 5, "rate": 1},
    "a grid narrower than the diagonal": {"foreground": (4, 4), "background": (4, 4), "propagation_size": 5},
}


def _features(h: int, w: int, seed: int) -> Tensor:
    return torch.randn(2, 4, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_a_row_equals_that_of_the_whole_matrix(name: str) -> None:
    settings = dict(CASES[name])
    (h, w), (hb, wb) = settings.pop("foreground"), settings.pop("background")
    mask = torch.zeros(2, 1, hb, wb)
    mask[0, :, hb // 4 : hb // 2, 1 : wb // 2] = 1
    mask[1, :, -2:, -2:] = 1
    attention = ContextualAttention(**settings)
    with overhear(attention) as calls:
        attention(_features(h, w, 0), _features(hb, wb, 1), mask)
    (call,) = calls
    for image in range(2):
        scores = match(call.foreground[image : image + 1], call.background[image : image + 1], attention.patch_size)
        if attention.propagate:
            scores = spread(scores, call.background.shape[-2:], attention.propagation_size)
        matrix = attend(scores, call.valid[image], attention.softmax_scale)[0]  # (keys, h, w)
        for row in range(matrix.shape[1]):
            for column in range(matrix.shape[2]):
                found = call.row(image, (row, column))
                assert found.shape == call.background.shape[-2:]
                torch.testing.assert_close(found.flatten(), matrix[:, row, column], rtol=1e-9, atol=1e-12)


def test_the_strongest_key_and_its_share_are_the_golden_ones() -> None:
    """Golden: the released code's offsets and largest attention."""
    values = golden.load("ca_12_18x22_r2_fuse_multi.npz")
    attention = ContextualAttention()
    with overhear(attention) as calls:
        attention(values["f"], mask=values["mask"])
    offset, first, second = values["offset_abs"], values["attention_top1"], values["attention_top2"]
    compared = 0
    for image, row, column in torch.cartesian_prod(*map(torch.arange, first.shape)).tolist():
        found = calls[0].row(image, (row, column))
        torch.testing.assert_close(found.max(), first[image, row, column], rtol=0, atol=1e-4)
        if first[image, row, column] - second[image, row, column] > 1e-4:  # no tie
            assert divmod(int(found.argmax()), found.shape[1]) == tuple(offset[image, :, row, column].tolist())
            compared += 1
    assert compared > 0.9 * first.numel()


def test_one_mask_serves_all_images() -> None:
    features, valid = _features(6, 6, 0), torch.ones(1, 6, 6, dtype=torch.bool)
    valid[0, 2, 3] = False
    row = AttentionCall(features, features, valid, 3, 3, 10.0).row(1, (5, 0))
    assert row[2, 3] == 0
    assert row.sum() > 0


@pytest.mark.parametrize("backend", [ReferenceAttention(), FactorizedAttention(), None])
def test_overhearing_changes_nothing(backend: object) -> None:
    attention, features = ContextualAttention(backend=backend), _features(8, 8, 2)
    own = attention.backend
    expected = attention(features, return_offset=True)
    with overhear(attention) as calls:
        found = attention(features, return_offset=True)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(calls) == 1
    assert attention.backend is own


def test_the_backend_is_put_back_after_an_error() -> None:
    attention = ContextualAttention()
    own = attention.backend
    with pytest.raises(ValueError, match="foreground"), overhear(attention):
        attention(torch.zeros(2))
    assert attention.backend is own


@pytest.mark.parametrize(("image", "query"), [(2, (0, 0)), (0, (4, 0)), (0, (0, -1))])
def test_cells_outside_are_refused(image: int, query: tuple[int, int]) -> None:
    attention = ContextualAttention()
    with overhear(attention) as calls:
        attention(_features(8, 8, 0))
    with pytest.raises(ValueError, match=r"grid of 4x4 cells, got image"):
        calls[0].row(image, query)
