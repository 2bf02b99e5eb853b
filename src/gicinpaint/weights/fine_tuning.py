"""The weights that a new run's generator starts from."""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gicinpaint.config.validation import JobError
from gicinpaint.weights.pretrained import load_generator

_SHOWN = 4  # parts that a message names


class Taken(NamedTuple):
    """What a generator has taken over from a model's file, in tensors, and a digest of it.

    `unused` tensors of the file fit nothing; `fresh` are the largest parts of the generator that no file has.
    """

    path: str
    tensors: int
    of: int
    unused: int
    fresh: list[str]
    sha256: str

    def __str__(self) -> str:
        more = f" and {len(self.fresh) - _SHOWN} more" if len(self.fresh) > _SHOWN else ""
        fresh = f"fresh: {', '.join(self.fresh[:_SHOWN])}{more}" if self.fresh else "nothing starts fresh"
        unused = f"; {self.unused} of the file's fit nothing" if self.unused else ""
        return f"the generator starts with {self.tensors} of its {self.of} tensors from {self.path}; {fresh}{unused}"


def take_weights(generator: nn.Module, paths: str | Sequence[str]) -> list[Taken]:
    """Give a generator those layers of models whose names and shapes are those of its own.

    So a coarse network starts the first stage of a generator. A layer of which one tensor does not fit stays as it is:
    a bias alone, such as that of the three colours, means nothing. So does the last layer of a stage that makes images
    in one of the two and adds to its input in the other.

    Args:
        generator: Is changed.
        paths: What `load_generator` can read. Of several, a later one replaces what it has too: a trained first stage
            that of a whole generator, for instance.

    Raises:
        JobError: If a file cannot be read, nothing of it fits, or a weight is not finite; then nothing is changed.
    """
    if not paths:
        raise JobError("initial_weights must name a model's file or folder, got none; write null to start afresh")
    own = generator.state_dict()
    state: dict[str, Tensor] = {}
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        taken, unused = _find_fitting(path, generator)
        state |= taken
        found.append(Taken(str(path), len(taken), len(own), unused, [], _digest(taken)))
    generator.load_state_dict(state, strict=False)
    fresh = fresh_parts(own, state)
    return [one._replace(fresh=fresh) for one in found]


def fresh_parts(names: Collection[str], taken: Collection[str]) -> list[str]:
    """Return the largest parts of a network, given by its tensors' dotted names, of which nothing was taken.

    Example:
        >>> fresh_parts(["a.b.weight", "a.b.bias", "a.c.weight", "d.weight"], ["a.c.weight"])
        ['a.b', 'd']
    """
    touched = {".".join(parts[:n]) for parts in (name.split(".") for name in taken) for n in range(1, len(parts) + 1)}
    parts: dict[str, None] = {}
    for words in (name.split(".") for name in names):
        prefixes = (".".join(words[:n]) for n in range(1, len(words) + 1))
        if part := next((prefix for prefix in prefixes if prefix not in touched), None):
            parts[part] = None
    return list(parts)


def _find_fitting(path: str, generator: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of a model's file that fit, and the number of those that do not."""
    try:
        source = load_generator(Path(path).expanduser())
    except (ValueError, OSError, ImportError) as error:
        raise JobError(f"initial_weights: {error}") from error
    own, found = generator.state_dict(), source.state_dict()
    fits = {name: name in own and value.shape == own[name].shape for name, value in found.items()}
    broken = {_layer(name) for name in fits.keys() | own.keys() if not fits.get(name)}
    broken |= {f"{stage}.decoder.image" for stage in _differently_made(generator, source)}
    taken = {name: value for name, value in found.items() if _layer(name) not in broken}
    if not taken:
        raise JobError(
            f"initial_weights: {path} must share names and shapes of weights with the generator, got none that fit "
            f"({_example(found, own)}); choose the model it was trained with, e.g. model.generator.width"
        )
    if wrong := [name for name, value in taken.items() if not value.isfinite().all()]:
        raise JobError(
            f"initial_weights: {path} must hold finite weights, {wrong[0]} has others; take an older checkpoint"
        )
    return taken, len(found) - len(taken)


def _differently_made(generator: nn.Module, source: nn.Module) -> list[str]:
    """Return the stages that make images in one of two generators and add to their input in the other."""
    own, given = (
        {name: getattr(stage, "residual", None) for name, stage in network.named_children()}
        for network in (generator, source)
    )
    return [name for name in own.keys() & given.keys() if own[name] != given[name]]


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _example(found: dict[str, Any], own: dict[str, Any]) -> str:
    for name, value in found.items():
        if name in own and value.shape != own[name].shape:
            return f"{name} is {tuple(value.shape)} there and {tuple(own[name].shape)} here"
    return f"there is {next(iter(found), 'nothing')}, here {next(iter(own), 'nothing')}"
