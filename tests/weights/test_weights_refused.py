"""Files that are no models, damaged or meant to do harm: each is refused in one line, and nothing in them runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gicinpaint import Generator
from gicinpaint.models.stored import DIGEST_FILE
from gicinpaint.weights.conversion import save
from gicinpaint.weights.pretrained import load_generator, save_generator
from models import checkpoint


class _Code:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def _pickled(path: Path, proof: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": _Code(proof)}))


def _saved(path: Path, proof: Path) -> None:
    torch.save({"state_dict": {"generator.x": _Code(proof)}, "config": {}}, path)


def _module(path: Path, proof: Path) -> None:
    torch.save({"state_dict": Generator(2), "config": {}}, path)


def _target(path: Path, proof: Path) -> None:
    config = {"generator": {"_target_": "os.system", "command": f"touch {proof}"}}
    torch.save({"state_dict": {}, "config": config}, path)


def _attention_target(path: Path, proof: Path) -> None:
    attention = {"_target_": "os.system", "command": f"touch {proof}"}
    config = {"generator": {"_target_": "gicinpaint.models.generator.Generator", "attention": attention}}
    torch.save({"state_dict": {}, "config": config}, path)


def _numpy_objects(path: Path, proof: Path) -> None:
    torch.save({"state_dict": np.array([_Code(proof)], dtype=object)}, path)


def _own_function(path: Path, proof: Path) -> None:
    path.write_bytes(f"cposix\nsystem\n(S'touch {proof}'\ntR.".encode())


@pytest.mark.parametrize(
    "write", [_pickled, _saved, _module, _target, _attention_target, _numpy_objects, _own_function]
)
def test_files_that_carry_code_are_refused_and_nothing_runs(
    write: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    proof = tmp_path / "it ran".replace(" ", "_")
    write(tmp_path / "bad.ckpt", proof)
    with pytest.raises(
        ValueError, match=r"bad\.ckpt.*(was refused and nothing in it was run|and was not run)"
    ) as caught:
        load_generator(tmp_path / "bad.ckpt")
    assert "\n" not in str(caught.value)
    assert not proof.exists()


def _empty(folder: Path) -> Path:
    (folder / "x.ckpt").write_bytes(b"")
    return folder / "x.ckpt"


def _noise(folder: Path) -> Path:
    (folder / "x.ckpt").write_bytes(np.random.default_rng(0).bytes(4096))
    return folder / "x.ckpt"


def _other_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.ckpt", "w") as archive:
        archive.writestr("a", "b")
    return folder / "x.ckpt"


def _cut_off(folder: Path) -> Path:
    checkpoint(folder / "x.ckpt")
    (folder / "x.ckpt").write_bytes((folder / "x.ckpt").read_bytes()[:20000])
    return folder / "x.ckpt"


def _other_data(folder: Path) -> Path:
    torch.save([1, 2, 3], folder / "x.ckpt")
    return folder / "x.ckpt"


def _compressed(folder: Path) -> Path:
    save(Generator(2), str(folder / "plain.ckpt"))
    with zipfile.ZipFile(folder / "plain.ckpt") as plain, zipfile.ZipFile(folder / "x.ckpt", "w") as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    return folder / "x.ckpt"


def _other_weights(folder: Path) -> Path:
    save_generator(Generator(4), folder)
    shutil.copy(folder / "model.safetensors", folder / "kept")
    save_generator(Generator(2), folder)
    shutil.move(folder / "kept", folder / "model.safetensors")
    (folder / DIGEST_FILE).unlink()
    return folder


def _exchanged_weights(folder: Path) -> Path:
    save_generator(Generator(2), folder / "other")
    save_generator(Generator(2), folder)
    shutil.copy(folder / "other" / "model.safetensors", folder)
    return folder


def _config(**changes: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_generator(Generator(2), folder)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, **changes}))
        return folder

    return write


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_generator(Generator(2), folder)
        (folder / DIGEST_FILE).unlink()
        (folder / name).write_bytes(content)
        return folder

    return write


def _run_folder(folder: Path) -> Path:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    return folder


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "gone", "must be a model's file or folder, got nothing there"),
        (lambda folder: folder, "must be a model's folder, with .* got an empty folder"),
        (_run_folder, "is the folder of a run; name its checkpoint, .*/checkpoints/last.ckpt"),
        (_empty, "x.ckpt cannot be read as a checkpoint: it is empty; copy or train it again"),
        (_noise, "x.ckpt was refused and nothing in it was run: it is damaged"),
        (_other_zip, "x.ckpt cannot be read as a checkpoint|x.ckpt was refused"),
        (
            _cut_off,
            "x.ckpt cannot be read as a checkpoint: its end is missing, as after a copy that was interrupted; copy",
        ),
        (_other_data, "must be a checkpoint of gicinpaint train"),
        (_compressed, "x.ckpt cannot be read as a checkpoint: it is compressed"),
        (_other_weights, "its weights must be those of its settings"),
        (_exchanged_weights, r"must have the SHA-256 that .*sha256 records, .*; it is damaged or another model's"),
        (_config(width=10**9), "its weights must be those of its settings|describe no Generator"),
        (_config(width=3), "width must be a positive even number"),
        (_config(width="wide"), "describe no Generator"),
        (_config(network="Diffusion"), "must name the network Generator or CoarseGenerator"),
        (_config(surprise=1), "describe no Generator"),
        (_config(trained_size="64"), "trained_size must be a number of pixels, got '64'"),
        (_config(trained_size=0), "trained_size must be a number of pixels, got 0"),
        (_file("config.json", b"[" * 100000), "must be a small JSON object"),
        (_file("config.json", b"\xff"), "must be a small JSON object"),
        (_file("config.json", b" " * 2**21), "it is over 1 MB"),
        (_file("model.safetensors", b""), "cannot be read as safetensors"),
        (_file("model.safetensors", b"\xff" * 64), "cannot be read as safetensors"),
        (_file(DIGEST_FILE, b""), r"must have the SHA-256 that .* records, \.\.\., got"),
        (_file(DIGEST_FILE, b"\xff" * 100), "must have the SHA-256"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_generator(write(tmp_path))
    assert "\n" not in str(caught.value)


def test_networks_of_ones_own_cannot_be_described(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a network of this package .* got Identity"):
        save_generator(nn.Identity(), tmp_path)


def test_any_bit_that_flips_in_the_weights_is_noticed(tmp_path: Path) -> None:
    save_generator(Generator(2).half(), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(len(whole), size=50):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="must have the SHA-256"):
            load_generator(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    load_generator(tmp_path)


def test_any_bit_that_flips_in_a_checkpoints_weights_is_noticed(tmp_path: Path) -> None:
    path, generator = tmp_path / "last.ckpt", Generator(2)
    save(generator, str(path))
    weights, whole = generator.state_dict(), path.read_bytes()
    random = np.random.default_rng(0)
    names = sorted(name for name, value in weights.items() if value.numel() > 64)
    for name in random.choice(names, 20):
        data = weights[name].numpy().tobytes()
        assert whole.count(data) >= 1
        damaged = bytearray(whole)
        damaged[whole.index(data) + random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="has another checksum than when written; copy or train it again"):
            load_generator(path)
    path.write_bytes(whole)
    load_generator(path)
