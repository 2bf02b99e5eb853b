from __future__ import annotations

import pytest

from gicinpaint.training.callbacks import StopAtUpdates


@pytest.mark.parametrize("updates", [0, -1])
def test_no_updates_at_all_are_reported(updates: int) -> None:
    with pytest.raises(ValueError, match=f"updates must be at least 1, got {updates}; the released limit is 1,000,000"):
        StopAtUpdates(updates)
