"""The command `gicinpaint <job> [overrides]`: each job is a Hydra job with the primary config of its name.

Commands are words beside the jobs, without a configuration. `gicinpaint -sc install=bash` prints what completes both.
"""

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from threading import Timer, current_thread, main_thread
from typing import Any

from omegaconf import DictConfig

from gicinpaint.config.jobs import COMMANDS, JOBS

WRONG_OVERRIDES = 2
FAILED = 1
INTERRUPTED = 130
NOT_READ = 141  # as a shell reports a program whose output nobody reads any more
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_FULL_ERROR = "HYDRA_FULL_ERROR"
_COMPLETION = ("-sc", "--shell-completion")
_OVERVIEW = """\
Generative image inpainting with contextual attention (Yu et al., CVPR 2018)

Usage: gicinpaint <job> [group=option] [key=value]

{}

  gicinpaint <job> --help      what a job does and all of its settings
  gicinpaint <job> --cfg job   the configuration it would run with
  gicinpaint <job> -m a=1,2    one run for each value
  eval "$(gicinpaint -sc install=bash)"   completes all of this at TAB"""
_signals: list[int] = []  # of this call; libraries that are interrupted, as they load, raise errors of their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a job or a command and return its exit code.

    The code is 0, 1 if it failed, 2 if the overrides are wrong, 130 if it was interrupted, 141 if nobody reads the
    output. What the user can mend is one line on the standard error; anything else keeps its traceback, as does
    everything with HYDRA_FULL_ERROR=1.

    Args:
        arguments: The job and its overrides. Default: those of the command line.
    """
    try:
        try:
            return _main(list(sys.argv[1:] if arguments is None else arguments))
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # as behind `| head`
        with suppress(OSError, ValueError):  # nothing is left to write at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    job, *overrides = arguments
    if job == "--version":
        print(f"gicinpaint {version('gicinpaint')}")
        return 0
    if job in _COMPLETION:
        return _complete(overrides)
    if job in COMMANDS:
        return _run_command(job, overrides)
    if job not in JOBS:
        from gicinpaint.config.validation import closest

        match = closest(job, (*JOBS, *COMMANDS))
        known = f"the jobs are {', '.join((*JOBS, *COMMANDS))}"
        _say(f"{job}: no such job; " + (f"did you mean {match}?" if match else known))
        return WRONG_OVERRIDES
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, **dict.fromkeys(_ENDING, signal.SIG_DFL)}
    free = [number for number in usual if signal.getsignal(number) is usual[number]]
    free = free if current_thread() is main_thread() else []
    _signals.clear()
    sys.unraisablehook = _send_again
    for number in free:
        signal.signal(number, _end)
    try:
        return _run(job, overrides)
    except Exception:
        if _signals:
            raise _ending(_signals[0]) from None
        raise
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        for number in free:
            if signal.getsignal(number) is _end:
                signal.signal(number, usual[number])


def _end(number: int, _: object) -> None:
    _signals.append(number)
    raise _ending(number)


def _ending(number: int) -> BaseException:
    """Return a signal as an exception, so that everything is closed and tidied up."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _send_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Deliver a signal again, a moment later, if Python had to ignore its exception, as it does in a destructor."""
    error = ignored.exc_value
    code = error.code if isinstance(error, SystemExit) else 0
    number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else code - 128 if isinstance(code, int) else 0
    if number in (signal.SIGINT, *_ENDING):
        Timer(0.05, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(ignored)


def overview() -> str:
    """Return the page that lists the jobs."""
    width = max(map(len, (*JOBS, *COMMANDS)))
    lines = [f"  gicinpaint {name:{width}}   {word.summary}" for name, word in (JOBS | COMMANDS).items()]
    return _OVERVIEW.format("\n".join(lines))


def _run(job: str, overrides: list[str]) -> int:
    """Hand a job to Hydra and turn what fails into a line and an exit code."""
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gicinpaint.config.aliases import first_names
    from gicinpaint.config.command_line import (
        complaint_about_options,
        explain,
        quote_values,
        register_resolvers,
        separate_outputs,
    )

    register_resolvers()
    given = quote_values(first_names(overrides, job))
    overrides = separate_outputs(given)
    if job in ("convert", "prepare") and overrides != given:  # their runs have no folders of their own
        _say("output: all runs of the multirun would write there; name one for each, such as output=a,b")
        return WRONG_OVERRIDES
    overrides = sorted(overrides, key=lambda word: word not in ("-m", "--multirun"))  # Hydra refuses it among others
    if complaint := complaint_about_options(overrides):
        _say(complaint)
        return WRONG_OVERRIDES
    users = (sys.argv, os.environ.get(_FULL_ERROR))
    full = users[1] == "1"

    # Hydra sees the overrides without the job, and raises its errors instead of printing them. The job itself sees the
    # user's command line: DDP starts its processes with it.
    # The codes of jobs that failed, each reported already, as names of files: a launcher may use other processes.
    completes = any(word in _COMPLETION for word in overrides)  # for the program that the user calls
    program = sys.argv[0] if completes else f"gicinpaint {job}"
    with _command_line([program, *overrides], "1"), TemporaryDirectory() as codes:

        def task(config: DictConfig) -> Any:
            with _command_line(*users):
                try:
                    return JOBS[job](config)
                except Exception as error:  # reported here: raised again, Hydra would add lines of its own
                    if _signals:
                        raise _ending(_signals[0]) from None
                    Path(codes, str(_report(error, full))).touch()
                    return None

        try:
            hydra.main(config_path="pkg://gicinpaint.conf", config_name=job, version_base="1.3")(task)()
        except BrokenPipeError:
            raise
        except (HydraException, OmegaConfBaseException, ValueError, OSError, yaml.YAMLError) as error:
            if full or _signals:
                raise
            _say(explain(error, overrides, job))
            return WRONG_OVERRIDES
        return max((int(path.name) for path in Path(codes).iterdir()), default=0)


def _run_command(name: str, words: Sequence[str]) -> int:
    """Run a command and turn what fails into a line and an exit code."""
    from gicinpaint.config.validation import ConfigurationError, JobError

    command = COMMANDS[name]
    if {"-h", "--help"} & set(words):
        print(f"{command.summary}\n\nUsage: gicinpaint {command.usage}")
        return 0
    try:
        command(words)
    except (ConfigurationError, JobError) as error:
        _say(str(error))
        return WRONG_OVERRIDES if isinstance(error, ConfigurationError) else FAILED
    return 0


def _complete(request: list[str]) -> int:
    """Print the script that a shell installs, or the words that it may go on with; it never shows an error."""
    if not request or not request[0].startswith("query="):
        return _run("train", ["-sc", *request])
    from gicinpaint.config.aliases import SECOND_NAMES

    words = os.environ.get("COMP_LINE", "").split(" ")
    before, word = [text for text in words[1:-1] if text], words[-1]
    names: Sequence[str] = ()
    if not before:
        names = (*JOBS, *COMMANDS)
    elif before[0] == "download":
        names = list(resolve_name("gicinpaint.weights.hub:published_models")())
    elif "model" in SECOND_NAMES.get(before[0], ()) and word.startswith("model="):
        names = [f"model={name}" for name in resolve_name("gicinpaint.weights.hub:shipped_models")()]
    elif before[0] in JOBS:
        os.environ["COMP_LINE"] = " ".join(["gicinpaint", *before[1:], word])
        with redirect_stderr(io.StringIO()), suppress(SystemExit):
            _run(before[0], ["-sc", *request])
    if names:
        between = "\n" if request[0] == "query=fish" else " "  # as Hydra prints its own
        print(between.join(sorted(name for name in names if name.startswith(word))))
    return 0


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
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)  # names in files may steer a terminal
    print(f"gicinpaint: {shown}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
