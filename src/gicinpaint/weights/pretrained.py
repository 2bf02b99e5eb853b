"""Generators as files: training checkpoints, folders of safetensors and settings, the authors' checkpoints.

Nothing that a file holds is executed: checkpoints are opened as plain data, and their settings can name the package's
own networks only.
"""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gicinpaint.attention import ContextualAttention
from gicinpaint.config.aliases import modernize
from gicinpaint.config.validation import closest
from gicinpaint.models import CoarseGenerator, GatedGenerator, Generator
from gicinpaint.models.stored import CONFIG_FILE, WEIGHTS_FILE, StoredNetwork, check_plain, read_folder, write_folder
from gicinpaint.weights import hub
from gicinpaint.weights.pytorch_release import convert_release, is_release
from gicinpaint.weights.tf_convert import generator_settings, load_weights, swap_image_channels

AVERAGE_KEY = "generator_average"  # where a checkpoint keeps the averaged generator, if one was kept
ENVIRONMENT = "GICINPAINT_WEIGHTS"
_HOW_TO_GET_ONE = (
    "train one (python train.py experiment=quickstart), convert the authors' checkpoint "
    "(gicinpaint convert source=FOLDER output=weights), or name a model in the environment variable " + ENVIRONMENT
)
_NETWORKS: dict[str, type[StoredNetwork]] = {one.__name__: one for one in (Generator, CoarseGenerator, GatedGenerator)}
_TARGETS = {f"{network.__module__}.{name}" for name, network in _NETWORKS.items()}
_MOST_PARTS, _MOST_SETTINGS = 100_000, 10_000
_PREFIX = "generator."  # of the generator's weights in a training checkpoint
_ATTENTION = "gicinpaint.attention.ContextualAttention"


def load_generator(path: str | os.PathLike[str], *, raw: bool = False) -> StoredNetwork:
    """Return the generator that a file or a folder holds, for evaluation, in float32 on the CPU.

    Args:
        path: A training checkpoint, whose averaged generator is preferred; a folder with model.safetensors and
            config.json, or with a TensorFlow checkpoint of the authors' code; a PyTorch conversion of the second
            paper's; or a name that `gicinpaint models` lists. Where a file has a checksum, it must hold.
        raw: Keep the authors' channel order, blue, green, red; by default their networks take red, green, blue.

    Raises:
        ValueError: If nothing is there, it is damaged, of another kind, or carries code; nothing of it is executed.
    """
    path = hub.find_model(path)
    if path.is_file() and path.name in (WEIGHTS_FILE, CONFIG_FILE, "checkpoint"):
        path = path.parent  # one of the folder's files was named
    if path.is_dir():
        if (path / CONFIG_FILE).is_file() or (path / WEIGHTS_FILE).is_file():
            settings, state = read_folder(path)
            return _build(settings, state, path)
        if (path / "checkpoint").is_file():
            state = load_weights(path).get("generator", {})
            return _official(state if raw else swap_image_channels(state), path)
        if (last := path / "checkpoints" / "last.ckpt").is_file():
            raise ValueError(f"{path} is the folder of a run; name its checkpoint, {last}")
        listed = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "an empty folder"
        raise ValueError(
            f"{path} must be a model's folder, with {WEIGHTS_FILE} and {CONFIG_FILE} or a TensorFlow checkpoint, got "
            f"{listed}; {_HOW_TO_GET_ONE}"
        )
    if not path.is_file():
        if str(path) in hub.published_models():
            raise ValueError(f"the model {path} is not on this machine; run: gicinpaint download {path}")
        names = hub.shipped_models()
        match = closest(path.name, names)
        hint = f"did you mean {match}? Otherwise " if match else ""
        known = f"; or take one by its name: {', '.join(names)}" if names else ""
        raise ValueError(f"{path} must be a model's file or folder, got nothing there; {hint}{_HOW_TO_GET_ONE}{known}")
    return _from_checkpoint(path)


def find_default() -> Path:
    """Return where the default model lies: what GICINPAINT_WEIGHTS names, else in `weights` or the installed package.

    Of several models the first of the published table is taken, or else of their names, unless `weights` is a model's
    folder itself. If there is none, a ValueError says how to get one.
    """
    if named := os.environ.get(ENVIRONMENT):
        if not Path(named).exists():
            raise ValueError(f"{ENVIRONMENT} must name a model's file or folder, got {named}, where nothing is")
        return Path(named)
    for home in (hub.REPOSITORY_FOLDER, hub.PACKAGED_FOLDER):
        known = [home / name for name in hub.published_models()]
        for folder in (home, *known, *sorted(home.iterdir())) if home.is_dir() else ():
            if (folder / WEIGHTS_FILE).is_file() or (folder / "checkpoint").is_file():
                return folder
        if checkpoints := sorted(home.glob("*.ckpt")):
            return checkpoints[0]
    raise ValueError(f"there is no model in {hub.REPOSITORY_FOLDER}; {_HOW_TO_GET_ONE}")


