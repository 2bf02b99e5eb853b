"""What an index of names takes in one process and in the workers that are forked from it."""

import gc
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from gicinpaint.data.listing import Names

_LOOKS = 10_000  # names that each worker looks up


def index_memory(names: int, workers: int) -> tuple[float, int, int]:
    """Make an index of names in a process of its own and let forked workers use it.

    Returns:
        The seconds to make it; the bytes that it takes in the process that made it; and those that the workers take
        together beyond what they share with it, less what they would take without an index.

    Raises:
        OSError: If the system does not tell the memory of a process (all but Linux).
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_hold, args=(names, workers, sender))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        raise OSError("the process with the index ended without an answer; is there enough memory?") from None
    finally:
        process.join()
    if isinstance(found, Exception):
        raise found
    seconds, held, more = found
    return seconds, held, more


def resident(process: int | None = None) -> int:
    """Return the bytes of memory that a process has, shared ones included; by default this one's."""
    return _field("status", "VmRSS", process)


def _hold(count: int, workers: int, sender: Connection) -> None:
    try:
        torch.set_num_threads(1)
        alone = _field("smaps_rollup", "Pss")
        idle = _together(Names.of(_name(number) for number in range(1)), workers)
        start = time.perf_counter()
        names = Names.of(map(_name, range(count)))
        seconds = time.perf_counter() - start
        gc.collect()
        held = _field("smaps_rollup", "Pss") - alone
        sender.send((seconds, held, max(0, _together(names, workers) - idle - held)))
    except Exception as error:
        sender.send(error)


def _together(names: Names, workers: int) -> int:
    """Return the bytes of this process and of workers that look names up; what is shared counts once."""
    context = multiprocessing.get_context("fork")
    looked, measured = context.Barrier(workers + 1), context.Barrier(workers + 1)
    processes = [context.Process(target=_look, args=(names, looked, measured)) for _ in range(workers)]
    for process in processes:
        process.start()
    looked.wait()
    total = sum(_field("smaps_rollup", "Pss", process) for process in [os.getpid(), *_pids(processes)])
    measured.wait()
    for process in processes:
        process.join()
    return total


def _look(names: Names, looked: Barrier, measured: Barrier) -> None:
    draw = random.Random(os.getpid())
    for _ in range(_LOOKS):
        len(names[draw.randrange(len(names))])
    looked.wait()
    measured.wait()


def _pids(processes: list[multiprocessing.context.ForkProcess]) -> Iterator[int]:
    yield from (process.pid for process in processes if process.pid is not None)


def _name(number: int) -> bytes:
    return b"a/abbey_%03d/%08d.jpg" % (number % 365, number)


def _field(file: str, key: str, process: int | None = None) -> int:
    for line in Path(f"/proc/{process or 'self'}/{file}").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{process or 'self'}/{file} does not tell {key}")
