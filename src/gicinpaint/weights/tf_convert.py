"""From the authors' TensorFlow variables to our state dicts: names, the order of axes and channels."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gicinpaint.models import Generator, GlobalCritic, LocalCritic
from gicinpaint.weights.tf_checkpoint import read_checkpoint

StateDict = dict[str, Tensor]
Variables = Mapping[str, NDArray[Any]]

_SCOPES = ("inpaint_net/", "discriminator/")
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
_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # of TensorFlow's arrays, in our order
_CELL = 16  # pixels of a critic's image, along an axis, for each cell that its linear layer sees
_SHOWN = 5  # names listed in a message


def load_weights(
    directory: str | Path, global_size: Sequence[int] | None = None, local_size: Sequence[int] | None = None
) -> dict[str, StateDict]:
    """Return the state dicts of the networks in a TensorFlow checkpoint of the authors' code.

    Args:
        directory: Folder of the checkpoint, as for `read_checkpoint`.
        global_size: Height and width in pixels of what the global critic scores; None means square.
        local_size: Height and width in pixels of what the local critic scores; None means square.

    Returns:
        State dicts under "generator", "global_critic" and "local_critic", as from `convert`.

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

    Optimizer slots (names that continue a weight's name) and variables outside `inpaint_net/` and `discriminator/`,
    such as counters, are ignored.

    Args:
        variables: Arrays by TensorFlow name, in TensorFlow's layout.
        global_size: Height and width in pixels of what the global critic scores; None means square.
        local_size: Height and width in pixels of what the local critic scores; None means square.

    Shape:
        - convolution kernels: (height, width, in, out); returned (out, in, height, width)
        - linear kernels: (H * W * C, 1), rows in (H, W, C) order; returned (1, C * H * W)
        - biases: (out,)

    Returns:
        State dicts under "generator" (`Generator`), "global_critic" (`GlobalCritic`) and "local_critic"
        (`LocalCritic`), in float32; networks without any variable are left out.

    Raises:
        ValueError: If a network's variable is missing, unknown, of another shape than its layer or not floating
            point; the message names it.

    Source:
        Released code, `build_inpaint_net`, `build_wgan_global_discriminator` and `build_wgan_local_discriminator`.
    """
    scopes = {"generator": generator_scopes(), "global_critic": _critic("global"), "local_critic": _critic("local")}
    names = {part: {f"{s}/{kind}" for s in found for kind in _KINDS.values()} for part, found in scopes.items()}
    _check_names(variables, names)
    sizes = {"global": global_size, "local": local_size}
    parts: dict[str, StateDict] = {}
    for part, own in scopes.items():
        if not variables.keys() & names[part]:
            continue
        first = next(iter(own))
        with torch.device("meta"):  # for its shapes
            if part == "generator":
                network: nn.Module = Generator(_width(variables, first, 5, even=True))
            else:
                kind = part.removesuffix("_critic")
                network = _build_critic(variables, kind, _width(variables, first, 3), sizes[kind])
        parts[part] = _state(variables, {layer: scope for scope, layer in own.items()}, network)
    return parts


def generator_scopes() -> dict[str, str]:
    """Return our names of the generator's convolutions by their TensorFlow scopes, in the order of the layers."""
    scopes = {}
    for prefix, part, layers in _BRANCHES:
        for number, layer in layers.items():
            scope = f"{prefix}{number}"
            scope += f"/{scope}_conv" if number.endswith("upsample") else ""
            scopes[f"inpaint_net/{scope}"] = f"{part}.{layer}"
    return scopes


def swap_image_channels(generator: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a generator's weights for images whose channels come in the opposite order.

    The first layers read and the last layers write the image's channels; mask planes stay where they are. Swapping
    twice gives the weights back.

    Args:
        generator: State dict of a `Generator` or a `CoarseGenerator`.

    Source:
        Released code: `cv2.imread` reads blue, green, red, and no channel is reordered afterwards.
    """
    swapped = dict(generator)
    for name, value in generator.items():
        if name.endswith("encoder.stem.weight"):
            swapped[name] = torch.cat([value[:, :3].flip(1), value[:, 3:]], dim=1)
        elif name.endswith(("decoder.image.weight", "decoder.image.bias")):
            swapped[name] = value.flip(0)
    return swapped


def _critic(kind: str) -> dict[str, str]:
    convolutions = {f"discriminator/discriminator_{kind}/conv{i + 1}": f"features.{i}" for i in range(4)}
    return convolutions | {f"discriminator/dout_{kind}_fc": "score"}


def _width(variables: Variables, scope: str, in_channels: int, even: bool = False) -> int:
    """Return the output channels of a network's first convolution."""
    shape = np.shape(variables[f"{scope}/kernel"])
    width = shape[-1] if shape else 0
    if shape != (5, 5, in_channels, width) or width < 1 or (even and width % 2):
        raise ValueError(
            f"{scope}/kernel must have the shape (5, 5, {in_channels}, width) in TensorFlow's layout, got {shape}; "
            "convert arrays as read_checkpoint returns them, of the first release (2018)"
        )
    return width


def _build_critic(variables: Variables, kind: str, width: int, size: Sequence[int] | None) -> nn.Module:
    """Return a critic for the image size that its linear layer has."""
    name, channels = f"discriminator/dout_{kind}_fc/kernel", {"global": 4, "local": 8}[kind] * width
    rows = np.shape(variables[name])[0] if np.ndim(variables[name]) == 2 else 0
    side = round((rows // channels) ** 0.5)
    height, columns = (side, side) if size is None else (-(-pixels // _CELL) for pixels in size)
    if height * columns * channels != rows or not rows:
        raise ValueError(
            f"{name} must have {height} * {columns} * {channels} rows and one column, got shape "
            f"{np.shape(variables[name])}; pass the height and width that its critic scores as {kind}_size"
        )
    critic = {"global": GlobalCritic, "local": LocalCritic}[kind]
    return critic(width, (height * _CELL, columns * _CELL))


def _check_names(variables: Variables, names: Mapping[str, set[str]]) -> None:
    known = set[str]().union(*names.values())
    unknown = [
        name
        for name in variables
        if name.startswith(_SCOPES) and name not in known and not any(parent in known for parent in _parents(name))
    ]
    if unknown:
        raise ValueError(
            f"variables must be those of the released networks, got also {_listed(unknown)}; "
            "convert a checkpoint of the first release (2018)"
        )
    for part, own in names.items():
        missing = own - variables.keys()
        if missing and missing != own:
            raise ValueError(
                f"variables of the {part} must be complete, {len(missing)} are missing: {_listed(missing)}; "
                "pass all of its variables, or none of them to leave it out"
            )


def _state(variables: Variables, scopes: Mapping[str, str], network: nn.Module) -> StateDict:
    """Return a network's state dict; `scopes` holds the TensorFlow scope of each of its layers."""
    state: StateDict = {}
    for name, weight in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        own = tuple(weight.shape)
        given = (*own[2:], own[1], own[0]) if len(own) == 4 else own[::-1]
        array = _array(variables, f"{scopes[layer]}/{_KINDS[kind]}", given)
        if len(own) == 2:  # rows in (H, W, C) order to (C, H, W)
            array = array.reshape(-1, network.get_parameter("features.3.bias").numel())
        state[name] = torch.from_numpy(array.transpose(*_AXES[array.ndim]).reshape(own).copy())
    return state


def _array(variables: Variables, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(variables[name])
    if array.shape != shape or 0 in shape:
        raise ValueError(
            f"{name} must have the shape {shape} of its layer in TensorFlow's layout, got {array.shape}; "
            "convert arrays as read_checkpoint returns them, of the first release (2018)"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} must be floating point, got {array.dtype}; pass the variable's own values")
    return array.astype(np.float32)


def _parents(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else "")
