"""A generator as a program for any batch, height and width, and the files it is written to."""

import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gicinpaint.attention import ContextualAttention, FactorizedAttention
from gicinpaint.models.compositing import composite, mask_out
from gicinpaint.models.generator import SIZE_MULTIPLE, Completion

Output = Literal["completed", "coarse", "refined", "offset"]
Size = tuple[int, int, int]
LEAST_SIZE = 2 * SIZE_MULTIPLE  # torch.export takes a count of 1, here of attended cells, for a constant


class Completer(nn.Module):
    """What is exported: from an image and its hole to the completed image.

    The generator is copied, and its attention computed by `FactorizedAttention`, whose steps are plain tensor
    operations for any size; the numbers are the same. It takes memory for the whole score matrix.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        outputs: What is returned, in order: the completed image, the coarse one (known pixels in place), the second
            stage's raw output, or where each cell was copied from.

    Shape:
        - image: (B, 3, H, W), [-1, 1], H and W multiples of 8; what lies in the hole does not matter
        - mask: (B, 1, H, W), {0, 1}
        - returned: one tensor for each name in outputs: (B, 3, H, W), or int64 (B, 2, H / 8, W / 8) for the offset

    Raises:
        ValueError: If an output is asked for that the generator does not have.
    """

    def __init__(self, generator: nn.Module, outputs: Sequence[Output] = ("completed",)) -> None:
        super().__init__()
        self.generator = copy.deepcopy(generator).cpu().eval().requires_grad_(False)
        self.outputs = tuple(outputs)
        layers = [module for module in self.generator.modules() if isinstance(module, ContextualAttention)]
        for layer in layers:
            layer.backend = FactorizedAttention()
        absent = {"offset"} if not layers else set()
        if not hasattr(generator, "refinement_network"):
            absent.add("refined")
        if not outputs or absent & set(outputs):
            offered = [name for name in get_args(Output) if name not in absent]
            raise ValueError(f"outputs must be some of {', '.join(offered)} for this generator, got {list(outputs)}")

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that were asked for."""
        completion: Completion = self.generator(mask_out(image, mask), mask, return_offset="offset" in self.outputs)
        ways: dict[str, Callable[[], Tensor | None]] = {
            "completed": lambda: composite(image, completion.prediction, mask),
            "coarse": lambda: composite(image, completion.coarse, mask),
            "refined": lambda: completion.refined,
            "offset": lambda: completion.offset,
        }
        found = [ways[name]() for name in self.outputs]
        return tuple(tensor for tensor in found if tensor is not None)


def trace(completer: Completer) -> ExportedProgram:
    """Return a completer as a program for any batch, height and width (multiples of 8, from 16 on).

    ONNX Runtime takes 8 too.
    """
    image, mask = example((2, 6 * SIZE_MULTIPLE, 4 * SIZE_MULTIPLE))
    axes = {0: Dim("batch"), 2: SIZE_MULTIPLE * Dim("rows"), 3: SIZE_MULTIPLE * Dim("columns")}
    with _quiet():
        return torch.export.export(completer, (image, mask), dynamic_shapes=(axes, axes), strict=False)


def write_onnx(program: ExportedProgram, outputs: Sequence[str], path: Path) -> None:
    """Write a traced completer as ONNX, its inputs named image and mask, whole or not at all.

    Raises:
        ImportError: If the packages that write ONNX are absent.
    """
    try:
        import onnxscript  # noqa: F401  (the exporter's own message does not name the extra)
    except ImportError as error:
        raise ImportError("ONNX needs more packages; install them with pip install 'gicinpaint[export]'") from error
    axes = {0: "batch", 2: "height", 3: "width"}
    with _quiet():
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["image", "mask"],
            output_names=list(outputs),
            dynamic_shapes=(axes, axes),
        )
    if written is None:
        raise RuntimeError("the exporter returned no model")
    written.model.metadata_props.update(
        {"image": "float32 (B, 3, H, W) in [-1, 1]", "mask": "float32 (B, 1, H, W), 1 = hole", "multiple": "8"}
    )
    with _replacing(path) as partial:
        written.save(str(partial))


def write_torch(program: ExportedProgram, path: Path) -> None:
    """Write a traced completer for `torch.export.load`, whole or not at all."""
    with _replacing(path) as partial:
        torch.export.save(program, partial)


def example(size: Size) -> tuple[Tensor, Tensor]:
    """Return smooth random images in [-1, 1] and masks with a hole of another place in each image."""
    batch, height, width = size
    random = torch.Generator().manual_seed(height * 10007 + width)
    coarse = torch.rand(batch, 3, height // 8, width // 8, generator=random) * 2 - 1
    image = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    mask = torch.zeros(batch, 1, height, width)
    for i in range(batch):
        top, left = (3 * i + 2) % (height // 2), (5 * i + 3) % (width // 2)
        mask[i, :, top : top + height // 3, left : left + width // 3] = 1
    return image, mask


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Lend a name beside the target (of the same suffix, which the writers demand) and rename it when it is written."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's hundreds of notes on nodes, and on packages that it does not need, off the screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
