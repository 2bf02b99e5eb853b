"""Half an hour of training on the sample set: memory must stay flat and losses finite.

    python tests/soak.py FOLDER                     # 30 minutes; ends with one line of figures, code 0 if all is well
    python tests/soak.py FOLDER 10 dataset.workers=0    # 10 minutes with other settings

The memory is that of the run and of its readers together, shared pages counted once and files not, every ten seconds.
It may grow by less than 2 % from the minutes after the warm-up to the last ones. FOLDER/soak.csv keeps every sample.
"""

from __future__ import annotations

import csv
import math
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "experiment=quickstart",
    "threads=1",
    "updates=10000000",
    "dataset.workers=2",
    "model.warmup_steps=50",
    "callbacks.ema.decay=0.999",
    "callbacks.checkpoints.every=200",
    "trainer.max_time=null",
    "trainer.val_check_interval=300",
)
ALLOWED_GROWTH = 0.02
EVERY = 10  # seconds


def memory(process: psutil.Process) -> tuple[float, float, int]:
    """Return megabytes of a process and all that it started, then of the process alone, and how many they are.

    Pages that they share count once. Files in memory, such as libraries, do not count: other programs share them, and
    what falls to each changes as those come and go.
    """
    sizes: dict[int, float] = {}
    for one in (process, *process.children(recursive=True)):
        try:
            rollup = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        fields = dict(line.split()[:2] for line in rollup.splitlines()[1:])
        sizes[one.pid] = sum(int(fields[name]) for name in ("Pss_Anon:", "Pss_Shmem:")) * 1024 / 1e6
    return sum(sizes.values()), sizes.get(process.pid, 0.0), len(sizes)


def watch(run: subprocess.Popen[bytes], folder: Path, minutes: float) -> list[tuple[float, float]]:
    """Write down the memory until the time is over; return minutes and megabytes."""
    started, samples = time.monotonic(), []
    with (folder / "soak.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("minutes", "all_mb", "main_mb", "processes"))
        while (passed := (time.monotonic() - started) / 60) < minutes and run.poll() is None:
            total, main, count = memory(psutil.Process(run.pid))
            if not main:
                break  # it has just ended
            samples.append((passed, total))
            writer.writerow((f"{passed:.2f}", f"{total:.1f}", f"{main:.1f}", count))
            file.flush()
            time.sleep(EVERY)
    return samples


def growth(samples: list[tuple[float, float]], minutes: float) -> tuple[float, float]:
    """Return megabytes after the warm-up (the second sixth of the time) and at the end (the last sixth)."""
    sixth = minutes / 6
    early = [size for passed, size in samples if sixth <= passed < 2 * sixth]
    late = [size for passed, size in samples if passed >= minutes - sixth]
    return statistics.mean(early), statistics.mean(late)


def losses(path: Path) -> tuple[int, int, int]:
    """Return how many training losses metrics.csv holds, how many of them are not finite, and the last update."""
    count = wrong = update = 0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            update = max(update, int(float(row.get("step") or 0)))
            values = [float(value) for name, value in row.items() if name.startswith("train/") and value]
            count += len(values)
            wrong += sum(not math.isfinite(value) for value in values)
    return count, wrong, update


def main(folder: Path, minutes: float, overrides: list[str]) -> int:
    """Train, watch, ask the run to end, and judge."""
    folder.mkdir(parents=True)
    command = [sys.executable, str(ROOT / "train.py"), *SETTINGS, f"hydra.run.dir={folder / 'run'}", *overrides]
    with (folder / "soak.log").open("wb") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            samples = watch(run, folder, minutes)
            ended_early = run.poll() is not None
            run.send_signal(signal.SIGTERM)
            code = run.wait(120)
        finally:
            run.kill()
    if ended_early or code != 128 + signal.SIGTERM:
        print(f"the run ended with code {code} after {samples[-1][0]:.1f} minutes; see {folder / 'soak.log'}")
        return 1
    early, late = growth(samples, minutes)
    count, wrong, update = losses(folder / "run" / "csv" / "metrics.csv")
    print(
        f"{minutes:g} minutes, {update:,} updates: memory {early:.0f} MB after the warm-up, {late:.0f} MB at the end "
        f"({late / early - 1:+.2%}); {count:,} losses logged, {wrong} not finite"
    )
    return int(late / early - 1 >= ALLOWED_GROWTH or wrong > 0 or not count)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(__doc__)
    length, others = (
        (arguments[1], arguments[2:]) if arguments[1:2] and "=" not in arguments[1] else ("30", arguments[1:])
    )
    sys.exit(main(Path(arguments[0]).resolve(), float(length), others))
