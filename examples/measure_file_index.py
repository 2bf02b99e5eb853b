"""Measure the index of very many files: memory shared with 16 workers, and the time to list a large folder again.

python examples/measure_file_index.py [NAMES] [FILES]      default: 8,000,000 names, 1,800,000 empty files
"""

import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from gicinpaint.data.order import random_order
from gicinpaint.data.sources import Names, list_folder

WORKERS, FOLDERS, LOOKUPS = 16, 365, 10_000
SETTLED = 2.5  # seconds after which the listing of a new folder is kept


def proportional_memory(process: int) -> int:
    """Return the bytes of a process; what several share counts once among them (Linux)."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the memory of a process")


def look_up(names: Names, looked, measured) -> None:
    """Read names at random places, then wait until the memory is measured."""
    rng = random.Random(os.getpid())
    for _ in range(LOOKUPS):
        len(names[rng.randrange(len(names))])
    looked.wait()
    measured.wait()


def shared_memory(names: Names) -> int:
    """Return the bytes of this process and of forked workers that look names up."""
    context = multiprocessing.get_context("fork")
    looked, measured = context.Barrier(WORKERS + 1), context.Barrier(WORKERS + 1)
    processes = [context.Process(target=look_up, args=(names, looked, measured)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    looked.wait()
    total = sum(proportional_memory(process) for process in [os.getpid(), *(p.pid for p in processes)])
    measured.wait()
    for process in processes:
        process.join()
    return total


def main() -> None:
    """Print the figures."""
    names, files = (int(text) for text in (sys.argv[1:] + ["8000000", "1800000"][len(sys.argv) - 1 :])[:2])
    idle = shared_memory(Names.of([b"a.jpg"]))
    start = time.perf_counter()
    index = Names.of(b"%c/abbey_%03d/%08d.jpg" % (97 + n % 26, n % 365, n) for n in range(names))
    print(f"{names:,} names: {time.perf_counter() - start:.1f} s to make")
    print(f"with {WORKERS} workers: {(shared_memory(index) - idle) / 1e6:,.0f} MB together")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "large")
        for number in range(FOLDERS):
            (folder / f"{number:04d}").mkdir(parents=True)
            for place in range(number, files, FOLDERS):
                (folder / f"{number:04d}" / f"{place:08d}.jpg").touch()
        time.sleep(SETTLED)
        for which in ("first", "second"):
            start = time.perf_counter()
            found = list_folder(folder, cache_dir=Path(scratch, "cache"))
            random_order(len(found), 0, 0)
            print(f"{which} start with {len(found):,} files: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
