"""Every verb of a Lightning trainer without Hydra, callbacks or data module of this package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gicinpaint import Generator, Inpainter, InpaintingDataModule, InpaintingModule
from gicinpaint.data import Batch, SamplePhotographs
from gicinpaint.losses import InpaintingLoss
from gicinpaint.masks import RectangleMask
from gicinpaint.training.callbacks import GeneratorEMA
from runs import batches, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*have no `val_dataloader`",
    "ignore:`isinstance",
    "ignore:The number of training batches",
    "ignore:Checkpoint directory",
)


class Dicts(Dataset):
    """Six images of 16x16 with a hole of 4x5."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        mask = torch.zeros(1, 16, 16)
        mask[:, 4 + index : 8 + index, 3:8] = 1
        return {"image": torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index)) * 2 - 1, "mask": mask}


def dicts() -> DataLoader:
    return DataLoader(Dicts(), batch_size=2)


def trainer(folder: Path, *callbacks: Callback, **arguments: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(default_root_dir=folder, accelerator="cpu", callbacks=list(callbacks), **quiet, **arguments)


@pytest.mark.parametrize(
    ("limits", "batches_seen", "updates"),
    [
        ({"max_epochs": 1}, 3, 1),  # three batches; every second one updates the generator
        ({"max_epochs": 2}, 6, 3),
        ({"max_steps": 3}, 6, 3),
        ({"max_epochs": 9, "max_steps": 1}, 2, 1),
        ({"max_time": {"seconds": 0}}, 0, 0),
    ],
    ids=str,
)
def test_limits_of_a_plain_trainer_count_epochs_and_generator_updates(
    limits: dict[str, Any], batches_seen: int, updates: int, tmp_path: Path
) -> None:
    module = small_module(critic_steps=2)
    fitted = trainer(tmp_path, **limits)
    fitted.fit(module, dicts())
    assert (module.batches_seen, module.generator_updates, fitted.global_step) == (batches_seen, updates, updates)


@pytest.mark.parametrize("kind", ["dict", "pair", "uint8"])
def test_loaders_of_images_and_masks_train_as_batches_with_their_boxes_do(kind: str, tmp_path: Path) -> None:
    def given(item: dict[str, Tensor]) -> Any:
        image, mask = item["image"], item["mask"]
        if kind == "uint8":
            return {"image": ((image + 1) * 127.5).round().to(torch.uint8), "mask": mask.bool()}
        return item if kind == "dict" else (image, mask)

    items = [Dicts()[index] for index in range(6)]
    module, other = small_module(critic_steps=1), small_module(critic_steps=1)
    trainer(tmp_path, max_epochs=1).fit(module, DataLoader([given(item) for item in items], batch_size=2))
    drawn = [Batch.of(b, (8, 8)) for b in DataLoader(items, batch_size=2)]
    if kind == "uint8":
        drawn = [b._replace(image=((b.image + 1) * 127.5).round() / 127.5 - 1) for b in drawn]
    trainer(tmp_path, max_epochs=1).fit(other, DataLoader(drawn, batch_size=None))
    for weight, same in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight, same)


