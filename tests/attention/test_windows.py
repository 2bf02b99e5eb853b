"""A window of the queries has the results that the whole grid has there."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from gicinpaint.attention import tiled
from gicinpaint.attention.factorized import FactorizedAttention
from gicinpaint.attention.layer import ContextualAttention
from gicinpaint.attention.tiled_blocks import Settings, Tiles

WINDOWS = [(range(3), range(5, 9)), (range(8, 12), range(14)), (range(6, 7), range(6, 7)), (range(12), range(13, 14))]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"rate": 1},
    {"propagate": False, "patch_size": 1},
    {"propagation_size": 5, "patch_size": 5, "softmax_scale": 1.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_window_is_cut_from_the_whole(settings: dict[str, Any], window: tuple[range, range]) -> None:
    rate = settings.get("rate", 2)
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 12 * rate, 14 * rate, generator=rng, dtype=torch.float64)
    mask = torch.zeros(2, 1, 12 * rate, 14 * rate)
    mask[0, :, : 5 * rate, rate : 7 * rate] = mask[1, :, -rate:, -rate:] = 1
    whole, offset = ContextualAttention(**settings, backend=FactorizedAttention())(features, None, mask, True)
    found, places = ContextualAttention(**settings)(features, None, mask, True, window=window)
    rows, columns = (slice(part.start, part.stop) for part in window)
    torch.testing.assert_close(places, offset[..., rows, columns])
    rows, columns = (slice(rate * part.start, rate * part.stop) for part in window)
    torch.testing.assert_close(found, whole[..., rows, columns], rtol=0, atol=1e-9)


def test_strips_are_narrower_where_there_are_many_keys() -> None:
    queries, settings = torch.empty(1, 1, 66, 66), Settings(2, 3, 3, 0, 0, 0)
    assert len(Tiles.of(queries, torch.empty(1, 1, 64, 64), settings).columns) == 1
    tiles = Tiles.of(queries, torch.empty(1, 1, 375, 500), settings)
    assert tiles.rows == 4
    assert {len(columns) for columns in tiles.columns} == {22}  # 2**24 scores // (4 rows x 187,500 keys)
    many = torch.empty(1, 1, 1, 1).expand(1, 1, 3000, 4000)
    assert len(Tiles.of(queries, many, settings).columns) == 5  # of at most 16 columns, never fewer


def test_a_strip_is_freed_before_the_next_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[tiled.Strip]] = []

    class Watched(tiled.Strip):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            assert not [strip for strip in made if strip() is not None]
            super().__init__(*args, **kwargs)
            made.append(weakref.ref(self))

    monkeypatch.setattr(tiled, "Strip", Watched)
    features = torch.rand(1, 2, 16, 16, requires_grad=True)
    ContextualAttention(backend=tiled.TiledAttention(block_columns=3))(features).sum().backward()
    assert len(made) == 3 + 3  # forward and backward


def test_strips_and_blocks_depend_on_the_number_of_keys_not_on_the_shape_of_their_grid() -> None:
    queries, settings = torch.empty(1, 1, 66, 66), Settings(2, 3, 3, 0, 0, 0)
    tiles = [Tiles.of(queries, torch.empty(1, 1, *grid), settings) for grid in ((20, 500), (100, 100), (500, 20))]
    assert tiles[0] == tiles[1] == tiles[2]
