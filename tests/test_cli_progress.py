"""A train job with its progress bar, and without: the setting of Lightning's trainer, and the callback's."""

from pathlib import Path

import pytest

from gicinpaint.cli import main

TINY = ["loss=l1", "trainer=cpu", "dataset.image_size=32", "dataset.batch_size=4", "dataset.workers=0", "updates=2"]
TINY += ["model.generator.width=4", "dataset.validation.repeat=1", "mask.box=[16,16]", "mask.inset=[2,2]"]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ([], True),
        (["trainer.enable_progress_bar=false"], False),
        (["callbacks.progress=null"], False),
        (["trainer.enable_progress_bar=false", "callbacks.progress=null"], False),
    ],
)
def test_training_shows_its_updates_unless_the_bar_is_switched_off(
    settings: list[str],
    shown: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, *settings, "output=run"]) == 0
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert ("2/2 updates" in text) is shown  # ours: a line each 20 seconds and at the end, as this is no terminal
    assert "Epoch 0" not in text  # Lightning's own bar never takes its place
    assert (tmp_path / "run").is_dir()


def test_the_setting_without_its_group_is_answered_with_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "enable_progress_bar=false"]) == 2
    assert (
        capsys.readouterr().err == "gicinpaint: enable_progress_bar: no such key; write trainer.enable_progress_bar\n"
    )
