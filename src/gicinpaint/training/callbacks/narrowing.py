"""The module as the callbacks know it."""

from lightning import LightningModule

from gicinpaint.training.module import InpaintingModule


def inpainting(module: LightningModule) -> InpaintingModule:
    """Return the module as what it must be.

    Raises:
        TypeError: If it is another one.
    """
    if not isinstance(module, InpaintingModule):
        raise TypeError(f"expected an InpaintingModule, got {type(module).__name__}; these callbacks count its updates")
    return module
