"""Golden files of the released code and how their variables map onto our networks."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "golden_files"
READ: set[str] = set()  # names of the files that this run opened
SHARED = Path(__file__).parents[2] / "shared" / "golden"  # the full set, where a checkout lies beside it
SHARED_V2 = SHARED.with_name("golden_v2")  # of the second paper's code; copies have the prefix v2_


def paths(pattern: str) -> list[Path]:
    """Return every golden file of a pattern: the copies in tests/golden_files and, where at hand, the full set."""
    found = {path.name: path for folder in (SHARED, DATA) if folder.is_dir() for path in folder.glob(pattern)}
    return [found[name] for name in sorted(found)]


def paths_v2(pattern: str) -> list[Path]:
    """Return every golden file of a pattern of the second paper's code, as `paths` does."""
    found = {path.name.removeprefix("v2_"): path for path in DATA.glob(f"v2_{pattern}")}
    if SHARED_V2.is_dir():
        found |= {path.name: path for path in SHARED_V2.glob(pattern)}
    return [found[name] for name in sorted(found)]


def load(path: Path | str) -> dict[str, Any]:
    """Return a golden file's arrays as tensors and its meta data as a dictionary under "meta"."""
    path = DATA / path
    READ.add(f"v2_{path.name}" if path.parent == SHARED_V2 else path.name)  # the name that a copy has
    with np.load(path) as archive:
        values: dict[str, Any] = {}
        for name in archive.files:
            array = archive[name]
            if name == "meta_json":
                values["meta"] = json.loads(str(array))
            else:
                values[name] = torch.from_numpy(array.astype(np.float32) if array.dtype == np.float16 else array)
        return values


def section(values: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Return the entries below a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}


def relative_norm(actual: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of the expected tensor."""
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-30))


def tensorflow_variables(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return a golden file's weights under their TensorFlow names and in TensorFlow's layout."""
    variables = {}
    for name, weight in section(values, "var/").items():
        array = values.get(f"tf_var/{name}", weight).numpy()
        variables[name] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array  # OIHW to HWIO
    return variables


def unpack_checkpoint(folder: Path) -> Path:
    """Unpack the golden checkpoint below a folder and return its own folder."""
    with tarfile.open(DATA / "ckpt_c8.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "ckpt_c8"


def unpack_old_run(folder: Path) -> Path:
    """Unpack last.ckpt of a run of version 0.1.0, and completed.npy, its answer to `models.outputs`; see that function.

    Written by commit 1674bc6: gicinpaint train dataset=folder dataset.image_size=32 dataset.batch_size=2
    mask.box=[16,16] mask.inset=[2,2] model=tiny model.generator.width=2 model.global_critic.width=1
    model.local_critic.width=1 model.critic_steps=1 model.clip=1.0 model.pieces=2 trainer=cpu updates=2.
    """
    with tarfile.open(DATA / "checkpoint_0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "before"


def tensorflow_gradients(values: dict[str, Any], loss: str) -> dict[str, np.ndarray]:
    """Return a loss's gradients under the variables' names and in TensorFlow's layout, absent dense biases as 0."""
    renamed = {f"var/{name}": gradient for name, gradient in section(values, f"grad_{loss}/").items()}
    renamed |= {f"tf_var/{name}": gradient for name, gradient in section(values, f"tf_grad_{loss}/").items()}
    gradients = tensorflow_variables(renamed)
    dense = [name for name in gradients if name.endswith("_fc/kernel")]
    zeros = {name.replace("kernel", "bias"): np.zeros(1, np.float32) for name in dense}
    return {**zeros, **gradients}


def assert_gradients_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-3) -> None:
    """Raise unless all gradients agree in relative norm; where the expected one is float noise around 0, absolutely."""
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient.norm() < 1e-6:
            assert actual[name].norm() < 1e-5, name
        else:
            assert relative_norm(actual[name], gradient) < tolerance, name


def attention_files() -> list[Path]:
    """Return the yaml of each attention that runs here: Triton needs a GPU, or its interpreter, which takes minutes."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    files = sorted((DATA.parents[1] / "conf" / "attention").glob("*.yaml"))
    return [path for path in files if path.stem != "triton" or interpreted]