def save_generator(generator: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a network of this package as model.safetensors, its SHA-256, and config.json, each whole or not at all.

    After `generator.half()` the file has half the size.
    """
    if not isinstance(generator, StoredNetwork):
        raise ValueError(
            f"generator must be a network of this package to be written with its settings, got "
            f"{type(generator).__name__}; save the weights of a network of your own with torch.save"
        )
    write_folder(Path(folder), generator.settings, generator.state_dict())


def configuration_node(generator: StoredNetwork) -> dict[str, Any]:
    """Return a network's settings as a training checkpoint's configuration has them."""
    settings = dict(generator.settings)
    settings.pop("trained_size", None)
    node: dict[str, Any] = {"_target_": f"{type(generator).__module__}.{settings.pop('network')}", **settings}
    if node.get("attention") is not None:
        node["attention"] = {"_target_": _ATTENTION, **node["attention"]}
    return node


def _build(settings: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> StoredNetwork:
    """Return the network that settings describe, with its weights; the attention's backend is the default one."""
    network = _NETWORKS.get(str(settings.get("network")))
    if network is None:
        raise ValueError(
            f"{path}: its settings must name the network {' or '.join(_NETWORKS)}; build another network yourself and "
            "pass it: Inpainter(generator)"
        )
    return network.build(settings, state, str(path))


def _from_checkpoint(path: Path) -> StoredNetwork:
    checkpoint = read_plain(path)
    check_settings(checkpoint, path)
    if is_release(checkpoint):
        try:
            parts, padding = convert_release(checkpoint)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return _official(parts["generator"], path, padding=padding)
    config, weights = (checkpoint.get(k) if isinstance(checkpoint, dict) else None for k in ("config", "state_dict"))
    if not isinstance(config, dict) or not isinstance(config.get("generator"), dict) or not isinstance(weights, dict):
        raise ValueError(
            f"{path} must be a checkpoint of gicinpaint train, with state_dict and config; build the network yourself "
            "and pass it: Inpainter(generator)"
        )
    state = checkpoint.get(AVERAGE_KEY)
    if not isinstance(state, dict) or not state:
        state = {str(k)[len(_PREFIX) :]: value for k, value in weights.items() if str(k).startswith(_PREFIX)}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: its state_dict must hold tensors only; copy the checkpoint again")
    network = _build(_settings(config["generator"], path), state, path)
    run_settings = checkpoint.get("run_settings")
    items = run_settings.items() if isinstance(run_settings, dict) else ()
    sizes = [value for key, value in items if str(key).startswith("dataset.image_size") and isinstance(value, int)]
    network.trained_size = min(sizes, default=None)
    return network


def check_settings(checkpoint: Any, path: Path) -> None:
    """Raise a ValueError if a checkpoint's settings hold more values than any run's, which take for ever to read."""
    for key in ("config", "run_settings") if isinstance(checkpoint, dict) else ():
        try:
            check_plain(checkpoint.get(key), _MOST_SETTINGS)
        except ValueError as error:
            raise ValueError(f"{path}: its settings cannot be a run's: {error}; copy the checkpoint again") from None


def read_plain(path: Path) -> Any:
    """Return what a checkpoint file holds as plain data; damage, code or objects are a ValueError, and none run."""
    try:
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes raise anything: KeyError, EOFError, RuntimeError of the archive
        text = str(error)
        if not isinstance(error, pickle.UnpicklingError):
            reason = text.strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"{path} cannot be read as a checkpoint: {reason}; copy or train it again") from None
        reason = text[max(text.find("Unsupported"), 0) :].strip().partition("\n")[0][:160]  # without torch's advice
        raise ValueError(
            f"{path} was refused and nothing in it was run: it is damaged, or carries code or objects beside plain "
            f"numbers ({reason}); take checkpoints of gicinpaint train or files of safetensors"
        ) from None


def check_archive(path: Path) -> None:
    """Raise if a checkpoint is cut off, or its bytes are not those written, which torch.load does not check."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise EOFError("it is empty")
        if start == b"PK":  # an archive's first bytes; its directory, at the end, is missing
            raise zipfile.BadZipFile("its end is missing, as after a copy that was interrupted")
        return
    with zipfile.ZipFile(path) as archive:
        if len(archive.infolist()) > _MOST_PARTS:
            raise zipfile.BadZipFile(f"it has {len(archive.infolist()):,} parts, a checkpoint has hundreds")
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise zipfile.BadZipFile("it is compressed, and torch.save compresses nothing")  # it could unpack for ever
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} has another checksum than when written")


def _settings(node: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a configuration's node as settings; only this package's networks and attention are known."""
    node = modernize(node, "model.generator")
    target = str(node.get("_target_"))
    attention = node.get("attention")
    own = str(attention.get("_target_")) if isinstance(attention, dict) else _ATTENTION
    if target not in _TARGETS or own not in (_ATTENTION, f"{ContextualAttention.__module__}.ContextualAttention"):
        raise ValueError(
            f"{path}: its configuration names {own if own != _ATTENTION else target}, which is no part of this package "
            "and was not run; build the network yourself and pass it: Inpainter(generator)"
        )
    return {**node, "network": target.rpartition(".")[2]}


def _official(state: dict[str, Tensor], path: Path, **settings: Any) -> StoredNetwork:
    if not state:
        raise ValueError(f"{path} must hold a generator, got critics alone; pass the checkpoint of the whole model")
    first, second = (state[f"coarse_network.encoder.{layer}.weight"] for layer in ("stem", "downsample_half"))
    if len(first.shape) != 4 or len(second.shape) != 4:
        raise ValueError(f"{path}: its kernels must have four axes, got {tuple(first.shape)}; take it as published")
    return _build({**generator_settings(first.shape, second.shape), **settings}, state, path)
