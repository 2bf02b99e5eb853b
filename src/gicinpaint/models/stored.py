"""Networks as folders or hub repositories: model.safetensors with its SHA-256, and config.json with the settings."""

import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from gicinpaint.attention import ContextualAttention
from gicinpaint.config.atomic_files import atomic_file, sha256, write_text

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
DIGEST_FILE = f"{WEIGHTS_FILE}.sha256"  # as sha256sum writes and checks it: safetensors has no checksum of its own
_TRAINED_SIZE = "trained_size"  # of the settings, and may be absent there
_LARGEST_CONFIG = 2**20  # bytes; real ones have a few hundred
_LARGEST_HEADER = 2**21  # bytes of the safetensors file's list of tensors; real ones have ten thousand
_MOST_SETTINGS, _LARGEST_NUMBER, _LARGEST_PATCH = 1000, 100_000, 99
_CARD: dict[str, Any] = {"library_name": "gicinpaint", "pipeline_tag": "image-to-image", "tags": ["inpainting"]}
_ATTENTION_SETTINGS = [name for name in inspect.signature(ContextualAttention).parameters if name != "backend"]

if TYPE_CHECKING:
    HubModel: Any = object
else:
    try:
        from huggingface_hub import ModelHubMixin as HubModel
    except ImportError:

        class HubModel:
            """Stand in for huggingface_hub's mixin where that is not installed: everything else works without it."""

            def __init_subclass__(cls, **_: object) -> None:
                super().__init_subclass__()

            def save_pretrained(self, *_: object, **__: object) -> None:
                """Say what is missing."""
                raise ImportError("this needs the package huggingface_hub; pip install 'gicinpaint[hub]'")

            from_pretrained = classmethod(save_pretrained)
            push_to_hub = save_pretrained


class StoredNetwork(nn.Module, HubModel, **_CARD):
    """A network that records its constructor's arguments and can be stored with them.

    `save_pretrained(folder)`, `from_pretrained(folder_or_repository)` and `push_to_hub(repository)` are those of
    huggingface_hub's model mixin. Arguments are plain data, or a `ContextualAttention`.
    """

    trained_size: int | None = None  # shorter side of its training images in pixels, where it is recorded

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments

    @property
    def settings(self) -> dict[str, Any]:
        """Plain data from which `build` builds a network like this one."""
        plain = {
            name: {key: getattr(value, key) for key in _ATTENTION_SETTINGS} if isinstance(value, nn.Module) else value
            for name, value in self.arguments.items()
        }
        trained = {} if self.trained_size is None else {_TRAINED_SIZE: self.trained_size}
        return {"network": type(self).__name__, **plain, **trained}

    @classmethod
    def build(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> Self:
        """Return the network that settings describe with its weights, in float32 and for evaluation.

        Settings are checked against the weights before memory is allocated. The attention gets the default backend.
        `name` is what to call the model in messages.

        Raises:
            ValueError: If the settings describe no such network, or the weights do not fit it.
        """
        arguments = {key: value for key, value in settings.items() if key not in ("network", "_target_", _TRAINED_SIZE)}
        try:
            if (size := settings.get(_TRAINED_SIZE)) is not None and (type(size) is not int or size < 1):
                raise ValueError(f"{_TRAINED_SIZE} must be a number of pixels, got {size!r}")
            check_plain(arguments, _MOST_SETTINGS, _LARGEST_NUMBER)
            _check_attention(arguments.get("attention"))
            if isinstance(attention := arguments.get("attention"), Mapping):
                known = {key: attention[key] for key in _ATTENTION_SETTINGS if key in attention}
                arguments["attention"] = ContextualAttention(**known)
            with torch.device("meta"):
                network = cls(**arguments)
        except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{name}: its settings describe no {cls.__name__}: {reason}; copy them again") from error
        _check_tensors(state, name)
        _check_shapes(network.state_dict(), state, name)
        network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
        network.trained_size = size
        return network.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        write_folder(save_directory, self.settings, self.state_dict())

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **download: Any) -> Self:
        settings, state = read_folder(fetch(model_id, **download))
        if settings.get("network") != cls.__name__:
            raise ValueError(
                f"{model_id} must hold a {cls.__name__}, got {settings.get('network')!r}; load it with "
                "gicinpaint.weights.load_generator"
            )
        return cls.build(settings, state, model_id)


def fetch(model_id: str, **download: Any) -> Path:
    """Return the folder of a model; a hub repository's files are downloaded first, with the mixin's options."""
    if Path(model_id).is_dir():
        return Path(model_id)
    from huggingface_hub import snapshot_download

    names = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    options = {name: download[name] for name in names if name in download}
    return Path(snapshot_download(model_id, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, DIGEST_FILE], **options))


