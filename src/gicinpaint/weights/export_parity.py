"""Exported files opened again and compared with the network."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gicinpaint.weights.export_program import Completer, Size, example

Run = Callable[[Tensor, Tensor], Sequence[Tensor | np.ndarray]]


class Check(NamedTuple):
    """How an exported file compares with the network at one size.

    Attributes:
        size: Batch, height and width.
        difference: Largest absolute difference of any output, in the network's range [-1, 1]; of offsets, the share of
            cells that differ.
        network_seconds: What the network took, on the CPU.
        file_seconds: What the exported file took.
    """

    size: Size
    difference: float
    network_seconds: float
    file_seconds: float


def open_onnx(path: Path) -> Run:
    """Return a function that runs an ONNX file in ONNX Runtime on the CPU.

    Raises:
        ImportError: If ONNX Runtime is absent.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("ONNX Runtime is absent; install it with pip install 'gicinpaint[export]'") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor, mask: Tensor) -> Sequence[np.ndarray]:
        return session.run(None, {"image": image.numpy(), "mask": mask.numpy()})

    return run


def open_torch(path: Path) -> Run:
    """Return a function that runs a file of torch.export."""
    program = torch.export.load(path).module()
    return lambda image, mask: program(image, mask)


@torch.inference_mode()
def compare(run: Run, completer: Completer, size: Size) -> Check:
    """Run an exported file and the network on the same random images with holes, one hole per image."""
    image, mask = example(size)
    begin = time.perf_counter()
    expected = completer(image, mask)
    between = time.perf_counter()
    actual = run(image, mask)
    end = time.perf_counter()
    return Check(size, max(map(_difference, actual, expected)), between - begin, end - between)


def _difference(actual: Tensor | np.ndarray, expected: Tensor) -> float:
    found = torch.as_tensor(actual)
    if found.shape != expected.shape:
        return float("inf")
    if not expected.is_floating_point():  # offsets: keys that are equally good may be told apart by rounding
        return (found != expected).double().mean().item()
    return (found.double() - expected.double()).abs().max().item()
