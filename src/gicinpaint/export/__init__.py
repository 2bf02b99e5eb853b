"""A generator outside this package: as ONNX and as a program of torch.export."""

from gicinpaint.export.parity import Check, compare, open_onnx, open_torch
from gicinpaint.export.program import Completer, trace, write_onnx, write_torch

__all__ = ["Check", "Completer", "compare", "open_onnx", "open_torch", "trace", "write_onnx", "write_torch"]
