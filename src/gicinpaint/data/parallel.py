"""Working through a dataset with several processes and a progress bar."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from gicinpaint.data.listing import DatasetError

Result = TypeVar("Result")


def work_through(
    work: Callable[..., Result],
    subject: object,
    tasks: Sequence[tuple[Tensor, *tuple[Any, ...]]],
    workers: int,
    *,
    total: int,
    done: int = 0,
    title: str | None = None,
) -> Iterator[Result]:
    """Yield `work(subject, numbers, ...)` for every task as they end, which may be in any order.

    Args:
        work: A function of a module; it runs in other processes.
        subject: Its first argument, the same for all tasks, e.g. a dataset.
        tasks: Its other arguments; the first are image numbers, int64 (N,), which it gets as a list.
        workers: Number of processes; 0 works in this one.
        total: Number of images.
        done: How many of them were done before.
        title: Title of the progress bar on the standard error; None shows none.

    Raises:
        DatasetError: If a process was killed.
        Exception: What the work raises; the other tasks are given up.
    """
    dataset = _Tasks(work, subject, tasks)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_prepare_worker,
        in_order=False,
    )
    with tqdm(total=total, initial=done, desc=title, unit="image", disable=title is None, smoothing=0.05) as bar:
        try:
            for images, result in loader:
                if isinstance(result, Exception):
                    raise result
                bar.update(images)
                yield result
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DatasetError(
                "a worker process was killed, perhaps for want of memory; start the job again, it goes on where it "
                "stopped, with fewer workers if need be"
            ) from None
        finally:
            dataset.stop[0] = True


def check_stopped() -> None:
    """Give the task up if all work was stopped; the work calls it after each image."""
    worker = get_worker_info()
    if worker is not None and cast(_Tasks, worker.dataset).stop:
        raise _StoppedError


class _StoppedError(Exception):
    """Another task failed or the user interrupted; nobody waits for this one's result."""


class _Tasks(Dataset[Any]):
    """The tasks as a dataset: item i is the number of its images, and its result or error."""

    def __init__(self, work: Callable[..., Any], subject: object, tasks: Sequence[Any]) -> None:
        self.work = work
        self.subject = subject
        self.tasks = tasks
        self.stop = torch.zeros(1, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        numbers, *rest = self.tasks[index]
        try:
            return len(numbers), self.work(self.subject, numbers.tolist(), *rest)
        except Exception as error:  # raised in the parent, as it is: a loader would put a traceback into its message
            return len(numbers), error


def _unchanged(item: Any) -> Any:
    return item


def _prepare_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when the parent has been killed; a worker would finish its shard first
        os._exit(1)
