"""Private names of other libraries: each is there, and does what it is used for."""

from __future__ import annotations

import operator
import os
import tomllib
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

import runs
from gicinpaint.compat import (
    continue_counting,
    failing_key,
    hydra_argument_parser,
    lack_of_shared_memory,
    lost_peer,
    lost_worker,
    run_validation,
)
from gicinpaint.config.command_line import register_resolvers
from gicinpaint.config.validation import JobError, build

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)
GONE = "{} is gone from this version of {}: gicinpaint.compat needs another way"


def test_hydra_still_has_the_parser_of_its_command_line() -> None:
    arguments = hydra_argument_parser().parse_args(["--cfg", "job", "seed=1", "--multirun"])
    assert (arguments.cfg, arguments.overrides, arguments.multirun) == ("job", ["seed=1"], True)


def test_hydra_still_says_in_the_same_words_where_building_failed() -> None:
    node = {"_target_": "builtins.dict", "inner": {"_target_": "builtins.int", "_args_": ["no number"]}}
    with pytest.raises(InstantiationException) as raised:
        instantiate(node)
    assert failing_key(raised.value) == "inner"
    with pytest.raises(InstantiationException) as raised:
        instantiate(node["inner"])
    assert failing_key(raised.value) == ""


def test_hydra_and_omegaconf_are_bounded_where_later_versions_break_what_users_see() -> None:
    """The bounds of pyproject.toml: with hydra-core 1.4.0rc3 and omegaconf 2.4.1rc1 this fails."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for bounded in (project["dependencies"], extras["launchers"], extras["sweepers"]):
        assert {"hydra-core>=1.3.7,<1.4", "omegaconf<2.4"} <= set(bounded)
    node = OmegaConf.create({"_target_": "gicinpaint.masks.RectangleMask", "box": 4, "inset": 3})
    with pytest.raises(JobError, match="inset must be less than half the box"):  # 1.4 lets the ValueError through:
        build(node)  # a wrong setting would end in a traceback instead of a line
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 2.4 deprecates how resolvers are registered, 1.4 how jobs are declared
        register_resolvers()
        hydra.main(config_path="pkg://gicinpaint.conf", config_name="train", version_base="1.3")(print)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def test_lightning_still_has_the_counters_of_its_loops(trainer: Trainer) -> None:
    loop = trainer.fit_loop.epoch_loop
    for name in ("batch_progress.total.ready", "batch_progress.total.completed", "_batches_that_stepped"):
        assert operator.attrgetter(name)(loop) == 0, GONE.format(f"epoch_loop.{name}", "lightning")
    continue_counting(trainer, batches=12, steps=20)
    assert loop.manual_optimization.optim_step_progress.total.completed == 20
    assert loop.total_batch_idx == 11  # of the last batch


def test_a_resumed_trainer_logs_and_validates_at_the_batches_of_an_undisturbed_one() -> None:
    """Three batches are seen, so the validations after every fourth are due after one more and after five."""

    class Count(Callback):
        def __init__(self) -> None:
            self.batches = self.validations = 0
            self.validated_after: list[int] = []

        def on_train_batch_end(self, *_: Any) -> None:
            self.batches += 1

        def on_validation_end(self, *_: Any) -> None:
            self.validated_after.append(self.batches)

    count = Count()
    options = {"val_check_interval": 4, "check_val_every_n_epoch": None}
    module = runs.small_module(adversary=False)
    module.batches_seen = 3
    runs.fit(module, count, updates=6, **options)
    assert count.validated_after[:2] == [1, 5]


def test_lightning_still_validates_from_inside_a_training() -> None:
    class Validate(Callback):
        validated = 0

        def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
            assert hasattr(trainer.fit_loop.epoch_loop, "val_loop"), GONE.format("epoch_loop.val_loop", "lightning")
            run_validation(trainer)
            assert (self.validated, trainer.training) == (12, True)

        def on_validation_batch_end(self, *_: Any) -> None:
            self.validated += 1

    options = {"val_check_interval": 100, "check_val_every_n_epoch": None}
    runs.fit(runs.small_module(adversary=False), Validate(), updates=1, **options)


class Deadly(torch.utils.data.Dataset):
    """A dataset that ends the process that reads it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os._exit(1)


def test_torch_still_says_in_the_same_words_that_a_loader_lost_a_process() -> None:
    with pytest.raises(RuntimeError) as raised:
        list(torch.utils.data.DataLoader(Deadly(), num_workers=1))
    assert lost_worker(raised.value), GONE.format(f"what torch said of a lost worker ({raised.value})", "torch")
    assert not lost_worker(RuntimeError("another"))


def test_gloo_still_says_in_the_same_words_that_another_process_is_gone() -> None:
    """Two members of a group in one process, of which one leaves."""
    store, seconds = torch.distributed.HashStore(), timedelta(seconds=20)
    with ThreadPoolExecutor(2) as threads:
        groups = list(threads.map(lambda rank: torch.distributed.ProcessGroupGloo(store, rank, 2, seconds), range(2)))
    groups.pop()
    with pytest.raises(RuntimeError) as raised:
        groups[0].allreduce([torch.ones(1)]).wait()
    assert lost_peer(raised.value), GONE.format(f"what gloo said of a lost process ({raised.value})", "torch")
    assert not lost_peer(RuntimeError("another"))


def test_too_little_shared_memory_is_told_from_other_losses() -> None:
    """By the words of torch 2.13, once as a worker raises them and once as the loader reports its death."""
    raised = (
        "Caught RuntimeError in DataLoader worker process 0.\nRuntimeError: unable to allocate shared memory(shm) for "
    )
    raised += "file </torch_19086_3391868956_4>: No space left on device (28)"
    killed = (
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    )
    killed += "shared memory. Please try to raise your shared memory limit."
    assert lack_of_shared_memory(RuntimeError(raised))
    assert lack_of_shared_memory(RuntimeError(killed))
    assert not lack_of_shared_memory(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."))
