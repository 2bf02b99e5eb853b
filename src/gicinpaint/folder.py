"""A network as a folder: model.safetensors with the weights, config.json with the settings; both written whole."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_LARGEST_CONFIG = 2**20  # bytes; real ones have a few hundred


def write_folder(folder: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write settings and weights.

    Args:
        folder: Where to; made if absent.
        settings: Plain data.
        state: Tensors by name; their metadata says that they are PyTorch's.

    Raises:
        ImportError: If safetensors is not installed.
    """
    save = _safetensors().save
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: value.detach().cpu().contiguous() for name, value in state.items()}, {"format": "pt"})
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CONFIG_FILE, (json.dumps(settings, indent=2) + "\n").encode())


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and weights.

    Raises:
        ImportError: If safetensors is not installed.
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
    safetensors = _safetensors()
    try:
        return settings, safetensors.load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # the reader has its own kinds of error
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{folder / WEIGHTS_FILE} cannot be read as safetensors: {reason}; copy it again") from None


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("model.safetensors needs the package safetensors; pip install 'gicinpaint[hub]'") from error
    return safetensors.torch
