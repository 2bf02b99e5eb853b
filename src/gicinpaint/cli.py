"""The command `gicinpaint <job> [overrides]`: each job is a Hydra job with the primary config of its name."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from omegaconf import DictConfig

WRONG_OVERRIDES = 2
FAILED = 1
INTERRUPTED = 130


class Job(NamedTuple):
    """A job: what it does, in a line, and the function that does it with a composed configuration."""

    summary: str
    function: Callable[[DictConfig], None]


def _train(config: DictConfig) -> None:
    from gicinpaint.training.train import train  # each job imports only what it needs

    train(config)


def _benchmark(config: DictConfig) -> None:
    from gicinpaint.benchmark.run import run_benchmark

    run_benchmark(config)


def _export(config: DictConfig) -> None:
    from gicinpaint.weights.export import export

    export(config)


def _evaluate(config: DictConfig) -> None:
    from gicinpaint.evaluation import evaluate

    evaluate(config)


def _prepare(config: DictConfig) -> None:
    from gicinpaint.data.prepare import run_prepare

    run_prepare(config)


def _convert(config: DictConfig) -> None:
    from gicinpaint.weights.conversion import convert

    convert(config)


def _inpaint(config: DictConfig) -> None:
    from gicinpaint.inference.predict import inpaint

    inpaint(config)


def _demo(config: DictConfig) -> None:
    from gicinpaint.demo.serve import demo

    demo(config)


JOBS = {
    "train": Job("Train the networks on a dataset.", _train),
    "prepare": Job("Pack a dataset into shards, or find its bad images.", _prepare),
    "inpaint": Job("Fill holes in pictures: one, a folder, a pattern or shards.", _inpaint),
    "evaluate": Job("Measure methods on images and masks.", _evaluate),
    "benchmark": Job("Measure time and memory of attention, generator or training step.", _benchmark),
    "convert": Job("Convert a model: the authors' checkpoints, training checkpoints, safetensors.", _convert),
    "export": Job("Write a generator as ONNX and for torch.export.", _export),
    "demo": Job("Serve a web page on which holes are painted and filled.", _demo),
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
        print(f"gicinpaint {_version()}")
        return 0
    if job not in JOBS:
        from gicinpaint.config.validation import closest

        match = closest(job, JOBS)
        _say(f"{job}: no such job; " + (f"did you mean {match}?" if match else f"the jobs are {', '.join(JOBS)}"))
        return WRONG_OVERRIDES
    try:
        return _run(job, overrides)
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED


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

    from gicinpaint.config.help import register_resolvers
    from gicinpaint.config.overrides import complaint_about_options, explain

    register_resolvers()
    overrides = sorted(overrides, key=lambda word: word not in ("-m", "--multirun"))  # Hydra refuses it among others
    if complaint := complaint_about_options(overrides):
        _say(complaint)
        return WRONG_OVERRIDES
    full = os.environ.get("HYDRA_FULL_ERROR", "0") == "1"

    # The codes of jobs that failed, each reported already, as names of files: a launcher may use other processes.
    with _hydra_command_line(job, overrides) as users_command_line, TemporaryDirectory() as codes:

        def task(config: DictConfig) -> None:
            with users_command_line():
                try:
                    JOBS[job].function(config)
                except Exception as error:  # reported here: raised again, Hydra would add lines of its own
                    Path(codes, str(_report(error, full))).touch()

        try:
            hydra.main(config_path="pkg://gicinpaint.conf", config_name=job, version_base="1.3")(task)()
        except Exception as error:
            if full or not isinstance(
                error, HydraException | OmegaConfBaseException | ValueError | OSError | yaml.YAMLError
            ):
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
def _hydra_command_line(job: str, overrides: list[str]) -> Iterator[Callable[[], "_Swap"]]:
    """Show Hydra the overrides without the job, and let it raise its errors instead of printing them.

    Yields a context for the job itself, which sees the user's command line: DDP starts its processes with it.
    """
    users = (sys.argv, os.environ.get("HYDRA_FULL_ERROR"))
    with _Swap([f"gicinpaint {job}", *overrides], "1"):
        yield lambda: _Swap(*users)


class _Swap:
    """Set the command line and HYDRA_FULL_ERROR for a while."""

    def __init__(self, command_line: list[str], full_error: str | None) -> None:
        self.inside = (command_line, full_error)

    def __enter__(self) -> None:
        self.outside = (sys.argv, os.environ.get("HYDRA_FULL_ERROR"))
        self._set(*self.inside)

    def __exit__(self, *_: object) -> None:
        self._set(*self.outside)

    @staticmethod
    def _set(command_line: list[str], full_error: str | None) -> None:
        sys.argv = command_line
        if full_error is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _say(line: str) -> None:
    print(f"gicinpaint: {line}", file=sys.stderr)


def _version() -> str:
    from importlib.metadata import version

    return version("gicinpaint")


if __name__ == "__main__":
    sys.exit(main())
