"""How much longer filling takes than the bare network; needs a quiet machine, so it is no test.

    python tests/inpaint_speed.py [threads]      two threads, unless told otherwise

One picture of 512x512, and the inpaint job on 200 files of 250x253 with a mask each, against the network alone at
the padded size; both at width 32, in turns. Prints medians and the ratios that the issue bounds by 1.10 and 1.15.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gicinpaint import Generator, Inpainter
from gicinpaint.cli import main as run_job
from gicinpaint.weights.pretrained import save_generator
from pictures_of_every_kind import draw

ROUNDS = 7
COUNT = 200


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Return the time on the wall, and of processors in this process and those that it started and saw end."""

    def processor() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    wall, busy = time.perf_counter(), processor()
    call()
    return time.perf_counter() - wall, processor() - busy


def bare(generator: Generator, height: int, width: int) -> Callable[[], object]:
    """Return a pass of the network alone."""
    image, mask = torch.rand(1, 3, height, width) * 2 - 1, torch.zeros(1, 1, height, width)
    mask[..., height // 4 : height // 2, width // 4 : width // 2] = 1
    masked = image * (1 - mask)

    @torch.no_grad()
    def call() -> object:
        return generator(masked, mask)

    return call


def report(what: str, filling: list[tuple[float, float]], network: list[tuple[float, float]]) -> None:
    """Print medians and their ratio, on the wall and of processors."""
    pairs = [[statistics.median(times) for times in zip(*side, strict=True)] for side in (filling, network)]
    for kind, mine, its in zip(("wall", "processor"), *pairs, strict=True):
        print(f"{what}, {kind}: {mine:.3f} s, the network alone {its:.3f} s, ratio {mine / its:.3f}", flush=True)


def one_picture(generator: Generator) -> None:
    """Measure a picture of 512x512."""
    inpainter, network = Inpainter(generator, device="cpu"), bare(generator, 512, 512)
    image, mask = draw("RGB", 512, 512, 0), np.zeros((512, 512), bool)
    mask[128:256, 128:256] = True
    for call in (network, lambda: inpainter(image, mask)):
        call()
    times = [(seconds(lambda: inpainter(image, mask)), seconds(network)) for _ in range(ROUNDS)]
    report("512x512", *map(list, zip(*times, strict=True)))


def a_folder(generator: Generator, threads: int) -> None:
    """Measure the job on files, from its start to the last file on the disk; imports are done before."""
    network = bare(generator, 256, 256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_generator(generator, folder / "model")
        for kind in ("in", "masks"):
            (folder / kind).mkdir()
        mask = np.zeros((250, 253), np.uint8)
        mask[60:120, 70:150] = 255
        for index in range(COUNT):
            draw("RGB", 250, 253, index).save(folder / "in" / f"{index:03d}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{index:03d}.png")
        os.chdir(folder)
        options = ["checkpoint=model", "input=in", "masks=masks", f"threads={threads}", "trainer=cpu", "overwrite=true"]

        def job(count: int) -> None:
            chosen = [f"input={folder}/first.txt"] if count < COUNT else []
            (folder / "first.txt").write_text("".join(f"{folder}/in/{index:03d}.png\n" for index in range(count)))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
                code = run_job(["inpaint", *options, *chosen, f"output={folder}/out{count}"])
            if code:
                raise RuntimeError(errors.getvalue())

        job(2)  # imports and first passes
        before = [seconds(network) for _ in range(COUNT // 2)]
        filling = seconds(lambda: job(COUNT))
        alone = [*before, *(seconds(network) for _ in range(COUNT // 2))]
        assert len(list((folder / f"out{COUNT}").glob("*.png"))) == COUNT
        os.chdir("/")
    total = tuple(COUNT * statistics.median(times) for times in zip(*alone, strict=True))
    report(f"{COUNT} files of 250x253", [filling], [total])


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(count)
    torch.manual_seed(0)
    network = Generator(32).eval()
    one_picture(network)
    a_folder(network, count)
