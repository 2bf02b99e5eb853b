"""Measure the cases of a benchmark: times interleaved, so that a disturbance meets all alike, and peak memory."""

import contextlib
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import torch

from gicinpaint.benchmark.cases import Case, Step
from gicinpaint.training.run_record import resident_memory

SHORTEST = 0.05  # seconds of one measurement; shorter steps are repeated within it
FEWEST = 3  # rounds, whatever the time limit
_SMALL = 32  # pixels: runs the same code once, so that loading it does not count


@dataclass(frozen=True)
class BenchmarkLimits:
    """How much a benchmark may take."""

    rounds: int = 7  # measurements of each case
    seconds: float = 60.0  # of a comparison, after which no further round starts; three take place in any case
    step_seconds: float = 60.0  # longest step that is tried; from the next smaller size, by the square of the pixels
    step_gigabytes: float = 8.0  # largest peak memory that is tried, likewise


@dataclass(frozen=True)
class CaseResult:
    """What was measured of a case."""

    case: Case
    seconds: Sequence[float] = ()  # of a step, one number for each round; empty where the case was left out
    memory: int | None = None  # peak bytes beyond inputs and weights, if measured
    ratio: float | None = None  # the basis's median time divided by this one's: above 1 is faster
    left_out: str = ""  # why it was left out

    @property
    def median(self) -> float:
        """Median time of a step, seconds."""
        return statistics.median(self.seconds)


@dataclass
class Measuring:
    """Measures cases and remembers, for each curve, what the last size took."""

    basis: str  # variant that the others are compared with
    limits: BenchmarkLimits
    with_memory: bool
    after_each: Callable[[Case], object] = lambda case: None  # called after each measurement
    _last: dict[tuple[object, ...], CaseResult] = field(default_factory=dict)

    def results(self, cases: Sequence[Case]) -> Iterator[CaseResult]:
        """Return the results one comparison after the other."""
        for _, group in groupby(cases, key=lambda case: case.comparison):
            yield from self._compare(list(group))

    def _compare(self, cases: list[Case]) -> list[CaseResult]:
        reasons = {case: self._reason(case) for case in cases}
        tried = {case.variant: case for case in cases if not reasons[case]}
        memory: dict[str, int] = {}
        for name, case in tried.items() if self.with_memory else ():
            memory[name] = peak_extra_memory(case)
            self.after_each(case)
        steps = {name: case.set_up() for name, case in tried.items()}
        limits = self.limits
        times = time_in_turns(steps, limits.rounds, limits.seconds, lambda name: self.after_each(tried[name]))
        medians = {name: statistics.median(seconds) for name, seconds in times.items()}
        results = []
        for case in cases:
            if reasons[case]:
                results.append(CaseResult(case, left_out=reasons[case]))
                continue
            ratio = medians[self.basis] / medians[case.variant] if self.basis in medians else None
            results.append(CaseResult(case, times[case.variant], memory.get(case.variant), ratio))
            self._last[case.curve] = results[-1]
        return results

    def _reason(self, case: Case) -> str:
        """Return why a case is left out, judged by the last size of its curve, or an empty string."""
        last = self._last.get(case.curve)
        if last is None:
            return ""
        growth = (case.pixels / last.case.pixels) ** 2
        if last.median * growth > self.limits.step_seconds:
            return f"may take {last.median * growth:,.0f} s"
        if last.memory is not None and last.memory * growth > self.limits.step_gigabytes * 1e9:
            return f"may take {last.memory * growth / 1e9:,.0f} GB"
        return ""


def time_in_turns(
    steps: Mapping[str, Step], rounds: int, seconds: float, after_each: Callable[[str], object] = lambda name: None
) -> dict[str, list[float]]:
    """Return the seconds per step of every round, by name.

    Each step runs once before, unmeasured. In every round each is measured once, a different one first; no further
    round starts after some seconds, once there were three. The timer of torch.utils.benchmark would warm up twice
    before each of these measurements, three times the cost of long steps.
    """
    repeats, names = {}, list(steps)
    for name, step in steps.items():
        step()
        repeats[name] = max(1, round(SHORTEST / max(_time(step, 1), 1e-9)))
    found: dict[str, list[float]] = {name: [] for name in names}
    spent = 0.0
    for turn in range(rounds if names else 0):
        if turn >= FEWEST and spent > seconds:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(_time(steps[name], repeats[name]))
            spent += found[name][-1] * repeats[name]
            after_each(name)
    return found


def _time(step: Step, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def peak_extra_memory(case: Case) -> int:
    """Return the bytes that a case's first step takes at its peak, results included.

    On a processor: the growth of the process's resident memory; on an accelerator: what the allocator gave out.

    Raises:
        MemoryError: If the process ended without an answer, as it does when the machine has no memory left.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak_of_first_step, case).result()
        except BrokenProcessPool:
            raise MemoryError(f"{case}: its process was killed before it could measure; free memory") from None


def _peak_of_first_step(case: Case) -> int:
    replace(case, height=_SMALL, width=_SMALL, batch_size=1).set_up()()
    step = case.set_up()
    gc.collect()
    if case.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with contextlib.suppress(OSError):  # only Linux forgets peaks; elsewhere the earlier one is the start
        Path("/proc/self/clear_refs").write_text("5")
    before = resident_memory()
    step()
    return max(0, resident_memory(field="VmHWM") - before)


def load() -> float:
    """Return the load average of the last minute; 0 where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
