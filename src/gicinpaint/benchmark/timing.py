"""Interleaved timing: what is compared runs in turns, so that a disturbance meets all alike."""

import time
from collections.abc import Callable, Mapping

from gicinpaint.benchmark.cases import Step

SHORTEST = 0.05  # seconds of one measurement; shorter steps are repeated within it
FEWEST = 3  # rounds, whatever the time limit


def time_in_turns(
    steps: Mapping[str, Step], rounds: int, seconds: float, after_each: Callable[[str], object] = lambda name: None
) -> dict[str, list[float]]:
    """Return the seconds per step of every round, by name.

    Each step runs once before, unmeasured. In every round each is measured once, a different one first.

    Args:
        steps: What to time, by name.
        rounds: Measurements of each.
        seconds: No further round starts after this long, once there were three.
        after_each: Called with the name after each measurement.
    """
    repeats, names = {}, list(steps)
    for name, step in steps.items():
        step()
        repeats[name] = max(1, round(SHORTEST / max(_time(step, 1), 1e-9)))
    found: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for turn in range(rounds if names else 0):
        if turn >= FEWEST and time.perf_counter() - start > seconds:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(_time(steps[name], repeats[name]))
            after_each(name)
    return found


def _time(step: Step, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats
