"""Networks with Adam's moments: from a training checkpoint or the authors' TensorFlow variables to the other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.models.stored import StoredNetwork
from gicinpaint.weights.pretrained import configuration_node, read_plain
from gicinpaint.weights.tf_convert import StateDict, convert, swap_image_channels
from gicinpaint.weights.tf_write import revert

_SLOTS = {"exp_avg": "Adam", "exp_avg_sq": "Adam_1"}  # PyTorch's names of the moments, and TensorFlow's
_CRITIC = "_critic"  # what the authors' parts are called beyond the critics' names in a training module
_BETAS = {True: (0.5, 0.999), False: (0.5, 0.9)}  # released, by whether there is a patch critic
_LEARNING_RATE = 1e-4  # released
_MOST_UPDATES = 80_000  # which a power of beta in float32 can tell; from there on Adam's correction is nothing


@dataclass(frozen=True)
class TrainingState:
    """Networks and Adam's state, from which training continues.

    `moments` are by PyTorch's name, then as `networks`; `adam_updates` those that the bias correction counts.
    """

    networks: Mapping[str, StateDict]
    moments: Mapping[str, Mapping[str, StateDict]]
    betas: tuple[float, float] = (0.5, 0.9)
    learning_rate: float = _LEARNING_RATE
    adam_updates: int = 0
    generator_updates: int = 0

    def swapped(self) -> "TrainingState":
        """Return the same for images whose channels come in the opposite order."""
        moments = {kind: _swapped(parts) for kind, parts in self.moments.items()}
        return replace(self, networks=_swapped(self.networks), moments=moments)

    def variables(self) -> dict[str, NDArray[Any]]:
        """Return everything as variables of the authors' code, or raise a ValueError if they have no such network."""
        variables = revert(self.networks)
        if not self.moments:
            return variables
        for kind, slot in _SLOTS.items():
            filled = {part: {**self.networks[part], **state} for part, state in self.moments[kind].items()}
            variables |= {f"{n}/{slot}": v for n, v in revert(filled).items() if not n.endswith("/u")}
        for number, beta in enumerate(self.betas):  # multiplied one by one, as TensorFlow does, for the last bit
            powers = np.cumprod(np.full(self.adam_updates + 1, beta, np.float32))
            variables[f"beta{number + 1}_power"] = powers[-1]
        variables["lr"] = np.asarray(self.learning_rate, np.float32)
        return {**variables, "global_step": np.asarray(self.generator_updates, np.int32)}


def from_variables(variables: Mapping[str, NDArray[Any]]) -> TrainingState:
    """Return the networks of the authors' variables with the moments of all weights, or raise a ValueError."""
    networks = convert(variables)
    weights = {name: array for name, array in revert(networks).items() if not name.endswith("/u")}
    vectors = {name: array for name, array in variables.items() if name.endswith("/u")}
    moments = {}
    for kind, slot in _SLOTS.items():
        absent = [name for name in weights if f"{name}/{slot}" not in variables]
        if absent or "generator" not in networks:
            raise ValueError(
                f"slots=true needs a generator with both moments of every weight, got none of {len(absent)}"
                f"{f', the first {absent[0]}' if absent else ''}; use slots=false"
            )
        found = convert(vectors | {name: variables[f"{name}/{slot}"] for name in weights})
        moments[kind] = {part: _without_vectors(state) for part, state in found.items()}
    betas = _BETAS["patch_critic" in networks]
    power = float(variables.get("beta2_power", np.float32(0)))
    updates = round(math.log(power) / math.log(betas[1])) - 1 if power > 0 else _MOST_UPDATES
    rate = float(variables.get("lr", np.float32(_LEARNING_RATE)))
    step = int(variables.get("global_step", np.int32(0)))
    return TrainingState(networks, moments, betas, rate, min(max(updates, 0), _MOST_UPDATES), step)


