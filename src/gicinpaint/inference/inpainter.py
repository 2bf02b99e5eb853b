"""Fill holes in images of any kind and size with a trained generator."""

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from gicinpaint.inference.blending import Blend, check_blend
from gicinpaint.inference.canvas import HoleColour
from gicinpaint.inference.engine import Engine, FillTask
from gicinpaint.inference.regions import Method, most_pixels
from gicinpaint.models.stored import HubModel, fetch
from gicinpaint.weights.pretrained import find_default, load_generator, save_generator

MAX_MEMORY = 3.0  # GB; an image of 1920x1080 fits


class Filled(NamedTuple):
    """A filled image and how it came about.

    `offset` tells where the attention copied each cell of 8 x 8 pixels from: int64 (2, rows, columns), absolute (row,
    column) on the grid of cells; cells far from the hole may hold their own place. It is None where the network has no
    attention or none of the whole image.
    """

    image: Any  # of the kind, size and type of the input
    coarse: Any  # the same, filled with the first stage's guess
    offset: Tensor | None
    method: str  # how it was filled, in words


class Inpainter(HubModel):
    """Fill holes in images: any size, any number of holes, the known pixels unchanged to the bit.

    Images are padded by mirroring to a multiple of 8 and cropped back. What a pass over the whole image gives in the
    hole is computed from no more than it depends on, where that is less work. An image that does not fit `max_memory`
    even so is filled by a crop around each group of holes, or, where the hole is too large for that, at reduced size
    first and then refined at full size.

    `save_pretrained(folder)` and `push_to_hub(repository)` are those of huggingface_hub's model mixin.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        device: "auto" (CUDA or Apple's mps, if there is one), "cpu", "cuda", ...
        max_memory: Bound on the memory of one pass, in GB; decides between the whole image and parts.
        progress: Whether an image that is filled in parts shows a progress bar.
        batch_size: Most images or parts of one padded size that share a pass; more than one pays on accelerators.

    Raises:
        ValueError: If the device is absent, the bound or the batch too small, or a weight is not finite.

    Example:
        >>> import numpy as np
        >>> from gicinpaint import Generator
        >>> image, mask = np.full((5, 7, 3), 200, np.uint8), np.zeros((5, 7), bool)
        >>> mask[1:3, 2:4] = True
        >>> filled = Inpainter(Generator(width=4), device="cpu")(image, mask)
        >>> filled.shape, filled.dtype, (filled == image)[~mask].all().item()
        ((5, 7, 3), dtype('uint8'), True)
    """

    def __init__(
        self,
        generator: nn.Module,
        device: str | torch.device = "auto",
        max_memory: float = MAX_MEMORY,
        progress: bool = True,
        batch_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}; 1 suits a CPU")
        bad = [name for name, values in generator.state_dict().items() if not values.isfinite().all()]
        if bad:
            raise ValueError(
                f"the generator must have finite weights, got NaN or infinity in {bad[0]}; open another one"
            )
        self.device = choose_device(device)
        self.generator = generator.to(self.device).eval()
        self.engine = Engine(self.generator, self.device, most_pixels(max_memory), batch_size, progress)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], device: str | torch.device = "auto", **options: Any) -> Self:
        """Return an inpainter with the generator of a file or folder.

        Args:
            path: A training checkpoint, a folder with model.safetensors and config.json, a folder with a TensorFlow
                checkpoint of the authors' code (its colour channels are swapped to red, green, blue), or the name of
                a model that `gicinpaint models` lists.
            device: As for the class, like the options.

        Raises:
            ValueError: If there is no model, it is damaged, or it carries code, which is not run.
        """
        return cls(load_generator(path), device, **options)

    @classmethod
    def default(cls, device: str | torch.device = "auto", **options: Any) -> Self:
        """Return an inpainter with the model that GICINPAINT_WEIGHTS names, or the one that comes with the package."""
        return cls.from_checkpoint(find_default(), device, **options)

    @classmethod
    def like(cls, other: "Inpainter", device: str | torch.device) -> Self:
        """Return an inpainter with the settings of another, on a device."""
        inpainter = cls(other.generator, device)
        inpainter.engine = replace(other.engine, device=inpainter.device)
        return inpainter

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the generator as model.safetensors and config.json; see `gicinpaint.weights.save_generator`."""
        save_generator(self.generator, folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Return an inpainter with a model by its name, of a folder, or of a hub repository such as `user/model`.

        Options are arguments of the class, and huggingface_hub's for a repository.

        Raises:
            ImportError: If it is a repository and huggingface_hub is not installed.
        """
        name = str(pretrained_model_name_or_path)
        if "/" not in name and not Path(name).exists():  # not a repository, user/model
            return cls.from_checkpoint(name, **options)
        inpainter: Self = super().from_pretrained(pretrained_model_name_or_path, **options)
        return inpainter

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        own = {name: options[name] for name in ("device", "max_memory", "progress", "batch_size") if name in options}
        return cls(load_generator(fetch(model_id, **options)), **own)

    def __call__(
        self,
        image: Any,
        mask: Any = None,
        *,
        hole_colour: HoleColour | None = None,
        hole_tolerance: int = 0,
        grow: int = 0,
        source: Any = None,
        blend: Blend = "none",
        sketch: Any = None,
    ) -> Any:
        """Return the image with its hole filled, of the same kind, size and type.

        Known pixels come back unchanged to the bit. An alpha channel becomes opaque in the hole. Without a hole the
        result is the image, and a warning says so.

        Args:
            image: A Pillow image, a NumPy array (H, W) or (H, W, C) of uint8, uint16 or floats in [0, 1], or a tensor
                (C, H, W) of uint8 or floats in [-1, 1]; an array or tensor of one more dimension, or a list, for
                several images.
            mask: The hole: white, true or 1. Of this and of the source and the sketch one for each image, or for all.
            hole_colour: Pixels of this colour are hole too: a name, a level, or red, green, blue, 0..255.
            hole_tolerance: Largest difference from that colour, in 8-bit levels.
            grow: Pixels by which the hole is grown, or shrunk if negative.
            source: Where attention may copy from, like a mask: white, true or 1; None: from all known pixels. Copied
                are patches of about 24 x 24 pixels that lie inside as a whole; the networks still see all of the image.
            blend: "none", "feather" or "poisson"; see `gicinpaint.inference.blending.blended`.
            sketch: Edges that a guided generator follows in the hole, like a mask; the image must fit one pass.

        Raises:
            TypeError: If image, mask, source or sketch are of another kind.
            ValueError: If their sizes or values differ from that, neither mask nor colour is given, all is hole, there
                is no source or no attention to limit, or the generator takes no sketch.
            ArithmeticError: If the generator answers with values that are not finite.
        """
        several = isinstance(image, list | tuple)
        stacked = isinstance(image, np.ndarray | Tensor) and image.ndim == 4
        images = list(image) if several or stacked else [image]

        def each(name: str, given: Any) -> list[Any]:
            of_stack = stacked and getattr(given, "ndim", 0) > 2 and len(given) == len(images)
            found = list(given) if of_stack or isinstance(given, list | tuple) else [given] * len(images)
            if len(found) != len(images):
                raise ValueError(
                    f"{name} must be as many as images, {len(images)}, got {len(found)}; or pass one for all"
                )
            return found

        own = zip(images, each("masks", mask), each("sources", source), each("sketches", sketch), strict=True)
        hole: Any = {"hole_colour": hole_colour, "hole_tolerance": hole_tolerance, "grow": grow}
        tasks = [self.engine.read(one, its, source=allowed, sketch=edges, **hole) for one, its, allowed, edges in own]
        _fill(self.engine, tasks, blend)
        results = [task.canvas.finish() for task in tasks]
        if stacked:
            return torch.stack(results) if isinstance(image, Tensor) else np.stack(results)
        return results if several else results[0]

    def fill(
        self,
        image: Any,
        mask: Any = None,
        *,
        hole_colour: HoleColour | None = None,
        hole_tolerance: int = 0,
        grow: int = 0,
        source: Any = None,
        blend: Blend = "none",
        sketch: Any = None,
    ) -> Filled:
        """Return one filled image with its coarse guess and offset; arguments and errors are those of a call."""
        hole: Any = {"hole_colour": hole_colour, "hole_tolerance": hole_tolerance, "grow": grow}
        task = self.engine.read(image, mask, source=source, sketch=sketch, stages=True, **hole)
        _fill(self.engine, [task], blend)
        assert task.coarse is not None
        return Filled(task.canvas.finish(), task.coarse.finish(), task.offset, str(task.method))


def _fill(engine: Engine, tasks: list[FillTask], blend: Blend) -> None:
    check_blend(blend)
    if any(task.method is Method.NOTHING for task in tasks):
        warnings.warn("there is no hole: the image comes back as it is", stacklevel=3)
    engine.fill(tasks, blend)


def choose_device(device: str | torch.device) -> torch.device:
    """Return a device by name; "auto" is CUDA or Apple's GPU (mps) where there is one, else the CPU.

    Raises:
        ValueError: If there is no such device.
    """
    if device == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device must be one of this machine, got {device!r} ({reason}); use auto or cpu") from None
