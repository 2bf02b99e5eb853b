"""Run the cases of a benchmark, comparison by comparison, and leave out what would take too long or too much."""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from gicinpaint.benchmark.cases import Case
from gicinpaint.benchmark.memory import peak_extra_memory
from gicinpaint.benchmark.timing import time_in_turns


@dataclass(frozen=True)
class Limits:
    """How much a benchmark may take.

    Args:
        rounds: Measurements of each case.
        seconds: Time of a comparison after which no further round starts; three take place in any case.
        step_seconds: Longest step that is tried; from the next smaller size, by the square of the pixels.
        step_gigabytes: Largest peak memory that is tried, likewise.
    """

    rounds: int = 7
    seconds: float = 60.0
    step_seconds: float = 60.0
    step_gigabytes: float = 8.0


@dataclass(frozen=True)
class Result:
    """What was measured of a case.

    Attributes:
        case: The case.
        seconds: Time of a step, one number for each round; empty where it was left out.
        memory: Peak bytes beyond inputs and weights, or None if not measured.
        ratio: The basis's median time divided by this one's: above 1 is faster; None without both.
        left_out: Why it was left out, or an empty string.
    """

    case: Case
    seconds: Sequence[float] = ()
    memory: int | None = None
    ratio: float | None = None
    left_out: str = ""

    @property
    def median(self) -> float:
        """Median time of a step, seconds."""
        return statistics.median(self.seconds)


@dataclass
class Measuring:
    """Measures cases and remembers, for each curve, what the last size took.

    Args:
        basis: Variant that the others are compared with.
        limits: How much it may take.
        with_memory: Whether to measure memory too.
        after_each: Called with a case after each of its measurements.
    """

    basis: str
    limits: Limits
    with_memory: bool
    after_each: Callable[[Case], object] = lambda case: None
    _last: dict[tuple[object, ...], Result] = field(default_factory=dict)

    def results(self, cases: Sequence[Case]) -> Iterator[Result]:
        """Return the results one comparison after the other."""
        for _, group in groupby(cases, key=lambda case: case.comparison):
            yield from self._compare(list(group))

    def _compare(self, cases: list[Case]) -> list[Result]:
        reasons = {case: self._reason(case) for case in cases}
        tried = [case for case in cases if not reasons[case]]
        memory: dict[Case, int] = {}
        for case in tried if self.with_memory else ():
            memory[case] = peak_extra_memory(case)
            self.after_each(case)
        by_name = {case.variant: case for case in tried}
        times = time_in_turns(
            {name: case.set_up() for name, case in by_name.items()},
            self.limits.rounds,
            self.limits.seconds,
            lambda name: self.after_each(by_name[name]),
        )
        ground = statistics.median(times[self.basis]) if self.basis in times else None
        results = []
        for case in cases:
            if case.variant not in times:
                results.append(Result(case, left_out=reasons[case]))
                continue
            seconds = times[case.variant]
            ratio = ground / statistics.median(seconds) if ground else None
            results.append(Result(case, seconds, memory.get(case), ratio))
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


def load() -> float:
    """Return how many processes wanted a core during the last minute, on average; 0 where nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
