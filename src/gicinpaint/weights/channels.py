"""The authors read images as blue, green, red; their weights for images that are red, green, blue."""

from collections.abc import Mapping

from torch import Tensor

_FIRST = (
    "coarse_network.encoder.stem",
    "refinement_network.dilated_encoder.stem",
    "refinement_network.attention_encoder.stem",
)
_LAST = ("coarse_network.decoder.image", "refinement_network.decoder.image")


def swap_image_channels(generator: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a generator's weights for images whose channels come in the opposite order.

    The first layers read and the last layers write the image's channels; the two mask planes stay where they are.
    Swapping twice gives the weights back.

    Args:
        generator: State dict of a `Generator` or a `CoarseGenerator`.

    Source:
        Released code: `cv2.imread` reads blue, green, red, and no channel is reordered afterwards.
    """
    swapped = dict(generator)
    for layer in _FIRST:
        if f"{layer}.weight" in swapped:
            swapped[f"{layer}.weight"] = swapped[f"{layer}.weight"][:, [2, 1, 0, 3, 4]]
    for layer in _LAST:
        for kind in ("weight", "bias"):
            if f"{layer}.{kind}" in swapped:
                swapped[f"{layer}.{kind}"] = swapped[f"{layer}.{kind}"][[2, 1, 0]]
    return swapped
