"""Methods that can be evaluated: any function that completes a batch of images, and trained checkpoints."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from gicinpaint.config.validation import JobError
from gicinpaint.inference.exact import complete
from gicinpaint.models.compositing import composite, mask_out
from gicinpaint.weights.hub import find_model
from gicinpaint.weights.pretrained import load_generator

Method = Callable[[Tensor, Tensor], Tensor]


class Checkpoint:
    """A trained generator as a method: one pass over the whole image, known pixels kept.

    Args:
        path: What `gicinpaint.weights.load_generator` reads: a training checkpoint, a model's folder or name, or a
            folder with a TensorFlow checkpoint of the authors' code.

    Raises:
        ValueError: If nothing usable is there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = find_model(path)
        self.generator = load_generator(self.path)

    def to(self, device: torch.device) -> "Checkpoint":
        """Move the generator to a device."""
        self.generator.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return the completed images; shapes as in `gicinpaint.evaluation.baselines`."""
        return composite(image, complete(self.generator, mask_out(image, mask), mask).prediction, mask)

    def sha256(self) -> str:
        """Return the hash over the file, or over all files of the folder."""
        digest = hashlib.sha256()
        for file in [self.path] if self.path.is_file() else sorted(self.path.rglob("*")):
            if file.is_file():
                digest.update(file.name.encode())
                digest.update(file.read_bytes())
        return digest.hexdigest()


def try_method(name: str, method: Method, device: torch.device) -> None:
    """Run a method once on a small image, which also loads its code.

    Raises:
        JobError: If it fails in a way that the user can mend, or returns something else than an image.
    """
    image = torch.linspace(-1, 1, 3 * 64 * 64, device=device).reshape(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64, device=device)
    mask[..., 24:40, 24:40] = 1
    try:
        completed = method(image, mask)
    except (ImportError, ValueError, TypeError) as error:
        raise JobError(f"{name}: {error}") from error
    if not isinstance(completed, Tensor) or completed.shape != image.shape:
        got = tuple(completed.shape) if isinstance(completed, Tensor) else type(completed).__name__
        raise JobError(f"{name}: expected a method that returns images (B, 3, H, W) of the input's size, got {got}")


def try_columns(metrics: MetricCollection, height: int, width: int) -> None:
    """Measure one image of a size; raise a `JobError` if a column cannot be measured on it."""
    image = torch.zeros(1, 3, height, width)
    try:
        metrics.clone().update(image, image, image[:, :1])
    except ValueError as error:
        raise JobError(f"dataset.image_size: {error}") from error
