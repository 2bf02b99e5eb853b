"""What has another name now: one line for an old key, present names for the settings of an old checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gicinpaint.cli import main
from gicinpaint.config.aliases import explain_key, explain_option, modernize, new_key
from gicinpaint.models import Generator
from gicinpaint.weights import load_generator


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, list[str]]:
    code = main([*command, "--cfg", "job"])
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("train", "model.global_critic.width=8"), "model.critics.global.width now"),
        (("train", "~model.local_critic"), "model.critics.local now"),
        (("train", "lr=0.1"), "lr: no such key; write optimizer.lr"),
        (("train", "batch_size=4"), "dataset.batch_size"),
        (("train", "epochs=3"), "epochs: no such key; write updates"),
        (("train", "max_epochs=3"), "max_epochs: no such key; write updates"),
        (("train", "gpus=2"), "gpus: no such key; write trainer.devices"),
        (("train", "weight_decay=0.1"), "weight_decay: no such key; write +optimizer.weight_decay"),
        (("train", "trainer.gradient_clip_val=1"), "model.grad_clip_norm"),
        (("train", "trainer.accumulate_grad_batches=2"), "model.micro_batches"),
        (("train", "accumulate_grad_batches=2"), "accumulate_grad_batches: no such key; write model.micro_batches"),
        (("train", "gradient_clip_val=1"), "gradient_clip_val: no such key; write model.grad_clip_norm"),
        (("train", "attention=none"), "attention=none is called model=baseline now"),
        (("inpaint", "input=a.png", "mask=b.png"), "mask: no such key; write masks"),
        (("evaluate", "checkpoint=a.ckpt"), "+checkpoints.NAME"),
    ],
)
def test_an_old_or_foreign_key_is_answered_with_the_key_in_use(
    command: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = answer(capsys, *command)
    assert code == 2
    assert len(lines) == 1
    assert expected in lines[0]


def test_a_key_of_another_word_is_not_taken_for_an_old_one() -> None:
    assert new_key("model.clipping") is None
    assert new_key("dataset.preset.box") is None  # a name of one word is the first word alone
    assert explain_key("batch_size", "evaluate") is None  # a setting of that job
    assert explain_option("attention", "tiled") is None


def test_every_old_name_leads_to_a_name_that_is_not_old_itself() -> None:
    from gicinpaint.config.aliases import KEYS, OPTIONS, TARGETS, new_target

    assert all(new_key(new) is None for new in KEYS.values())
    assert not OPTIONS.keys() & set(OPTIONS.values())
    assert all(new_target(new) == new for new in TARGETS.values())


def test_settings_of_an_old_run_get_the_present_names_wherever_they_lie() -> None:
    """The left side is what the version of the flat package wrote."""
    before: dict[str, Any] = {
        "_target_": "gicinpaint.module.InpaintingModule",
        "clip": 1.0,
        "generator": {"_target_": "gicinpaint.generator.Generator", "attention": {"backend": {"fuse": True}}},
        "critics": {"local": {"_target_": "gicinpaint.critics.LocalCritic"}},
        "global_critic": None,
        "frozen": ["coarse_network"],
    }
    assert modernize(before) == {
        "_target_": "gicinpaint.training.module.InpaintingModule",
        "grad_clip_norm": 1.0,
        "generator": {
            "_target_": "gicinpaint.models.generator.Generator",
            "attention": {"backend": {"compile": True}},
        },
        "critics": {"local": {"_target_": "gicinpaint.models.critics.LocalCritic"}, "global": None},
        "freeze": ["coarse_network"],
    }


def test_a_checkpoint_of_the_flat_package_still_opens(tmp_path: Path) -> None:
    generator = Generator(width=4)
    weights = {f"generator.{name}": value for name, value in generator.state_dict().items()}
    attention = {"_target_": "gicinpaint.attention.ContextualAttention", "backend": {"fuse": False}}
    node = {"_target_": "gicinpaint.generator.Generator", "width": 4, "padding": "zeros", "attention": attention}
    torch.save({"state_dict": weights, "config": {"generator": node}}, tmp_path / "old.ckpt")
    opened = load_generator(tmp_path / "old.ckpt")
    assert all(torch.equal(value, opened.state_dict()[name]) for name, value in generator.state_dict().items())
