"""experiment=quickstart_v2 as a tiny run: every part of the second paper's training, from the command on."""

from __future__ import annotations

from pathlib import Path

import torch

from gicinpaint import GatedGenerator
from gicinpaint.cli import main
from gicinpaint.weights import load_generator

TINY = (
    "dataset.image_size=32",
    "dataset.batch_size=2",
    "dataset.workers=0",
    "mask.box=[16,16]",
    "model.generator.width=4",
    "model.critics.patch.width=2",
    "model.critics.patch.depth=3",
    "model.warmup_steps=1",
    "model.generator_schedule.T_max=4",  # of the whole run, in its parts too
    "trainer.val_check_interval=3",
    "trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false",
)


def run(output: Path, *overrides: str) -> dict:
    arguments = ["train", "experiment=quickstart_v2", *TINY, f"output={output}", f"hydra.run.dir={output}"]
    assert main([*arguments, *overrides]) == 0
    return torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)


def test_it_trains_both_networks_and_leaves_a_model_and_pictures(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, "updates=3")
    assert checkpoint["counters"]["generator_updates"] == 3
    moved = [name for name in checkpoint["state_dict"] if name.startswith("critics.patch") and name.endswith(".u")]
    assert len(moved) == 3
    assert all(abs(checkpoint["state_dict"][name].norm().item() - 1) < 1e-4 for name in moved)  # as each pass leaves it
    assert isinstance(load_generator(tmp_path / "checkpoints" / "last.ckpt"), GatedGenerator)
    assert list((tmp_path / "pictures").rglob("*.png"))


def test_in_two_parts_it_is_the_run_in_one_with_separate_batches_a_joint_clock_and_bfloat16(tmp_path: Path) -> None:
    options = ("model.separate_batches=true", "model.joint_clock=true", "trainer.precision=bf16-mixed")
    whole = run(tmp_path / "whole", *options, "updates=4")
    run(tmp_path / "parts", *options, "updates=2")
    parts = run(tmp_path / "parts", *options, "updates=4", "resume=auto")
    assert parts["counters"] == whole["counters"] == {"batches_seen": 6, "generator_updates": 4}
    for name, value in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], value), name