def from_checkpoint(path: str | Path) -> TrainingState:
    """Return the networks of a training checkpoint, not averaged, with the moments of all their weights.

    Without Adam, or with frozen parts, it is a ValueError.
    """
    checkpoint = read_plain(Path(path)) if Path(path).is_file() else None
    needed = ("state_dict", "optimizer_states", "counters", "config")
    if not isinstance(checkpoint, Mapping) or any(key not in checkpoint for key in needed):
        raise ValueError(f"slots=true needs a checkpoint of gicinpaint train, got {path} without {', '.join(needed)}")
    state, optimizers = checkpoint["state_dict"], checkpoint["optimizer_states"]
    networks = {"generator": _below(state, "generator.")}
    for name in dict.fromkeys(key.split(".")[1] for key in state if key.startswith("critics.")):
        networks[name + _CRITIC] = _below(state, f"critics.{name}.")
    moments: dict[str, dict[str, StateDict]] = {kind: {} for kind in _SLOTS}
    parts = list(networks)
    for optimizer, owned in zip(optimizers, (parts[:1], parts[1:]), strict=False):
        names = [(part, name) for part in owned for name in _without_vectors(networks[part])]
        found = optimizer["state"]
        complete = all(kind in one for one in found.values() for kind in _SLOTS)
        if sorted(found) != list(range(len(names))) or not complete:
            raise ValueError(
                f"slots=true needs both of Adam's moments for each of {len(names)} weights, got {path} with "
                f"{len(found)}; train without freeze and with Adam, or use slots=false"
            )
        for number, (part, name) in enumerate(names):
            for kind in _SLOTS:
                moments[kind].setdefault(part, {})[name] = found[number][kind]
    counts = [max(float(one["step"]) for one in optimizer["state"].values()) for optimizer in optimizers]
    group = optimizers[0]["param_groups"][0]
    adam_updates = int(max(counts) if checkpoint["config"].get("joint_clock") else sum(counts))
    updates = int(checkpoint["counters"]["generator_updates"])
    return TrainingState(networks, moments, tuple(group["betas"]), float(group["lr"]), adam_updates, updates)


def write_training_checkpoint(state: TrainingState, generator: StoredNetwork, path: str | Path) -> None:
    """Write NAME.ckpt, from which `gicinpaint train resume=NAME.ckpt` continues with networks, moments and counts."""
    if not str(path).endswith(".ckpt"):
        raise ValueError(f"output must be a file NAME.ckpt to be trained on from, got {path}; or use slots=false")
    weights: StateDict = {}
    for part, tensors in state.networks.items():
        prefix = part if part == "generator" else f"critics.{part.removesuffix(_CRITIC)}"
        weights |= {f"{prefix}.{name}": value for name, value in tensors.items()}
    parts = list(state.networks)
    optimizers = [_adam(state, owned) for owned in (parts[:1], parts[1:]) if owned]
    checkpoint = {
        "state_dict": weights,
        "optimizer_states": optimizers,
        "lr_schedulers": [],
        "counters": {"batches_seen": 2 * state.generator_updates, "generator_updates": state.generator_updates},
        "global_step": 2 * state.generator_updates,
        "epoch": 0,
        "loops": {},
        "callbacks": {},
        "pytorch-lightning_version": version("lightning"),
        "config": {"generator": configuration_node(generator), "joint_clock": True},
    }
    with atomic_file(path) as partial:
        torch.save(checkpoint, partial)


def _adam(state: TrainingState, parts: Sequence[str]) -> dict[str, Any]:
    weights = {(p, name): value for p in parts for name, value in _without_vectors(state.networks[p]).items()}
    optimizer = Adam(weights.values(), lr=state.learning_rate, betas=state.betas, fused=True)
    for (part, name), weight in weights.items():
        moments = {kind: networks[part][name] for kind, networks in state.moments.items()}
        optimizer.state[weight] = {"step": torch.tensor(float(state.adam_updates)), **moments}
    return optimizer.state_dict()


def _swapped(parts: Mapping[str, StateDict]) -> dict[str, StateDict]:
    return {part: swap_image_channels(state) for part, state in parts.items()}


def _without_vectors(state: StateDict) -> StateDict:
    return {name: value for name, value in state.items() if not name.endswith(".u")}


def _below(state: Mapping[str, Tensor], prefix: str) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
