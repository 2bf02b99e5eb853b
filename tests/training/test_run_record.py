"""What a run leaves beside its results."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from faults import ROOT, log_of, run
from gicinpaint.data import SamplePhotographs
from gicinpaint.training.run_record import hash_names, recorded_output, uncommitted_changes, write_record


def test_a_run_tells_everything(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(output, "seed=3", "updates=2") == 0, log_of(output)
    assert run(output, "seed=3", "updates=3", "resume=auto") == 0, log_of(output)
    config = OmegaConf.load(output / "config.yaml")
    assert (config.seed, config.dataset.seed, config.output, config.updates) == (3, 3, str(output), 3)
    assert "seed=3" in OmegaConf.load(output / "overrides.yaml")
    first, second = (json.loads(line) for line in (output / "starts.jsonl").read_text().splitlines())
    assert first["resumed"] is None
    assert second["resumed"] == str(output / "checkpoints" / "last.ckpt")
    assert second["command"][0] == str(ROOT / "train.py")
    assert second["versions"]["torch"]
    assert second["data"]["training"]["images"] == 24
    assert (second["seed"], second["processes"]) == (3, 1)
    assert (output / "git.diff").exists()
    log = (output / "output.log").read_text()
    assert log.count("output folder:") == log.count("completed  ") == 2
    assert "\r" not in log


def test_the_diff_holds_uncommitted_changes_of_package_and_configuration_alone(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "src" / "package"
    files = [package / "code.py", tmp_path / "conf" / "train.yaml", tmp_path / "notes.txt"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before\n")
    assert uncommitted_changes(package) == ""  # no repository
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert uncommitted_changes(package) == ""
    for file in files:
        file.write_text("after\n")
    found = uncommitted_changes(package)
    assert found.count("-before\n+after\n") == 2
    assert "src/package/code.py" in found
    assert "conf/train.yaml" in found


def test_the_diff_is_written_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gicinpaint.training.run_record.uncommitted_changes", lambda: "-before\n+after\n")
    write_record(tmp_path, OmegaConf.create({"seed": 1}), [], {})
    assert (tmp_path / "git.diff").read_text() == "-before\n+after\n"


def test_images_are_hashed_by_name_in_order() -> None:
    source = SamplePhotographs.train(2)
    names = "".join(f"{source.name(index)}\n" for index in range(len(source)))
    assert hash_names(source) == hashlib.sha256(names.encode()).hexdigest()


def end_badly() -> None:
    print("a line")
    sys.stdout.write("\rprogress")
    print("trouble", file=sys.stderr)
    logging.getLogger("gicinpaint").warning("a warning")
    raise KeyError("what ended it")


def test_what_is_printed_logged_and_raised_is_copied_and_progress_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(KeyError), recorded_output(tmp_path):
            end_badly()
        print("later")
    finally:
        logging.getLogger().removeHandler(handler)
    text = (tmp_path / "output.log").read_text()
    assert text.startswith("a line\ntrouble\na warning\nTraceback")
    assert text.endswith("KeyError: 'what ended it'\n")
    out, err = capsys.readouterr()
    assert out == "a line\n\rprogressa warning\nlater\n"
    assert err == "trouble\n"


def test_two_processes_never_write_into_one_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gicinpaint.training.run_record import recorded_output\n"
        "with recorded_output(Path(sys.argv[1])): print('took it')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with recorded_output(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert second.returncode == 1
    assert "another run is writing there; wait for its end or set output=<folder>" in second.stderr
    third = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (third.returncode, third.stdout) == (0, "took it\n")
    assert (tmp_path / "output.log").read_text().count("took it") == 1


def test_changes_that_are_no_text_are_recorded_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_bytes(b"# first\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.yaml").write_bytes(b"a: 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    changed = "größer ".encode("latin-1") + bytes([0x80, 0xFF])
    (package / "code.py").write_bytes(b"# " + changed + b"\n")
    found = uncommitted_changes(package)
    monkeypatch.setattr("gicinpaint.training.run_record.uncommitted_changes", lambda: found)
    write_record(tmp_path / "run", OmegaConf.create({"seed": 1}), [], {})
    assert b"\n+# " + changed + b"\n" in (tmp_path / "run" / "git.diff").read_bytes()


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_was_asked_to_end_leaves_no_traceback(end: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(end)), recorded_output(tmp_path):
        raise end
    text = (tmp_path / "output.log").read_text()
    assert "Traceback" not in text
    assert text in ("interrupted\n", "ended with code 143\n")


def test_lines_of_a_run_beside_others_are_whole_and_labelled_on_the_screen_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded_output(tmp_path, "[3 seed=1] "):
        sys.stdout.write("a li")
        assert capsys.readouterr().out == ""
        sys.stdout.write("ne\nand another\n")
        assert not sys.stdout.isatty()
        print("trouble", file=sys.stderr)
    out, err = capsys.readouterr()
    assert out == "[3 seed=1] a line\n[3 seed=1] and another\n"
    assert err == "[3 seed=1] trouble\n"
    assert (tmp_path / "output.log").read_text() == "a line\nand another\ntrouble\n"
