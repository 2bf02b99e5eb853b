"""Training: in this process with networks of width 2 on images of 16 x 16, and the settings of a small job."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Adam
from torch.utils.data import DataLoader

from gicinpaint.data import Batch
from gicinpaint.losses import InpaintingLoss
from gicinpaint.models.compositing import Box
from gicinpaint.models.critics import GlobalCritic, LocalCritic
from gicinpaint.models.generator import Generator
from gicinpaint.training.callbacks import StopAtUpdates
from gicinpaint.training.module import InpaintingModule

ROOT = Path(__file__).parents[1]
SMALL = (  # for a train job in a process of its own
    "experiment=quickstart",
    "dataset.image_size=32",
    "dataset.batch_size=4",
    "dataset.workers=0",
    "mask.box=[16,16]",
    "mask.inset=[2,2]",
    "model.generator.width=4",
    "model.warmup_steps=1",
    "model.critic_steps=2",
    "updates=3",
    "trainer.val_check_interval=2",
)


def batches(count: int, b: int = 2) -> list[Batch]:
    random = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(count):
        mask, top, left = torch.zeros(b, 1, 16, 16), *torch.randint(0, 9, (2, b), generator=random)
        for item, row, column in zip(mask, top, left, strict=True):
            item[:, row + 1 : row + 7, column + 2 : column + 8] = 1
        drawn.append(Batch(torch.rand(b, 3, 16, 16, generator=random) * 2 - 1, mask, Box(top, left, 8, 8)))
    return drawn


def small_module(adversary: bool = True, **arguments: Any) -> InpaintingModule:
    torch.manual_seed(0)
    critics = {"global": GlobalCritic(2, (16, 16)), "local": LocalCritic(2, (8, 8))} if adversary else {}
    loss = InpaintingLoss() if adversary else InpaintingLoss(None)
    factory = partial(Adam, lr=1e-3, betas=(0.5, 0.9))
    optimizers = {"generator_optimizer": factory, "critic_optimizer": factory}
    return InpaintingModule(Generator(2), **{"critics": critics, "loss": loss, **optimizers, **arguments})


def loader(drawn: list[Batch]) -> DataLoader:
    return DataLoader(drawn, batch_size=None)


def fit(
    module: InpaintingModule,
    *callbacks: Callback,
    updates: int = 1,
    data: DataLoader | None = None,
    ckpt_path: Path | None = None,
    **arguments: Any,
) -> Trainer:
    defaults = {"accelerator": "cpu", "max_epochs": -1, "use_distributed_sampler": False, "num_sanity_val_steps": 0}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(callbacks=[*callbacks, StopAtUpdates(updates)], **{**defaults, **quiet, **arguments})
    validation = loader(batches(12)) if "val_check_interval" in arguments else None
    data = loader(batches(12)) if data is None else data
    trainer.fit(module, data, validation, ckpt_path=ckpt_path, weights_only=True)
    return trainer
