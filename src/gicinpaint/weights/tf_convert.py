"""From the authors' TensorFlow variables to our state dicts: names, the order of axes and channels."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gicinpaint.models import GatedGenerator, Generator, GlobalCritic, LocalCritic, PatchCritic
from gicinpaint.weights.tf_checkpoint import read_checkpoint

StateDict = dict[str, Tensor]
Variables = Mapping[str, NDArray[Any]]

_SCOPES = ("inpaint_net/", "discriminator/")
_PATCH = "discriminator/sn_patch_gan"
_ENCODER = {
    "1": "stem",
    "2_downsample": "downsample_half",
    "3": "half_size",
    "4_downsample": "downsample_quarter",
    "5": "quarter_size",
    "6": "features",
}
_DILATED = {"7_atrous": "0", "8_atrous": "1", "9_atrous": "2", "10_atrous": "3"}
_DECODER = {
    "11": "merge",
    "12": "quarter_size",
    "13_upsample": "upsample_half.convolution",
    "14": "half_size",
    "15_upsample": "upsample_full.convolution",
    "16": "full_size",
    "17": "image",
}
_BRANCHES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("conv", "coarse_network.encoder", _ENCODER),
    ("conv", "coarse_network.dilated", _DILATED),
    ("conv", "coarse_network.decoder", _DECODER),
    ("xconv", "refinement_network.dilated_encoder", _ENCODER),
    ("xconv", "refinement_network.dilated", _DILATED),
    ("pmconv", "refinement_network.attention_encoder", _ENCODER),
    ("pmconv", "refinement_network.attended", {"9": "0", "10": "1"}),
    ("allconv", "refinement_network.decoder", _DECODER),
)
_KINDS = {"weight": "kernel", "bias": "bias"}  # our names of a layer's tensors, and TensorFlow's
_SPECTRAL_KINDS = {**_KINDS, "u": "kernel_sn/u"}
_CELL = 16  # pixels of a critic's image, along an axis, for each cell that its linear layer sees
_SHOWN = 5  # names listed in a message


def load_weights(
    directory: str | Path, global_size: Sequence[int] | None = None, local_size: Sequence[int] | None = None
) -> dict[str, StateDict]:
    """Return what `convert` does for a TensorFlow checkpoint of the authors' code, of either paper, in a folder.

    Raises:
        ValueError: If the checkpoint is damaged, or holds none of the networks or one that does not fit.
    """
    variables = read_checkpoint(directory)
    try:
        parts = convert(variables, global_size, local_size)
    except ValueError as error:
        raise ValueError(f"checkpoint {directory}: {error}") from error
    if not parts:
        raise ValueError(
            f"checkpoint {directory} must hold variables below {' or '.join(_SCOPES)}, got {_listed(variables)}; "
            "pass a checkpoint of the authors' inpainting code"
        )
    return parts


def convert(
    variables: Variables, global_size: Sequence[int] | None = None, local_size: Sequence[int] | None = None
) -> dict[str, StateDict]:
    """Return the state dicts of the networks whose variables are present.

    The first paper's checkpoints and the second's are told apart by names and shapes. Optimizer slots (names that
    continue a weight's name) and variables outside `inpaint_net/` and `discriminator/`, such as counters, are ignored.

    Args:
        variables: Arrays by TensorFlow name, in TensorFlow's layout.
        global_size, local_size: Height and width in pixels of what a critic scores; None means square.

    Shape:
        - convolution kernels: (height, width, in, out); returned (out, in, height, width)
        - linear kernels: (H * W * C, 1), rows in (H, W, C) order; returned (1, C * H * W)
        - biases: (out,)

    Returns:
        State dicts under "generator" (`Generator`, or `GatedGenerator` of the second paper), "global_critic",
        "local_critic" and "patch_critic", in float32; networks without any variable are left out.

    Raises:
        ValueError: If a network's variable is missing, unknown, of another shape than its layer or not floating
            point; the message names it.

    Source:
        Released code of both papers, `build_inpaint_net` and `build_*_discriminator`.
    """
    tables = network_tables()
    _check_names(variables, tables)
    sizes = {"global_critic": global_size, "local_critic": local_size}
    parts: dict[str, StateDict] = {}
    for part, table in tables.items():
        if variables.keys() & table.values():
            with torch.device("meta"):  # for its shapes
                network = _build(part, variables, table, sizes.get(part))
            parts[part] = _state(variables, table, network)
    return parts


def network_tables() -> dict[str, dict[str, str]]:
    """Return the TensorFlow names of each network's tensors by ours, by the networks' names."""
    return {
        "generator": _table(generator_scopes(), _KINDS),
        "global_critic": _table(_critic_scopes("global"), _KINDS),
        "local_critic": _table(_critic_scopes("local"), _KINDS),
        "patch_critic": _table({f"{_PATCH}/conv{i + 1}": f"features.{i}" for i in range(6)}, _SPECTRAL_KINDS),
    }


def generator_settings(stem: Sequence[int], second: Sequence[int]) -> dict[str, Any]:
    """Return a generator's settings from its first two kernels' shapes; a gated one's second sees half the channels."""
    if second[1] * 2 == stem[0]:
        return {"network": "GatedGenerator", "width": stem[0], "guided": stem[1] == 6, "attention": {}}
    return {"network": "Generator", "width": stem[0], "attention": {}}


def generator_scopes() -> dict[str, str]:
    """Return our names of the generator's convolutions by their TensorFlow scopes, in the order of the layers."""
    scopes = {}
    for prefix, part, layers in _BRANCHES:
        for number, layer in layers.items():
            scope = f"{prefix}{number}"
            scope += f"/{scope}_conv" if number.endswith("upsample") else ""
            scopes[f"inpaint_net/{scope}"] = f"{part}.{layer}"
    return scopes


def swap_image_channels(network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a generator's or a critic's weights for images whose channels come in the opposite order.

    The first layers read and the last layers write the image's channels; mask planes stay where they are. Swapping
    twice gives the weights back.

    Source:
        Released code: `cv2.imread` reads blue, green, red, and no channel is reordered afterwards.
    """
    swapped = dict(network)
    for name, value in network.items():
        if name.endswith("encoder.stem.weight") or name == "features.0.weight":
            swapped[name] = torch.cat([value[:, :3].flip(1), value[:, 3:]], dim=1)
        elif name.endswith(("decoder.image.weight", "decoder.image.bias")):
            swapped[name] = value.flip(0)
    return swapped


def _critic_scopes(kind: str) -> dict[str, str]:
    convolutions = {f"discriminator/discriminator_{kind}/conv{i + 1}": f"features.{i}" for i in range(4)}
    return convolutions | {f"discriminator/dout_{kind}_fc": "score"}


def _table(scopes: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, str]:
    return {f"{layer}.{k}": f"{scope}/{kind}" for scope, layer in scopes.items() for k, kind in kinds.items()}


def _build(part: str, variables: Variables, table: Mapping[str, str], size: Sequence[int] | None) -> nn.Module:
    stem, second, *_ = (np.shape(variables[name])[::-1] for ours, name in table.items() if ours.endswith("weight"))
    first = next(iter(table.values()))
    planes = {"generator": (5, 6), "patch_critic": (3, 4)}.get(part, (3,))
    if len(second) != 4 or len(stem) != 4 or stem[1] not in planes or stem[2:] != (5, 5) or stem[0] < 1:
        raise ValueError(
            f"{first} must have the shape (5, 5, {planes[0]}, width) in TensorFlow's layout, got {stem[::-1]}; "
            "convert arrays as read_checkpoint returns them"
        )
    width = stem[0]
    if part == "patch_critic":
        return PatchCritic(width, stem[1])
    if part != "generator":
        return _build_critic(variables, part.removesuffix("_critic"), width, size)
    settings = generator_settings(stem, second)
    return GatedGenerator(width, guided=settings["guided"]) if "guided" in settings else Generator(width)


def _build_critic(variables: Variables, kind: str, width: int, size: Sequence[int] | None) -> nn.Module:
    name, channels = f"discriminator/dout_{kind}_fc/kernel", {"global": 4, "local": 8}[kind] * width
    rows = np.shape(variables[name])[0] if np.ndim(variables[name]) == 2 else 0
    side = round((rows // channels) ** 0.5)
    height, columns = (side, side) if size is None else (-(-pixels // _CELL) for pixels in size)
    if height * columns * channels != rows or not rows:
        raise ValueError(
            f"{name} must have {height} * {columns} * {channels} rows and one column, got shape "
            f"{np.shape(variables[name])}; pass the height and width that its critic scores as {kind}_size"
        )
    return {"global": GlobalCritic, "local": LocalCritic}[kind](width, (height * _CELL, columns * _CELL))


def _check_names(variables: Variables, tables: Mapping[str, Mapping[str, str]]) -> None:
    known = {name for table in tables.values() for name in table.values()}
    names = [name for name in variables if name.startswith(_SCOPES) and name not in known]
    unknown = [name for name in names if not any(name.startswith(f"{parent}/") for parent in known)]  # slots have one
    if unknown:
        raise ValueError(
            f"variables must be those of the released networks, got also {_listed(unknown)}; "
            "convert a checkpoint of the authors' code"
        )
    for part, table in tables.items():
        missing = table.values() - variables.keys()
        if missing and len(missing) < len(table):
            raise ValueError(
                f"variables of the {part} must be complete, {len(missing)} are missing: {_listed(missing)}; "
                "pass all of its variables, or none of them to leave it out"
            )


def _state(variables: Variables, table: Mapping[str, str], network: nn.Module) -> StateDict:
    state: StateDict = {}
    for name, weight in network.state_dict().items():
        own = tuple(weight.shape)
        if name.endswith(".u"):  # of the spectral norm: (1, out)
            array = _array(variables, table[name], (1, *own))[0]
        elif len(own) == 2:  # rows in (H, W, C) order to (C, H, W)
            array = _array(variables, table[name], own[::-1])
            array = array.reshape(-1, network.get_parameter("features.3.bias").numel()).T.reshape(own)
        elif len(own) == 4:
            array = _array(variables, table[name], (*own[2:], own[1], own[0])).transpose(3, 2, 0, 1)
        else:
            array = _array(variables, table[name], own)
        state[name] = torch.from_numpy(array.copy())
    return state


def _array(variables: Variables, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(variables[name])
    if array.shape != shape or 0 in shape:
        raise ValueError(
            f"{name} must have the shape {shape} of its layer in TensorFlow's layout, got {array.shape}; "
            "convert arrays as read_checkpoint returns them"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} must be floating point, got {array.dtype}; pass the variable's own values")
    return array.astype(np.float32)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else "")