def test_boxes_hold_the_holes_and_are_no_larger_than_the_longest() -> None:
    mask = torch.zeros(3, 1, 16, 16)
    mask[0, 0, 2:5, 3:9] = 1  # 3 x 6
    mask[1, 0, 10:15, 15] = 1  # 5 x 1, at the edge; the third image has no hole
    box = Batch.of({"image": torch.zeros(3, 3, 16, 16), "mask": mask}).box
    assert (box.height, box.width) == (5, 6)
    assert (box.top[1].item(), box.left[1].item()) == (10, 10)
    assert box.top[0] <= 2
    assert box.left[0] == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": torch.zeros(1, 3, 8, 8)}, "must hold image and mask, got a mapping of image; let the loader yield"),
        (torch.zeros(1, 3, 8, 8), "must hold image and mask, got Tensor"),
        ([torch.zeros(1, 3, 8, 8)], "must hold image and mask, got list"),
    ],
)
def test_other_batches_are_refused(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Batch.of(given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[InpaintingModule, Trainer, Path]:
    """Return a module that a plain trainer trained, the trainer, and the checkpoint that it wrote by itself."""
    folder = tmp_path_factory.mktemp("trained")
    module, fitted = small_module(critic_steps=2), trainer(folder, max_epochs=2, num_sanity_val_steps=0)
    fitted.fit(module, dicts())
    (path,) = folder.rglob("*.ckpt")
    return module, fitted, path


def test_test_measures_what_validate_measures(trained: tuple[InpaintingModule, Trainer, Path]) -> None:
    module, fitted, _ = trained
    (validated,) = fitted.validate(module, dicts(), verbose=False)
    (tested,) = fitted.test(module, dicts(), verbose=False)
    assert tested == {name.replace("validation/", "test/"): value for name, value in validated.items()}
    assert "test/completed/hole/psnr" in tested


def test_predict_returns_the_completed_images(trained: tuple[InpaintingModule, Trainer, Path]) -> None:
    module, fitted, path = trained
    predicted = fitted.predict(small_module(critic_steps=2), dicts(), ckpt_path=path)
    assert predicted is not None
    for completed, item in zip(torch.cat(predicted), Dicts(), strict=False):
        with torch.no_grad():
            torch.testing.assert_close(completed, module(item["image"][None], item["mask"][None])[0])


def test_a_checkpoint_of_a_plain_trainer_gives_the_module_back(trained: tuple[InpaintingModule, Trainer, Path]) -> None:
    module, _, path = trained
    loaded = InpaintingModule.load_from_checkpoint(path)
    assert (loaded.batches_seen, loaded.generator_updates, loaded.critic_steps) == (6, 3, 2)
    assert loaded.generator_optimizer.keywords["lr"] == 1e-3  # type: ignore[attr-defined]
    assert repr(loaded) == repr(module)  # its own layers with their settings
    for name, value in module.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert InpaintingModule.load_from_checkpoint(path, critic_steps=7).critic_steps == 7


def test_a_module_that_was_loaded_trains_as_many_steps_as_it_is_told(
    trained: tuple[InpaintingModule, Trainer, Path], tmp_path: Path
) -> None:
    loaded = InpaintingModule.load_from_checkpoint(trained[2])
    trainer(tmp_path, max_steps=2).fit(loaded, dicts())
    assert loaded.generator_updates == 3 + 2


def test_the_inpainter_opens_what_a_plain_trainer_wrote(trained: tuple[InpaintingModule, Trainer, Path]) -> None:
    module, _, path = trained
    item = Dicts()[2]
    filled = Inpainter.from_checkpoint(path, device="cpu")(item["image"], item["mask"])
    with torch.no_grad():
        expected = module(item["image"][None], item["mask"][None])[0]
    torch.testing.assert_close(filled, expected, atol=1e-6, rtol=0)


class OwnGenerator(LightningModule):
    """A network of another package around one of this."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Generator(2)

    def forward(self, *arguments: Any) -> Any:
        return self.inner(*arguments)


def test_a_network_of_ones_own_is_passed_again(tmp_path: Path) -> None:
    module = InpaintingModule(OwnGenerator(), loss=InpaintingLoss(None))
    fitted = trainer(tmp_path, max_epochs=1)
    fitted.fit(module, dicts())
    fitted.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match=r"does not say how generator came about; .*\(path, generator=\.\.\.\)"):
        InpaintingModule.load_from_checkpoint(tmp_path / "own.ckpt")
    loaded = InpaintingModule.load_from_checkpoint(tmp_path / "own.ckpt", generator=OwnGenerator())
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch {proof}"},
        {"_target_": "gicinpaint.compat.import_module", "name": "antigravity"},
        {"_target_": "gicinpaint.models.stored.load_file", "filename": "{proof}"},
        {"_target_": "torch.optim.adam.Adam", "_args_": ["touch {proof}"]},
        {"inner": [{"_target_": "gicinpaint.training.module.partial", "func": "os.system"}]},
        "${{oc.env:HOME}}",
    ],
    ids=str,
)
def test_settings_cannot_name_what_is_no_part_of_a_network(
    node: Any, trained: tuple[InpaintingModule, Trainer, Path], tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    checkpoint = torch.load(trained[2], weights_only=True)
    filled = {"node": node} if isinstance(node, str) else node
    checkpoint["config"]["loss"] = {
        key: value.format(proof=proof) if isinstance(value, str) else value for key, value in filled.items()
    }
    torch.save(checkpoint, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"was not run|was not followed|without a name"):
        InpaintingModule.load_from_checkpoint(tmp_path / "evil.ckpt")
    assert not proof.exists()


def test_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'proof'}",)

    torch.save({"state_dict": {"generator.x": Code()}, "config": {}, "counters": {}}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="nothing in it was run"):
        InpaintingModule.load_from_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "proof").exists()


def data(batch_size: int = 2, workers: int = 0) -> InpaintingDataModule:
    photos, mask = SamplePhotographs(("astronaut.png", "coffee.png", "brick.png"), repeat=2), RectangleMask(8, 1)
    return InpaintingDataModule(photos, photos, mask, image_size=16, batch_size=batch_size, workers=workers)


class Watch(Callback):
    """Note which images each epoch had."""

    def __init__(self) -> None:
        self.epochs: list[list[Tensor]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.epochs.append([])

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.epochs[-1] += list(batch.image)


def test_an_epoch_of_the_data_module_has_every_image_once(tmp_path: Path) -> None:
    watch = Watch()
    trainer(tmp_path, watch, max_epochs=3, limit_val_batches=0).fit(small_module(), data(workers=1))
    sampler = data().train_dataloader().batch_sampler
    assert sampler is not None
    drawn = [[item for k in range(3 * epoch, 3 * epoch + 3) for item in sampler.batch(k)] for epoch in range(3)]
    assert [sorted(index for _, index in items) for items in drawn] == 3 * [list(range(6))]
    for images, items in zip(watch.epochs, drawn, strict=True):
        expected = [data().train[item].image.float() / 127.5 - 1 for item in items]
        torch.testing.assert_close(torch.stack(images), torch.cat(expected))


@pytest.mark.parametrize("every", [2, 3])  # in the middle of an epoch, and at its end
def test_a_plain_trainer_that_continues_ends_as_one_that_was_not_interrupted(every: int, tmp_path: Path) -> None:
    whole = small_module(critic_steps=1)
    trainer(tmp_path / "whole", max_epochs=3, limit_val_batches=0).fit(whole, data())
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=every, save_top_k=-1)
    trainer(tmp_path, save, max_epochs=2, limit_val_batches=0).fit(small_module(critic_steps=1), data())
    continued = small_module(critic_steps=1)
    trainer(tmp_path, max_epochs=3, limit_val_batches=0).fit(
        continued, data(), ckpt_path=tmp_path / f"step={every}.ckpt"
    )
    assert (continued.batches_seen, continued.generator_updates) == (9, 9)
    for weight, same in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.equal(weight, same)


def test_the_data_module_serves_every_verb(tmp_path: Path) -> None:
    module, fitted = small_module(), trainer(tmp_path, max_steps=1)
    fitted.fit(module, data())
    (validated,), (tested,) = (verb(module, data(), verbose=False) for verb in (fitted.validate, fitted.test))
    assert tested["test/completed/hole/l1"] == validated["validation/completed/hole/l1"]
    predicted = fitted.predict(module, data(batch_size=4))
    assert predicted is not None
    assert [len(images) for images in predicted] == [4, 2]


def test_test_and_predict_use_the_average(tmp_path: Path) -> None:
    module, average = small_module(adversary=False), GeneratorEMA(0.5)
    fitted = trainer(tmp_path, average, max_steps=4, enable_checkpointing=False)
    fitted.fit(module, DataLoader(batches(4), batch_size=None))
    trained = {name: value.clone() for name, value in module.generator.state_dict().items()}
    predicted = fitted.predict(module, dicts())
    assert predicted is not None
    assert all(torch.equal(value, trained[name]) for name, value in module.generator.state_dict().items())
    module.generator.load_state_dict(average.average)
    item = Dicts()[0]
    with torch.no_grad():
        torch.testing.assert_close(predicted[0][:1], module(item["image"][None], item["mask"][None]))
