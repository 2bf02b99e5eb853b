"""Working through a dataset with several processes and a progress bar."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from gicinpaint.data.listing import DatasetError

Result = TypeVar("Result")

_shared: dict[str, Any] = {}  # what each worker process holds: the dataset, sent once and not with every task


def work_through(
    work: Callable[..., Result],
    subject: object,
    tasks: Iterable[tuple[list[int], *tuple[Any, ...]]],
    workers: int,
    *,
    total: int,
    done: int = 0,
    title: str | None = None,
) -> Iterator[Result]:
    """Yield `work(subject, *task)` for every task as they end, which may be in any order.

    Args:
        work: A function of a module; it runs in other processes.
        subject: Its first argument, the same for all tasks, e.g. a dataset.
        tasks: Its other arguments; the first is the list of image numbers, which counts for the progress bar.
        workers: Number of processes; 0 works in this one.
        total: Number of images.
        done: How many of them were done before.
        title: Title of the progress bar on the standard error; None shows none.

    Raises:
        DatasetError: If a process was killed.
        Exception: What the work raises; the other tasks are given up.
    """
    with tqdm(total=total, initial=done, desc=title, unit="image", disable=title is None, smoothing=0.05) as bar:
        if workers == 0:
            for task in tasks:
                result = work(subject, *task)
                bar.update(len(task[0]))
                yield result
            return
        counter, stop = multiprocessing.Value("q", 0), multiprocessing.Value("b", 0)
        pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(work, subject, counter, stop))
        try:
            left = iter(tasks)
            waiting: set[Future[Result]] = set()
            while True:
                waiting |= {pool.submit(_run, task) for task in islice(left, 2 * workers - len(waiting))}
                if not waiting:
                    return
                ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(done + counter.value - bar.n)
                for future in ended:
                    yield future.result()
        except BrokenProcessPool:
            raise DatasetError(
                "a worker process was killed, perhaps for want of memory; start the job again, it goes on where it "
                "stopped, with fewer workers if need be"
            ) from None
        finally:
            stop.value = 1
            pool.shutdown(wait=True, cancel_futures=True)


def count_done(images: int = 1) -> None:
    """Tell the progress bar, from inside the work, that images are done; give the task up if all work was stopped."""
    counter, stop = _shared.get("counter"), _shared.get("stop")
    if counter is not None:
        with counter.get_lock():
            counter.value += images
    if stop is not None and stop.value:
        raise _StoppedError


class _StoppedError(Exception):
    """Another task failed or the user interrupted; nobody waits for this one's result."""


def _start(work: Callable[..., Any], subject: object, counter: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    torch.set_num_threads(1)  # a forked process has none of its parent's threads, and would wait for them
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _shared.update(work=work, subject=subject, counter=counter, stop=stop)


def _run(task: tuple[Any, ...]) -> Any:
    return _shared["work"](_shared["subject"], *task)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when the parent has been killed; without this its workers would wait for ever
        os._exit(1)