def write_folder(folder: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write a network's settings and its weights in their own type, and the SHA-256 of the weights file."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: value.detach().cpu().contiguous() for name, value in state.items()}, {"format": "pt"})
    (folder / DIGEST_FILE).unlink(missing_ok=True)  # a kill leaves weights without a digest, never with another's
    with atomic_file(folder / WEIGHTS_FILE) as partial:
        partial.write_bytes(weights)
    write_text(folder / CONFIG_FILE, json.dumps(settings, indent=2) + "\n")
    write_text(folder / DIGEST_FILE, f"{hashlib.sha256(weights).hexdigest()}  {WEIGHTS_FILE}\n")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and weights, after checking the weights' SHA-256 if the folder has one.

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
    with (folder / WEIGHTS_FILE).open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > _LARGEST_HEADER:
        raise ValueError(
            f"{folder / WEIGHTS_FILE} cannot be read as safetensors: its list of tensors is said to have {header:,} "
            f"bytes, at most {_LARGEST_HEADER:,} are read; copy it again"
        )
    try:
        return settings, load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # the reader has its own kinds of error
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{folder / WEIGHTS_FILE} cannot be read as safetensors: {reason}; copy it again") from None


def check_plain(value: Any, most: int, largest: float = math.inf) -> None:
    """Raise a ValueError if plain data holds more than `most` values, or a number not finite or beyond `largest`.

    Lists that share their items, which a small file can nest to billions of values, and cycles end at the limit too.
    """
    left, seen = [value], 0
    while left:
        one = left.pop()
        if (seen := seen + 1) > most:
            raise ValueError(f"they hold more than {most:,} values")
        if isinstance(one, dict | list | tuple):
            left.extend([*one.keys(), *one.values()] if isinstance(one, dict) else one)
        elif isinstance(one, int | float) and not abs(one) <= largest:
            raise ValueError(f"they hold the number {one}, at most {largest:g} is expected")


def _check_attention(settings: Any) -> None:
    if settings is None:
        return
    if not isinstance(settings, dict):
        raise ValueError(f"attention must be an object with settings, got {type(settings).__name__}")
    for name in ("patch_size", "rate", "propagation_size", "stride"):
        if name in settings and not (type(settings[name]) is int and settings[name] <= _LARGEST_PATCH):
            raise ValueError(f"{name} must be a whole number up to {_LARGEST_PATCH}, got {settings[name]!r}")


def _check_tensors(state: Mapping[str, Tensor], model: str) -> None:
    """Raise unless every tensor is dense, real, finite, in memory, and as large there as it says."""
    for name, value in state.items():
        kind = "quantized" if value.is_quantized else "sparse" if value.layout != torch.strided else value.device.type
        if kind != "cpu" or value.is_complex():
            wrong = f"holds {'complex' if kind == 'cpu' else kind} numbers instead of dense real ones"
        elif (held := value.untyped_storage().nbytes()) < value.numel() * value.element_size():
            wrong = f"repeats {held} bytes to a shape of {tuple(value.shape)}"
        elif not value.isfinite().all():
            wrong = "holds NaN or infinity"
        else:
            continue
        raise ValueError(
            f"{model}: its weights cannot be used, {name} {wrong}; take another copy or an older checkpoint"
        )


def _check_digest(folder: Path) -> None:
    if not (folder / DIGEST_FILE).is_file():
        return  # of another tool
    with (folder / DIGEST_FILE).open("rb") as file:
        recorded = file.read(64).decode(errors="replace").lower()
    found = sha256(folder / WEIGHTS_FILE)
    if found != recorded:
        raise ValueError(
            f"{folder / WEIGHTS_FILE} must have the SHA-256 that {DIGEST_FILE} records, {recorded[:12]}..., got "
            f"{found[:12]}...; it is damaged or another model's: copy both again"
        )


def _check_shapes(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> None:
    shapes = [{key: tuple(value.shape) for key, value in state.items()} for state in (expected, given)]
    wrong = sorted(key for key in expected.keys() | given.keys() if shapes[0].get(key) != shapes[1].get(key))
    if wrong:
        raise ValueError(
            f"{name}: its weights must be those of its settings, {len(wrong)} differ, the first {wrong[0]}: expected "
            f"{shapes[0].get(wrong[0])}, got {shapes[1].get(wrong[0])}; copy settings and weights from one model"
        )
