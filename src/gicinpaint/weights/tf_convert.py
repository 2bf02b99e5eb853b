"""From the authors' variables to our state dicts: names, the order of axes and shapes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gicinpaint.weights.tf_checkpoint import read_checkpoint
from gicinpaint.weights.tf_layers import Layer, generator_layers, global_critic_layers, local_critic_layers

StateDict = dict[str, Tensor]
Variables = Mapping[str, NDArray[Any]]

_SCOPES = ("inpaint_net/", "discriminator/")
_STRIDE = 16  # of a critic's four convolutions
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
        - dense kernels: (H * W * C, 1), rows in (H, W, C) order; returned (1, C * H * W)
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
    generator = generator_layers(_width(variables, "inpaint_net/conv1"))
    global_critic = global_critic_layers(_width(variables, "discriminator/discriminator_global/conv1"))
    local_critic = local_critic_layers(_width(variables, "discriminator/discriminator_local/conv1"))
    global_dense, local_dense = "discriminator/dout_global_fc", "discriminator/dout_local_fc"
    names = {
        "generator": _names(generator),
        "global_critic": _names(global_critic, global_dense),
        "local_critic": _names(local_critic, local_dense),
    }
    _check_names(variables, names)
    parts: dict[str, StateDict] = {}
    if variables.keys() & names["generator"]:
        parts["generator"] = _convolutions(variables, generator)
    if variables.keys() & names["global_critic"]:
        parts["global_critic"] = _convolutions(variables, global_critic)
        channels = global_critic[-1].out_channels
        parts["global_critic"] |= _score(variables, global_dense, channels, global_size, "global_size")
    if variables.keys() & names["local_critic"]:
        parts["local_critic"] = _convolutions(variables, local_critic)
        channels = local_critic[-1].out_channels
        parts["local_critic"] |= _score(variables, local_dense, channels, local_size, "local_size")
    return parts


def _width(variables: Variables, scope: str) -> int:
    shape = np.shape(variables.get(f"{scope}/kernel", ()))
    return shape[-1] if len(shape) == 4 else 0  # the shape check reports another number of axes


def _names(layers: Sequence[Layer], *dense: str) -> set[str]:
    return {f"{scope}/{kind}" for scope in (*(layer.scope for layer in layers), *dense) for kind in ("kernel", "bias")}


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


def _convolutions(variables: Variables, layers: Sequence[Layer]) -> StateDict:
    state: StateDict = {}
    for scope, name, size, c_in, c_out in layers:
        kernel = _array(variables, f"{scope}/kernel", (size, size, c_in, c_out))
        state[f"{name}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"{name}.bias"] = torch.from_numpy(_array(variables, f"{scope}/bias", (c_out,)).copy())
    return state


def _score(variables: Variables, scope: str, channels: int, size: Sequence[int] | None, argument: str) -> StateDict:
    name = f"{scope}/kernel"
    rows = np.shape(variables[name])[0] if np.ndim(variables[name]) == 2 else 0
    cells = rows // channels
    side = round(cells**0.5)
    height, width = (side, side) if size is None else (-(-pixels // _STRIDE) for pixels in size)
    if height * width != cells or cells * channels != rows or not rows:
        raise ValueError(
            f"{name} must have {height} * {width} * {channels} rows and one column, got shape "
            f"{np.shape(variables[name])}; pass the height and width that its critic scores as {argument}"
        )
    kernel = _array(variables, name, (rows, 1)).reshape(height, width, channels)
    weight = kernel.transpose(2, 0, 1).reshape(1, rows).copy()  # (1, C * H * W)
    bias = _array(variables, f"{scope}/bias", (1,)).copy()
    return {"score.weight": torch.from_numpy(weight), "score.bias": torch.from_numpy(bias)}


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
