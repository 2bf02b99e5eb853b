"""What a user sees of the command: pages, and one line for each mistake. Everything runs in real processes."""

import inspect
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from pkgutil import resolve_name

import pytest
from omegaconf import DictConfig

from gicinpaint.cli import COMMANDS, JOBS, main
from gicinpaint.config.jobs import Job

ROOT = Path(__file__).parents[1]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_help_names_every_group_and_how_to_begin(tmp_path: Path) -> None:
    result = run("--help", folder=tmp_path)
    assert result.returncode == 0
    for text in ("experiment=quickstart", "dataset ", "celeba_hq", "[rectangle]", "trainer.devices", "--cfg job"):
        assert text in result.stdout
    assert "_target_" not in result.stdout  # a page, not a dump


def test_celeba_hq_on_four_devices_composes(tmp_path: Path) -> None:
    result = run("dataset=celeba_hq", "trainer.devices=4", "--cfg", "job", folder=tmp_path)
    assert result.returncode == 0
    assert "devices: 4" in result.stdout


def test_absent_data_stops_with_what_where_and_how(tmp_path: Path) -> None:
    result = run("dataset=celeba_hq", "trainer.devices=4", "data_dir=/nowhere", folder=tmp_path)
    assert result.returncode == 1
    assert "/nowhere" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.max_step=3", "did you mean trainer.max_steps"),
        ("dataset.batch_sise=4", "did you mean dataset.batch_size"),
        ("datset=sample", "datset"),
        ("dataset=sampel", "did you mean dataset=sample"),
        ("optimizer.lr=abc", "optimizer.lr: expected a number"),
        ("optimizer.lr=", "optimizer.lr"),
        ("+typo=1", "typo: nothing reads this key"),
        ("updates=many", "updates: expected a whole number"),
        ("seed=???", "seed: a value is missing"),
        ("model.critic_steps=two", "model.critic_steps: expected a whole number"),
        ("dataset.workers=[1", "dataset.workers=[1: expected key=value"),
    ],
)
def test_a_wrong_override_is_one_line_and_a_non_zero_exit(override: str, expected: str, tmp_path: Path) -> None:
    result = run(override, folder=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_unknown_job_names_the_nearest(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gicinpaint.cli", "trian"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "did you mean train?" in result.stderr


def test_a_multirun_may_be_asked_for_anywhere_among_the_overrides(tmp_path: Path) -> None:
    few = ["benchmark.sizes=[4]", "limits.rounds=1", "limits.seconds=0.01", "memory=false"]
    both = ["-m", "backends=[unfold],[factorized]", f"hydra.sweep.dir={tmp_path}"]
    command = [sys.executable, "-m", "gicinpaint.cli", "benchmark", *few, *both]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("*/benchmark.csv"))) == 2


def test_runs_of_a_multirun_have_folders_of_their_own_below_one_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[str] = []
    monkeypatch.chdir(tmp_path)
    for job in ("benchmark", "convert"):
        monkeypatch.setitem(JOBS, job, lambda config: found.append(config.output))
    assert main(["benchmark", "-m", "output=all", "limits.rounds=1,2"]) == 0
    assert found == [str(tmp_path / "all/0"), str(tmp_path / "all/1")]
    found.clear()
    assert main(["benchmark", "-m", "output=one,two"]) == 0
    assert found == ["one", "two"]
    assert main(["convert", "-m", "output=all", "source=a,b"]) == 2
    assert found == ["one", "two"]
    assert "name one for each, such as output=a,b" in capsys.readouterr().err


@pytest.mark.parametrize("job", JOBS)
def test_every_job_names_a_function_that_takes_a_configuration(job: str) -> None:
    (parameter,) = inspect.signature(resolve_name(JOBS[job].function)).parameters.values()
    assert parameter.annotation in (DictConfig, "DictConfig")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_a_function_and_has_a_page(command: str, tmp_path: Path) -> None:
    assert callable(resolve_name(COMMANDS[command].function))
    assert COMMANDS[command].usage.split()[0] == command
    result = subprocess.run([sys.executable, "-m", "gicinpaint.cli", command, "--help"], capture_output=True, text=True)
    assert result.stdout == f"{COMMANDS[command].summary}\n\nUsage: gicinpaint {COMMANDS[command].usage}\n"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "--cfg", "job"], ["models"]])
