"""Peak memory of a step beyond what its inputs and weights hold, each step in a process of its own."""

import contextlib
import gc
import multiprocessing
import resource
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from gicinpaint.benchmark.cases import Case

_SMALL = 32  # pixels: runs the same code once, so that loading it does not count


def peak_extra_memory(case: Case) -> int:
    """Return the bytes that a case's first step takes at its peak, results included.

    On a processor: the growth of the process's resident memory; on an accelerator: what the allocator gave out.

    Raises:
        MemoryError: If the process ended without an answer, as it does when the machine has no memory left.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(case, sender))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        process.join()
        raise MemoryError(f"{case}: its process ended with code {process.exitcode} before it could measure") from None
    process.join()
    if isinstance(found, Exception):
        raise found
    return int(found)


def _measure(case: Case, sender: Connection) -> None:
    try:
        replace(case, height=_SMALL, width=_SMALL, batch_size=1).set_up()()
        step = case.set_up()
        gc.collect()
        before = _start(case.device)
        step()
        sender.send(max(0, _peak(case.device) - before))
    except Exception as error:
        sender.send(error)


def _start(device: str) -> int:
    """Forget earlier peaks and return what is held now."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with contextlib.suppress(OSError):  # only Linux forgets peaks; elsewhere the earlier one is the ground
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS") or _peak(device)


def _peak(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return _resident("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _resident(key: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None
