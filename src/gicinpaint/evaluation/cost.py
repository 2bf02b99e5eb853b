"""What a method costs: seconds, and memory beyond what the process held before."""

import contextlib
import ctypes
import gc
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch


class Cost:
    """Seconds and peak memory of the work done inside `with cost.running():`.

    On a processor the memory is the growth of the process's resident memory, on an accelerator what the allocator gave
    out beyond what was held.

    Args:
        device: Where the work runs.
        seconds: Seconds of earlier pieces.
        peak: Bytes of earlier pieces.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0, peak: int = 0) -> None:
        self.device = device
        self.seconds = seconds
        self.peak = peak
        gc.collect()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the work inside."""
        ground = self._start()
        started = time.perf_counter()
        yield
        self._wait()
        self.seconds += time.perf_counter() - started
        self.peak = max(self.peak, self._highest() - ground)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _start(self) -> int:
        self._wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        with contextlib.suppress(OSError, AttributeError):  # memory that was freed, but kept for reuse, is given back
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # only Linux forgets peaks; elsewhere the earlier one is the ground
            Path("/proc/self/clear_refs").write_text("5")
        return _resident("VmRSS") or _highest_ever()

    def _highest(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM") or _highest_ever()


def _highest_ever() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _resident(key: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None
