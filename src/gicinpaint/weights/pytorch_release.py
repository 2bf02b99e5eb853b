"""PyTorch conversions of the second paper's weights that people pass around, by their names for the layers.

Two kinds are known, both of nipponjo/deepfillv2-pytorch: `networks_tf`, the authors' weights with the authors' names
for the layers, and `networks`, the same trained further with PyTorch's padding and names of its own.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gicinpaint.weights.tf_convert import StateDict, generator_scopes

_BLOCKS = {  # the authors' numbers of a stage's layers -> the names of `networks`, which differ by a prefix
    "1": "conv1",
    "2_downsample": "down_block1.conv1_downsample",
    "3": "down_block1.conv2",
    "4_downsample": "down_block2.conv1_downsample",
    "5": "down_block2.conv2",
    "6": "conv_bn1",
    "7_atrous": "conv_bn2",
    "8_atrous": "conv_bn3",
    "9_atrous": "conv_bn4",
    "10_atrous": "conv_bn5",
    "11": "conv_bn6",
    "12": "conv_bn7",
    "13_upsample": "up_block1.conv1_upsample.conv",
    "14": "up_block1.conv2",
    "15_upsample": "up_block2.conv1_upsample.conv",
    "16": "up_block2.conv2",
    "17": "conv_to_rgb",
}
_ATTENDED = {"9": "conv_bn4", "10": "conv_bn5"}  # of the attention branch, where nothing is dilated
_PREFIXES = {"conv": "stage1.", "xconv": "stage2.conv_", "pmconv": "stage2.ca_", "allconv": "stage2."}


def is_release(checkpoint: Any) -> bool:
    """Tell whether plain data is such a conversion: networks under "G" and "D", or the generator alone."""
    return isinstance(checkpoint, Mapping) and _kind(_generator(checkpoint)) is not None


def convert_release(checkpoint: Mapping[str, Any]) -> tuple[dict[str, StateDict], str]:
    """Return the state dicts of the networks in a PyTorch conversion, and the padding they were trained with.

    Returns:
        State dicts under "generator" (`GatedGenerator`) and, where a file of `networks_tf` has it, "patch_critic"
        (`PatchCritic`); "zeros" for the authors' weights, "centered" for those that were trained further.

    Raises:
        ValueError: If a tensor is absent or unknown; the message names it.

    Source:
        Names read in github.com/nipponjo/deepfillv2-pytorch, commit 4899fd3. Its networks take red, green, blue.
        Differs from it: the attention is the authors', with propagation, which `networks_tf` leaves out, and with
        TensorFlow's choice of cells where `networks` skips every second one.
    """
    given = _generator(checkpoint)
    kind = _kind(given)
    if kind is None:
        raise ValueError("a PyTorch conversion must have a layer conv1.conv or stage1.conv1.conv, got neither")
    layers = [(ours, _name(scope, kind)) for scope, ours in generator_scopes().items()]
    names = {f"{ours}.{k}": f"{theirs}.conv.{k}" for ours, theirs in layers for k in ("weight", "bias")}
    known = {name: value for name, value in given.items() if "contextual_attention." not in name}  # a fixed kernel
    parts = {"generator": _taken(known, names, "generator")}
    critic = checkpoint.get("D")
    if kind == "networks_tf" and isinstance(critic, Mapping) and "conv1.conv_sn.weight_u" in critic:
        kinds = {"weight": "weight", "bias": "bias", "u": "weight_u"}
        names = {f"features.{i}.{k}": f"conv{i + 1}.conv_sn.{kinds[k]}" for i in range(6) for k in kinds}
        found = _taken(critic, names, "patch critic")
        parts["patch_critic"] = {k: value[:, 0] if k.endswith(".u") else value for k, value in found.items()}
    return parts, "zeros" if kind == "networks_tf" else "centered"


def _generator(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = checkpoint.get("G")
    return inner if isinstance(inner, Mapping) else checkpoint


def _kind(generator: Mapping[str, Any]) -> str | None:
    found = {"networks_tf": "conv1.conv.weight", "networks": "stage1.conv1.conv.weight"}
    return next((kind for kind, name in found.items() if isinstance(generator.get(name), Tensor)), None)


def _name(scope: str, kind: str) -> str:
    layer = scope.split("/")[1]  # such as pmconv4_downsample
    if kind == "networks_tf":
        return layer + (".conv" if layer.endswith("upsample") else "")
    branch, _, number = layer.partition("conv")
    return _PREFIXES[f"{branch}conv"] + (_BLOCKS | _ATTENDED if branch == "pm" else _BLOCKS)[number]


def _taken(given: Mapping[str, Any], names: Mapping[str, str], network: str) -> StateDict:
    wrong = sorted(given.keys() ^ set(names.values()))
    if wrong or not all(isinstance(value, Tensor) for value in given.values()):
        left = f"{len(wrong)} are absent or left over, the first {wrong[0]}" if wrong else ""
        what = left or "got other things than tensors"
        raise ValueError(
            f"the {network} of a PyTorch conversion must have the released layers, {what}; take it as it was published"
        )
    return {ours: given[theirs].float() for ours, theirs in names.items()}
