"""What `--help` shows of a configuration, in this process: one page for each job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gicinpaint.cli import JOBS, main
from gicinpaint.config.command_line import own_folder, quote_values, register_resolvers, separate_outputs

CONF = Path(__file__).parents[2] / "conf"


def page(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert not stop.value.code
    return capsys.readouterr().out.splitlines()


def groups(lines: list[str]) -> dict[str, list[str]]:
    """Return the options that a page lists by group; a long list goes on in the next line."""
    start = lines.index("Groups and their options; [chosen now]") + 1
    found: dict[str, list[str]] = {}
    for line in lines[start : lines.index("", start)]:
        if not line.startswith("   "):
            group, _, line = line.strip().partition(" ")
            found[group] = []
        found[group] += [option.strip() for option in line.split(",") if option.strip()]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_a_page_fits_the_screen_and_shows_every_value(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = page(capsys, job)
    assert all(len(line) <= 120 for line in lines)
    text = "\n".join(lines)
    assert "${" not in text
    assert not any(word in text.split() for word in ("None", "True", "False"))


@pytest.mark.parametrize("job", ["train", "evaluate", "prepare", "benchmark"])
def test_a_page_lists_the_groups_of_its_own_job_with_all_their_options(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The primary config's defaults and the files of conf/ say what there is."""
    defaults = yaml.safe_load((CONF / f"{job}.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {group: name for entry in defaults if entry != "_self_" for group, name in entry.items()}
    chosen = {group: name for group, name in chosen.items() if not group.startswith("override ")}
    found = groups(page(capsys, job))
    assert list(found) == list(chosen)
    for group, name in chosen.items():
        options = sorted(path.stem for path in (CONF / group.partition("@")[0]).glob("*.yaml"))
        assert found[group] == [f"[{option}]" if option == name else option for option in options]


def test_a_page_follows_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = page(capsys, "train", "mask=mixed", "mask.box=[64,32]", "resume=auto", "optimizer.lr=0.5", "~callbacks")
    assert {"[mixed]", "rectangle"} <= set(groups(lines)["mask"])
    assert "callbacks" not in groups(lines)
    settings = {word for line in lines for word in line.split() if "=" in word}
    assert {"mask.box=[64,32]", "resume=auto", "optimizer.lr=0.5", "trainer.devices=1"} <= settings
    assert "callbacks.checkpoints.every=..." in settings  # nothing to show


def test_what_a_page_shows_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """The settings of a page, given back as overrides, are accepted and give the same page."""
    lines = page(capsys, "train")
    start = lines.index("Settings that are changed most, with the values of this command line") + 1
    settings = [line.split()[-1] for line in lines[start : lines.index("", start)]]
    assert len(settings) > 10
    assert page(capsys, "train", *settings) == lines


@pytest.mark.parametrize("value", ["søppel/bilde 1.png", "写真", "naïve-2.jpg", "Ωμέγα/*.png"])
def test_letters_beyond_ascii_need_no_quotes(value: str) -> None:
    (quoted,) = quote_values([f"input={value}"])
    assert OverridesParser.create().parse_override(quoted).value() == value


@pytest.mark.parametrize("value", ["007", "2025", "1e3", "-5", "3.10", "1_000", "inf", "nan"])
def test_numbers_are_names_where_a_path_belongs_and_numbers_elsewhere(value: str) -> None:
    quoted = quote_values([f"output={value}", f"hydra.run.dir={value}", f"+resume={value}", f"seed={value}"])
    parser = OverridesParser.create()
    assert [parser.parse_override(text).value() for text in quoted[:3]] == [value] * 3
    assert quoted[3] == f"seed={value}"


@pytest.mark.parametrize("value", ["scan (2).tif", "img[3].png", "x=y.webp", "don't.jpg", 'a "b".png', "in/{1}.gif"])
def test_names_that_the_grammar_refuses_are_taken_as_they_are(value: str) -> None:
    (quoted,) = quote_values([f"masks={value}"])
    assert OverridesParser.create().parse_override(quoted).value() == value


def test_a_name_with_a_comma_is_a_file_if_it_is_there_and_else_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "left,right.png").touch()
    assert quote_values(["input=left,right.png", "input=up,down.png"]) == [
        'input="left,right.png"',
        "input=up,down.png",
    ]


def test_the_home_folder_is_meant_in_any_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert quote_values(["data_dir=~/a", "runs=~/b"]) == [f'data_dir="{tmp_path}/a"', f'runs="{tmp_path}/b"']


def test_a_sweep_of_the_configuration_separates_outputs_too() -> None:
    words = ["sweep=rq1", 'output="söp"', "hydra/launcher=two_jobs"]
    assert separate_outputs(words) == ["sweep=rq1", 'hydra.sweep.dir="söp"', "hydra/launcher=two_jobs"]
    left = ["--multirun", "output=${seed}", "seed=1,2", "output=[a"]
    assert separate_outputs(left) == left


def test_what_hydra_understands_is_left_alone() -> None:
    words = ["-m", "input='é'", 'input="é"', "names=[é,ü]", "output=${name}é", "a=1,2", "input=", "~é", "output=plain"]
    assert quote_values(words) == words


def test_a_run_folder_is_that_of_the_results_or_lies_below_outputs(tmp_path: Path) -> None:
    register_resolvers()
    (tmp_path / "v1.5").mkdir()

    def folder(output: str | None) -> str:
        return str(OmegaConf.create({"output": output, "dir": "${folder_of_output:outputs/now}"}).dir)

    assert folder("${hydra:runtime.output_dir}") == folder(None) == "outputs/now"
    assert folder("results/all") == "results/all"
    assert folder("results/one.webp") == "results"
    assert folder(f"{tmp_path}/v1.5") == f"{tmp_path}/v1.5"  # a folder whose name looks like a file's


def test_a_named_output_is_the_whole_runs_folder_and_a_file_is_none(tmp_path: Path) -> None:
    register_resolvers()
    (tmp_path / "model.onnx").touch()

    def folders(output: str) -> list[str]:
        config = OmegaConf.create({"output": output, "dir": f"${{run_folder:{tmp_path}/now}}", "again": "${dir}"})
        return [config.dir, config.again]

    assert folders("runs/v1.5") == ["runs/v1.5"] * 2
    assert not (tmp_path / "now").exists()
    assert folders("${hydra:runtime.output_dir}") == [f"{tmp_path}/now"] * 2
    assert folders(f"{tmp_path}/model.onnx") == [f"{tmp_path}/now-2"] * 2


def test_help_pages_make_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for job in JOBS:
        with pytest.raises(SystemExit):
            main([job, "--help"])
    assert list(tmp_path.iterdir()) == []


def test_runs_that_start_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as runs:
        folders = list(runs.map(own_folder, [str(tmp_path / "2026-01-02" / "03-04-05")] * 24))
    assert len(set(folders)) == 24
    assert {Path(folder) for folder in folders} == set((tmp_path / "2026-01-02").iterdir())


@pytest.mark.timeout(60)
def test_a_folder_that_cannot_be_made_is_returned_for_the_one_who_writes_there(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file in the way")
    assert own_folder(str(tmp_path / "outputs" / "run")) == str(tmp_path / "outputs" / "run")


def test_only_the_first_process_of_a_distributed_run_makes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert own_folder(str(tmp_path / "a")) == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    assert [own_folder(str(tmp_path / "a")) for _ in range(2)] == [str(tmp_path / "a"), str(tmp_path / "a-2")]


def test_a_run_asks_for_its_folder_once_however_often_the_configuration_is_read(tmp_path: Path) -> None:
    register_resolvers()
    config = OmegaConf.create({"dir": f"${{own_folder:{tmp_path}/run}}", "again": "${dir}"})
    copied = OmegaConf.create(OmegaConf.to_container(config))
    OmegaConf.copy_cache(config, copied)
    assert [config.dir, config.again, config.dir] == [str(tmp_path / "run")] * 3
    assert copied.dir == str(tmp_path / "run-2")  # another configuration is another run
    with pytest.raises(FileNotFoundError):
        (tmp_path / "run-3").stat()