def test_output_that_nobody_reads_is_no_error(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gicinpaint.cli", *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the first line, as `| true` does
        assert process.stderr.read() == b""
        assert process.wait(timeout=120) == 141


def complete(line: str, folder: Path) -> tuple[list[str], str]:
    """Return what TAB offers in a bash that installed the completion, and what it prints on the standard error."""
    program = line.split()[0]
    call = "gicinpaint" if program == "gicinpaint" else "python train.py"
    script = (
        f'eval "$({call} -sc install=bash)"\n'
        f"read -ra words <<< {shlex.quote(line + 'X')}\n"
        f"COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_CWORD=$((${{#words[@]}} - 1))\n"
        'hydra_bash_completion\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": binaries, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    return result.stdout.split(), result.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gicinpaint ", sorted([*JOBS, *COMMANDS])),
        ("gicinpaint ev", ["evaluate"]),
        ("gicinpaint train optimizer.l", ["optimizer.lr="]),
        ("gicinpaint evaluate eval_mask=paper", ["eval_mask=paper_center", "eval_mask=paper_random"]),
        ("gicinpaint download faces", ["faces_128", "faces_64"]),
        ("gicinpaint inpaint model=faces", ["model=faces_128", "model=faces_64"]),
        ("gicinpaint trian model=", []),
        ("gicinpaint train model=none optimizer.l", []),
        ("gicinpaint train --unknown optimizer.l", []),
        ("python train.py model=co", ["model=coarse_only", "model=contextual"]),
    ],
)
def test_tab_offers_jobs_groups_and_keys_and_never_an_error(line: str, offered: list[str]) -> None:
    assert complete(line, ROOT) == (offered, "")


def test_fish_gets_a_word_in_each_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "gicinpaint e")
    assert main(["-sc", "query=fish"]) == 0
    assert capsys.readouterr().out == "evaluate\nexport\n"


def load_badly(config: DictConfig) -> None:
    """Do as libraries do that are interrupted while they load: raise an error of their own."""
    try:
        os.kill(os.getpid(), config.seed)
        time.sleep(60)
    except BaseException:
        raise RecursionError("maximum recursion depth exceeded") from None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libraries_load_is_an_interruption_and_no_error(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(JOBS, "train", Job("", "test_cli:load_badly"))
    words = ["train", f"seed={int(number)}", f"hydra.run.dir={tmp_path}"]
    if number == signal.SIGINT:
        assert main(words) == 130
    else:
        with pytest.raises(SystemExit, match="143"):
            main(words)
    assert capsys.readouterr().err == ("gicinpaint: interrupted\n" if number == signal.SIGINT else "")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def note_signals(config: object) -> None:
    noted.extend(map(signal.getsignal, HANDLED))


noted: list[object] = []
HANDLED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def test_a_job_that_is_called_as_a_function_gives_the_signals_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(JOBS, "train", Job("", "test_cli:note_signals"))
    before = [signal.getsignal(number) for number in HANDLED]
    usual = [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]
    try:
        for number, handler in zip(HANDLED, usual, strict=False):
            signal.signal(number, handler)
        assert main(["train", f"hydra.run.dir={tmp_path}"]) == 0
        assert len(noted) == len(HANDLED)
        assert not set(noted) & set(usual)
        assert [signal.getsignal(number) for number in HANDLED] == usual[: len(HANDLED)]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a choice of the caller's is left alone
        assert main(["train", f"hydra.run.dir={tmp_path}"]) == 0
        assert noted[len(HANDLED) + 1] is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        for number, handler in zip(HANDLED, before, strict=True):
            signal.signal(number, handler)
        noted.clear()


DYING = """
import os, signal, sys, time
from gicinpaint import cli

class Dying:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.01)  # the signal's exception is raised here, where Python ignores it

def job(*_):
    Dying()
    time.sleep(60)
    return 0

cli._run = job
sys.exit(cli.main(["train"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows ends a process itself")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_arrives_in_a_destructor_ends_the_job(name: str, code: int) -> None:
    result = subprocess.run([sys.executable, "-c", DYING, name], capture_output=True, text=True)
    assert (result.returncode, "Exception ignored" in result.stderr) == (code, False), result.stderr
