"""What is measured: a case is a row of the table, a benchmark the list of its cases; or figures with a goal each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, runtime_checkable

import torch

Step = Callable[[], object]
Work = Callable[["Case"], Step]  # makes inputs and weights; it is pickled to the processes that measure memory


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    what: str  # is measured, such as "forward"
    variant: str  # one of several ways to do it, such as a backend's name
    height: int  # of the input, in pixels or feature cells
    width: int
    batch_size: int  # images per step
    dtype: str  # floating-point type by torch's name, such as "float32"
    threads: int  # of the processor
    device: str  # "cpu" or "cuda"
    work: Work  # sets up the step

    @property
    def comparison(self) -> tuple[str, int, int, int, str, int, str]:
        """What variants that are compared with each other have in common."""
        return (self.what, self.height, self.width, self.batch_size, self.dtype, self.threads, self.device)

    @property
    def curve(self) -> tuple[str, str, int, str, int, str]:
        """What all sizes of one curve have in common."""
        return (self.what, self.variant, self.batch_size, self.dtype, self.threads, self.device)

    @property
    def pixels(self) -> int:
        """Pixels or feature cells of an image."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.what} {self.variant} {self.height}x{self.width} batch {self.batch_size} {self.dtype}"

    def set_up(self) -> Step:
        """Return the step with its inputs made, and set the number of threads."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        step = self.work(self)
        if self.device == "cpu":
            return step

        def finished() -> None:
            step()
            torch.cuda.synchronize()

        return finished


class Benchmark(Protocol):
    """What a benchmark offers; `conf/benchmark` has one option for each."""

    parts: Sequence[str]  # what is measured, such as "forward"
    variants: Sequence[str]  # names of the ways to do it; compared within one run
    basis: str  # the variant whose time is divided by that of the others
    sizes: Sequence[int | Sequence[int]]  # pixels or feature cells, as numbers or pairs (height, width)
    batch_sizes: Sequence[int]  # images per step
    dtypes: Sequence[str]  # floating-point types, by torch's names

    def work(self, part: str, variant: str) -> Work:
        """Return what sets up the steps of a part and a variant."""
        ...


@dataclass(frozen=True)
class Figure:
    """What was measured once."""

    part: str  # of the benchmark
    what: str
    value: float
    unit: str
    least: float | None = None  # smallest value that is good enough
    most: float | None = None  # largest value that is good enough
    note: str = ""  # for the last column of the table

    @property
    def goal(self) -> str:
        """The goal in words, or an empty string."""
        if self.least is not None:
            return f"at least {self.least:,.4g}"
        return "" if self.most is None else f"at most {self.most:,.4g}"

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most

    @property
    def verdict(self) -> str:
        """The same in a word; the note where there is no goal."""
        return {None: self.note, True: "reached", False: "missed"}[self.reached]


@runtime_checkable
class FigureBenchmark(Protocol):
    """A benchmark that measures figures instead of cases."""

    def figures(self, rounds: int) -> Iterator[Figure]:
        """Return the figures one after the other, the best of several rounds where something is repeated."""
        ...


def list_cases(benchmark: Benchmark, threads: Sequence[int], device: str) -> Iterator[Case]:
    """Return every combination: those to be compared together, and of a curve the small sizes first.

    Raises a ValueError for a wrong size or type.
    """
    for dtype in benchmark.dtypes:
        floating_point(dtype)
    settings = product(threads, benchmark.parts, benchmark.batch_sizes, benchmark.dtypes, _pairs(benchmark.sizes))
    for count, part, batch_size, dtype, (height, width) in settings:
        for variant in benchmark.variants:
            work = benchmark.work(part, variant)
            yield Case(part, variant, height, width, batch_size, dtype, count, device, work)


def floating_point(name: str) -> torch.dtype:
    """Return a floating-point type by torch's name; raise a ValueError if there is no such type."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtypes must be floating-point types of torch, got {name!r}; use float32 or bfloat16")
    return found


def check_parts(parts: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError if a benchmark does not have one of the parts."""
    for part in parts:
        if part not in known:
            raise ValueError(f"parts must be among {', '.join(known)}, got {part!r}; correct benchmark.parts")


def _pairs(sizes: Sequence[int | Sequence[int]]) -> list[tuple[int, int]]:
    found = [(size, size) if isinstance(size, int) else tuple(size) for size in sizes]
    for size in found:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"sizes must be numbers or pairs [height,width], got {list(size)}; e.g. [64,[272,480]]")
    return sorted(found, key=lambda size: size[0] * size[1])  # type: ignore[arg-type]
