"""Small models as files, and what they answer."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from torch import Tensor, nn

from gicinpaint.cli import main
from gicinpaint.training.train import build_module

ALEX = {"0": (3, 4, 11), "3": (4, 6, 5), "6": (6, 5, 3), "8": (5, 4, 3), "10": (4, 4, 3)}


def outputs(generator: nn.Module) -> torch.Tensor:
    """Return the prediction for one fixed picture with a hole."""
    image = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 1, 32, 40)
    mask[..., 8:20, 10:30] = 1
    with torch.no_grad():
        return generator(image * (1 - mask), mask).prediction


def checkpoint(path: Path, *overrides: str, **extra: Any) -> nn.Module:
    """Write what the train job's checkpoints hold of a generator; return that generator."""
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        module = build_module(compose("train", overrides=["model.generator.width=4", *overrides]))
    torch.save({"state_dict": module.state_dict(), "config": module.config, **extra}, path)
    return module.generator


def run_convert(folder: Path, *overrides: str) -> tuple[int, str, str]:
    """Run the convert job in this process; return its exit code and what it wrote to both streams."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        code = main(["convert", f"hydra.run.dir={folder / 'run'}", *overrides])
    return code, output.getvalue(), errors.getvalue()


class TinyInception(nn.Module):
    """Features are the means of four quarters of each channel, in [0, 1]."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)
        return pooled if return_features else pooled[:, :2]


def save_inception(folder: Path) -> Path:
    torch.jit.script(TinyInception()).save(str(folder / "inception.pt"))
    return folder / "inception.pt"


def save_alex(folder: Path) -> tuple[Path, Path]:
    """Write a narrow AlexNet and heads for it."""
    random = torch.Generator().manual_seed(0)
    state, heads = {}, {}
    for number, (name, (before, after, size)) in enumerate(ALEX.items()):
        state[f"features.{name}.weight"] = torch.randn(after, before, size, size, generator=random) / size
        state[f"features.{name}.bias"] = 0.1 * torch.randn(after, generator=random)
        heads[f"lin{number}.model.1.weight"] = torch.rand(1, after, 1, 1, generator=random)
    torch.save(state, folder / "alex.pth")
    torch.save(heads, folder / "heads.pth")
    return folder / "alex.pth", folder / "heads.pth"
