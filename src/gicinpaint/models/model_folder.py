"""A network as a folder: model.safetensors with the weights and its SHA-256, config.json with the settings.

Each file is written whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
DIGEST_FILE = f"{WEIGHTS_FILE}.sha256"  # as sha256sum writes and checks it: safetensors has no checksum of its own
_LARGEST_CONFIG = 2**20  # bytes; real ones have a few hundred


def write_folder(folder: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write settings and weights, and beside the weights their SHA-256.

    Args:
        folder: Where to; made if absent.
        settings: Plain data.
        state: Tensors by name, stored in the type they have; the file's metadata says that they are PyTorch's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: value.detach().cpu().contiguous() for name, value in state.items()}, {"format": "pt"})
    (folder / DIGEST_FILE).unlink(missing_ok=True)  # a kill leaves weights without a digest, never with another's
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CONFIG_FILE, (json.dumps(settings, indent=2) + "\n").encode())
    _write(folder / DIGEST_FILE, f"{hashlib.sha256(weights).hexdigest()}  {WEIGHTS_FILE}\n".encode())


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and weights, after checking the weights' SHA-256 where one lies beside them.

    Raises:
        ValueError: If a file is absent, damaged or something else.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} must hold {CONFIG_FILE} and {WEIGHTS_FILE}, got no {name}; copy both files")
    try:
        if (folder / CONFIG_FILE).stat().st_size > _LARGEST_CONFIG:
            raise ValueError("it is over 1 MB")
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} must be a small JSON object: {error}; copy it again") from None
    _check_digest(folder)
    try:
        return settings, load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # the reader has its own kinds of error
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{folder / WEIGHTS_FILE} cannot be read as safetensors: {reason}; copy it again") from None


def _check_digest(folder: Path) -> None:
    if not (folder / DIGEST_FILE).is_file():
        return  # of another tool
    with (folder / DIGEST_FILE).open("rb") as file:
        recorded = file.read(64).decode(errors="replace").lower()
    with (folder / WEIGHTS_FILE).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != recorded:
        raise ValueError(
            f"{folder / WEIGHTS_FILE} must have the SHA-256 that {DIGEST_FILE} records, {recorded[:12]}..., got "
            f"{found[:12]}...; it is damaged or another model's: copy both again"
        )


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
