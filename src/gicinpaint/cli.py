"""The command `gicinpaint <job> [overrides]`: each job is a Hydra job with the primary config of its name."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from threading import current_thread, main_thread
from typing import NamedTuple

from omegaconf import DictConfig

WRONG_OVERRIDES = 2
FAILED = 1
INTERRUPTED = 130
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_FULL_ERROR = "HYDRA_FULL_ERROR"


class Job(NamedTuple):
    """A job: what it does, in a line, and where the function lies that does it with a composed configuration."""

    summary: str
    function: str

    def __call__(self, config: DictConfig) -> None:
        """Run the job; only now is it imported, with what it needs."""
        resolve_name(self.function)(config)


JOBS = {
    "train": Job("Train the networks on a dataset.", "gicinpaint.training.train:train"),
    "prepare": Job("Pack a dataset into shards, or find its bad images.", "gicinpaint.data.prepare:run_prepare"),
    "inpaint": Job("Fill holes in images: one, a folder, a pattern or shards.", "gicinpaint.inference.predict:inpaint"),
    "evaluate": Job("Measure methods on images and masks.", "gicinpaint.evaluation.evaluate:evaluate"),
    "benchmark": Job(
        "Measure time and memory of attention, generator or training step.", "gicinpaint.benchmark.run:run_benchmark"
    ),
    "convert": Job(
        "Convert a model: the authors' checkpoints, training checkpoints, safetensors.",
        "gicinpaint.weights.conversion:convert",
    ),
    "export": Job("Write a generator as ONNX and for torch.export.", "gicinpaint.weights.export:export"),
    "demo": Job("Serve a web page on which holes are painted and filled.", "gicinpaint.demo.server:demo"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a job and return its exit code: 0, 1 if it failed, 2 if the overrides are wrong, 130 if interrupted.

    What the user can mend is one line on the standard error; anything else keeps its traceback, as does everything
    with HYDRA_FULL_ERROR=1.

    Args:
        arguments: The job and its overrides. Default: those of the command line.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    job, *overrides = arguments
    if job == "--version":
        print(f"gicinpaint {version('gicinpaint')}")
        return 0
    if job not in JOBS:
        from gicinpaint.config.validation import closest

        match = closest(job, JOBS)
        _say(f"{job}: no such job; " + (f"did you mean {match}?" if match else f"the jobs are {', '.join(JOBS)}"))
        return WRONG_OVERRIDES
    for number in _ENDING:  # as an exception, so that everything is closed and tidied up
        if signal.getsignal(number) is signal.SIG_DFL and current_thread() is main_thread():
            signal.signal(number, _end)
    try:
        return _run(job, overrides)
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def overview() -> str:
    """Return the page that lists the jobs."""
    width = max(map(len, JOBS))
    lines = [f"  gicinpaint {name:{width}}   {job.summary}" for name, job in JOBS.items()]
    return "\n".join(
        (
            "Generative image inpainting with contextual attention (Yu et al., CVPR 2018)",
            "",
            "Usage: gicinpaint <job> [group=option] [key=value]",
            "",
            *lines,
            "",
            "  gicinpaint <job> --help      what a job does and all of its settings",
            "  gicinpaint <job> --cfg job   the configuration it would run with",
            "  gicinpaint <job> -m a=1,2    one run for each value",
        )
    )


def _run(job: str, overrides: list[str]) -> int:
    """Hand a job to Hydra and turn what fails into a line and an exit code."""
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gicinpaint.config.aliases import first_names
    from gicinpaint.config.command_line import complaint_about_options, explain, quote_values, register_resolvers

    register_resolvers()
    overrides = first_names(overrides, job)
    overrides = quote_values(overrides)
    overrides = sorted(overrides, key=lambda word: word not in ("-m", "--multirun"))  # Hydra refuses it among others
    if complaint := complaint_about_options(overrides):
        _say(complaint)
        return WRONG_OVERRIDES
    users = (sys.argv, os.environ.get(_FULL_ERROR))
    full = users[1] == "1"

    # Hydra sees the overrides without the job, and raises its errors instead of printing them. The job itself sees the
    # user's command line: DDP starts its processes with it.
    # The codes of jobs that failed, each reported already, as names of files: a launcher may use other processes.
    with _command_line([f"gicinpaint {job}", *overrides], "1"), TemporaryDirectory() as codes:

        def task(config: DictConfig) -> None:
            with _command_line(*users):
                try:
                    JOBS[job](config)
                except Exception as error:  # reported here: raised again, Hydra would add lines of its own
                    Path(codes, str(_report(error, full))).touch()

        try:
            hydra.main(config_path="pkg://gicinpaint.conf", config_name=job, version_base="1.3")(task)()
        except (HydraException, OmegaConfBaseException, ValueError, OSError, yaml.YAMLError) as error:
            if full:
                raise
            _say(explain(error, overrides, job))
            return WRONG_OVERRIDES
        return max((int(path.name) for path in Path(codes).iterdir()), default=0)


def _report(error: Exception, full: bool) -> int:
    """Print a line for what the user can mend and a traceback for the rest; return the exit code."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from gicinpaint.config.validation import ConfigurationError, JobError

    config = HydraConfig.get()
    which = f"[{config.job.override_dirname}] " if config.mode == RunMode.MULTIRUN else ""
    if full or not isinstance(error, ConfigurationError | JobError):
        traceback.print_exception(error)
    else:
        _say(which + " ".join(str(error).split()))
    return WRONG_OVERRIDES if isinstance(error, ConfigurationError) else FAILED


@contextmanager
def _command_line(arguments: list[str], full_error: str | None) -> Iterator[None]:
    """Set the command line and HYDRA_FULL_ERROR for a while."""
    before = (sys.argv, os.environ.pop(_FULL_ERROR, None))
    sys.argv = arguments
    if full_error is not None:
        os.environ[_FULL_ERROR] = full_error
    try:
        yield
    finally:
        sys.argv = before[0]
        os.environ.pop(_FULL_ERROR, None)
        if before[1] is not None:
            os.environ[_FULL_ERROR] = before[1]


def _say(line: str) -> None:
    print(f"gicinpaint: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
