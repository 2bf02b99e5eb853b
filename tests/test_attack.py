"""Hostile models, by every way in: refused in one line, soon and in little memory. `make test-attack` runs it.

The page's hostile requests are in demo/test_demo_server.py, images' in inference/test_inpaint_hostile.py and
data/test_bad_images.py, code in checkpoints in weights/test_weights_refused.py.
"""

from __future__ import annotations

import json
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from gicinpaint import Generator
from gicinpaint.config.validation import JobError
from gicinpaint.training.checkpoint import read_checkpoint
from gicinpaint.training.run_record import resident_memory
from gicinpaint.weights import save_generator
from gicinpaint.weights.pretrained import load_generator

MEGABYTES, WORK = 250, 30.0  # beyond a legal file: memory at most, and times the work of opening one


def network() -> Generator:
    torch.manual_seed(0)
    return Generator(width=4)


def checkpoint(folder: Path, **changes: Any) -> Path:
    """Write a training checkpoint that is right but for what changes."""
    settings = {key: value for key, value in network().settings.items() if key != "network"}
    settings["_target_"] = "gicinpaint.models.generator.Generator"
    settings["attention"] = {"_target_": "gicinpaint.attention.ContextualAttention", **settings["attention"]}
    settings |= changes.pop("settings", {})
    whole = {
        "state_dict": {f"generator.{name}": value for name, value in network().state_dict().items()},
        "config": {"generator": settings, **changes.pop("config", {})},
        "optimizer_states": [{"state": {}}],
        "counters": {"batches_seen": 1, "generator_updates": 1},
        "global_step": 1,
        "pytorch-lightning_version": "2.6.6",
    }
    torch.save({key: value for key, value in (whole | changes).items() if value is not None}, folder / "model.ckpt")
    return folder / "model.ckpt"


def weights(folder: Path, change: Callable[[torch.Tensor], Any]) -> Path:
    state = {f"generator.{name}": change(value) for name, value in network().state_dict().items()}
    return checkpoint(folder, state_dict=state)


def described(folder: Path, **settings: Any) -> Path:
    """Write a folder of safetensors with other settings, as an attacker may."""
    save_generator(network(), folder)
    content = json.loads((folder / "config.json").read_text())
    for name, value in settings.items():
        (content["attention"] if name in content["attention"] else content)[name] = value
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def shared(depth: int = 40) -> list[Any]:
    """Return lists that hold each other twice: 2 ** depth values from a file of a kilobyte."""
    value: list[Any] = [1]
    for _ in range(depth):
        value = [value, value]
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def compressed(folder: Path) -> Path:
    path = checkpoint(folder)
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        with archive.open("model/data/bomb", "w", force_zip64=True) as bomb:
            for _ in range(300):
                bomb.write(bytes(2**20))
    return path


def many_tensors(folder: Path) -> Path:
    save_generator(network(), folder)
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{number}": entry for number in range(100_000)}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "model.safetensors.sha256").unlink()
    return folder


# Models that fill: name -> (how it is written, what the refusal says).
FILLING: dict[str, tuple[Callable[[Path], Path], str]] = {
    "patches of a gigapixel": (lambda f: described(f, patch_size=10**9 + 1), "number 1000000001"),
    "patches beyond any image": (lambda f: described(f, patch_size=301), "patch_size must be a whole number up to 99"),
    "patches of 3.0": (lambda f: described(f, patch_size=3.0), "patch_size must be a whole number up to 99, got 3.0"),
    "propagation of a gigapixel": (lambda f: described(f, propagation_size=10**9 + 1), "number 1000000001"),
    "a rate of a gigapixel": (lambda f: described(f, rate=10**9), "number 1000000000"),
    "a width of a gigapixel": (lambda f: described(f, width=10**9), "number 1000000000"),
    "a width in words": (lambda f: described(f, width="four"), "describe no Generator"),
    "a softmax of NaN": (lambda f: described(f, softmax_scale=float("nan")), "number nan"),
    "a softmax of infinity": (lambda f: described(f, softmax_scale=float("inf")), "number inf"),
    "attention in words": (lambda f: described(f, attention="all"), "attention must be an object with settings"),
    "100,000 tensors": (many_tensors, "its list of tensors is said to have"),
    "settings that share their items": (lambda f: checkpoint(f, config={"x": shared()}), "more than 10,000 values"),
    "settings of the network that do": (lambda f: checkpoint(f, settings={"x": shared()}), "more than 10,000 values"),
    "settings that hold themselves": (lambda f: checkpoint(f, config={"x": cyclic()}), "more than 10,000 values"),
    "weights of NaN": (lambda f: weights(f, lambda w: w * float("nan")), "holds NaN or infinity"),
    "sparse weights": (lambda f: weights(f, lambda w: w.to_sparse()), "sparse numbers instead of dense real ones"),
    "weights without memory": (lambda f: weights(f, lambda w: w.to("meta")), "instead of dense real ones"),
    "complex weights": (lambda f: weights(f, lambda w: w.to(torch.complex64)), "complex numbers instead of dense"),
    "one number for all": (lambda f: weights(f, lambda w: torch.zeros(1).expand(w.shape)), "repeats 4 bytes"),
    "words for weights": (lambda f: checkpoint(f, state_dict="none"), "state_dict"),
    "300 MB in 1": (compressed, "compressed"),
}
# Checkpoints to go on from.
RESUMING: dict[str, tuple[Callable[[Path], Path], str]] = {
    "300 MB in 1": (compressed, "compressed"),
    "settings that share their items": (lambda f: checkpoint(f, config={"x": shared()}), "more than 10,000 values"),
    "settings that hold themselves": (lambda f: checkpoint(f, run_settings=cyclic()), "more than 10,000 values"),
    "no optimizers": (lambda f: checkpoint(f, optimizer_states=[]), "its optimizer_states cannot be a run's"),
    "words for optimizers": (lambda f: checkpoint(f, optimizer_states=["Adam"]), "its optimizer_states cannot be"),
    "no counters": (lambda f: checkpoint(f, counters=None), "it lacks counters"),
    "half of the counters": (lambda f: checkpoint(f, counters={"batches_seen": 1}), "its counters cannot be a run's"),
    "counters below zero": (
        lambda f: checkpoint(f, counters={"batches_seen": -1, "generator_updates": 1}),
        "its counters cannot be a run's",
    ),
    "counters in words": (lambda f: checkpoint(f, counters="many"), "its counters cannot be a run's"),
    "counters that hold themselves": (lambda f: checkpoint(f, counters=cyclic()), "its counters cannot be a run's"),
    "steps of true": (lambda f: checkpoint(f, global_step=True), "its counters cannot be a run's"),
    "a trainer of another kind": (
        lambda f: checkpoint(f, **{"pytorch-lightning_version": "\x1b[31mnone"}),
        "its pytorch-lightning_version cannot be a run's",
    ),
    "words for weights": (lambda f: checkpoint(f, state_dict={"generator.a": "none"}), "its state_dict cannot be"),
    "words for losses": (lambda f: checkpoint(f, last_logged={"train/x": "none"}), "its last_logged cannot be a run's"),
    "files below zero": (lambda f: checkpoint(f, logged={"metrics.csv": -1}), "its logged cannot be a run's"),
    "code": (lambda f: checkpoint(f, hyper=Generator), "was refused and nothing in it was run"),
}
WAYS = {
    **{f"fill: {name}": (load_generator, ValueError, *case) for name, case in FILLING.items()},
    **{f"resume: {name}": (read_checkpoint, JobError, *case) for name, case in RESUMING.items()},
}


@pytest.fixture(scope="module")
def legal(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return the processor time that opening and reading a right model takes, so that no clock decides."""
    path = checkpoint(tmp_path_factory.mktemp("legal"))
    load_generator(path), read_checkpoint(path)  # what is imported is imported now
    begin = time.process_time()
    for _ in range(3):
        load_generator(path), read_checkpoint(path)
    return time.process_time() - begin


@pytest.mark.parametrize("way", WAYS)
def test_a_hostile_model_is_refused_in_a_line_soon_and_in_little_memory(way: str, legal: float, tmp_path: Path) -> None:
    read, kind, write, words = WAYS[way]
    path = write(tmp_path)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # the highest mark of memory starts here, not at an earlier test's
    before, begin = resident_memory(field="VmHWM"), time.process_time()
    with pytest.raises(kind) as caught:
        read(path)
    grown = (resident_memory(field="VmHWM") - before) / 1e6
    assert time.process_time() - begin < WORK * legal
    assert grown < MEGABYTES
    message = str(caught.value)
    assert words in message
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert "weights_only" not in message  # torch's advice to load it all the same
    assert "\x1b" not in message


def test_the_models_that_are_changed_here_are_right_before(tmp_path: Path) -> None:
    read_checkpoint(checkpoint(tmp_path))
    load_generator(checkpoint(tmp_path))
    load_generator(described(tmp_path / "folder"))
