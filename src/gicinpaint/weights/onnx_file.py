"""Exported generators as ONNX files: written, run in ONNX Runtime, and with 8-bit images of any size in and out."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from gicinpaint.config.atomic_files import atomic_file

Run = Callable[[Tensor, Tensor], Sequence[Tensor | np.ndarray]]

_INSTALL = "install it with pip install 'gicinpaint[export]'"
# Positions 0, 1, ..., size - 1, size - 1, ..., 0, 0, 1, ... up to a multiple of 8 mirror an axis at its end.
_POSITIONS = """
    {axis}_size = Shape <start = {number}, end = {next}> (image)
    {axis}_more = Add ({axis}_size, seven)
    {axis}_eights = Div ({axis}_more, eight)
    {axis}_padded = Mul ({axis}_eights, eight)
    {axis}_end = Squeeze ({axis}_padded)
    {axis}_count = Range (zero, {axis}_end, one)
    {axis}_double = Mul ({axis}_size, two)
    {axis}_place = Mod ({axis}_count, {axis}_double)
    {axis}_last = Sub ({axis}_double, one)
    {axis}_back = Sub ({axis}_last, {axis}_place)
    {axis} = Min ({axis}_place, {axis}_back)
"""
_PIXELS = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
pixels (uint8[batch, image_height, image_width, 3] image, uint8[batch, image_height, image_width] mask)
    => (uint8[batch, image_height, image_width, 3] completed)
{{
    zero = Constant <value = int64 {{0}}> ()
    one = Constant <value = int64 {{1}}> ()
    two = Constant <value = int64 {{2}}> ()
    seven = Constant <value = int64 {{7}}> ()
    eight = Constant <value = int64 {{8}}> ()
    middle = Constant <value = float {{127.5}}> ()
    low = Constant <value = float {{-1.0}}> ()
    high = Constant <value = float {{1.0}}> ()
    channel = Constant <value = int64[1] {{1}}> ()
    colours = Constant <value = int64[1] {{3}}> ()
    corner = Constant <value = int64[2] {{0, 0}}> ()
    plane = Constant <value = int64[2] {{2, 3}}> ()
    {rows}
    {columns}
    levels = Cast <to = 1> (image)
    scaled = Div (levels, middle)
    centred = Sub (scaled, high)
    tall = Gather <axis = 1> (centred, rows)
    wide = Gather <axis = 2> (tall, columns)
    core_image = Transpose <perm = [0, 3, 1, 2]> (wide)
    brightness = Cast <to = 1> (mask)
    hole = Greater (brightness, middle)
    inside = Cast <to = 1> (hole)
    tall_hole = Gather <axis = 1> (inside, rows)
    wide_hole = Gather <axis = 2> (tall_hole, columns)
    core_mask = Unsqueeze (wide_hole, channel)
    size = Concat <axis = 0> (rows_size, columns_size)
    cropped = Slice (core_completed, corner, size, plane)
    bounded = Clip (cropped, low, high)
    raised = Add (bounded, high)
    spread = Mul (raised, middle)
    whole = Round (spread)
    bytes = Cast <to = 2> (whole)
    pixels = Transpose <perm = [0, 2, 3, 1]> (bytes)
    where = Unsqueeze (hole, colours)
    completed = Where (where, pixels, image)
}}
"""


def write_onnx(program: ExportedProgram, outputs: Sequence[str], path: Path, *, uint8: bool = False) -> None:
    """Write a traced completer as ONNX, its inputs named image and mask, whole or not at all.

    With uint8, completed is the one output, and it takes and returns 8-bit images of any size, see `around_pixels`.
    """
    try:
        import onnxscript  # noqa: F401  (the exporter's own message does not name the extra)
    except ImportError as error:
        raise ImportError(f"onnxscript is absent; {_INSTALL}") from error
    axes = {0: "batch", 2: "height", 3: "width"}
    with quiet():
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
    facts = {"image": "float32 (B, 3, H, W) in [-1, 1]", "mask": "float32 (B, 1, H, W), 1 = hole", "multiple": "8"}
    if uint8:
        facts = {"image": "uint8 (B, H, W, 3), red, green, blue", "mask": "uint8 (B, H, W), hole above 127"}
    written.model.metadata_props.update(facts)
    with atomic_file(path) as partial:
        if uint8:
            partial.write_bytes(around_pixels(written.model_proto).SerializeToString())
        else:
            written.save(str(partial))


def around_pixels(core: Any) -> Any:
    """Return an ONNX model with 8-bit images of any size, (B, H, W, 3), in and out, around one of planes in [-1, 1].

    It scales, mirrors to a multiple of 8, crops, rounds and keeps the known pixels to the bit, as `Inpainter` does. The
    mask is (B, H, W), a hole above 127.
    """
    from onnx import compose, parser

    axes = (("rows", 1), ("columns", 2))
    positions = {name: _POSITIONS.format(axis=name, number=n, next=n + 1) for name, n in axes}
    opset = next(one.version for one in core.opset_import if not one.domain)
    outer = parser.parse_model(_PIXELS.format(ir=core.ir_version, opset=opset, **positions))
    model = compose.add_prefix(core, "core_")
    first = next(i for i, node in enumerate(outer.graph.node) if "core_completed" in node.input)
    nodes = [*outer.graph.node[:first], *model.graph.node, *outer.graph.node[first:]]
    for field, values in (("node", nodes), ("input", outer.graph.input), ("output", outer.graph.output)):
        kept = list(values)
        del getattr(model.graph, field)[:]
        getattr(model.graph, field).extend(kept)
    return model


def to_levels(image: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8."""
    return ((image + 1) * 127.5).round().to(torch.uint8)


def to_float(levels: Tensor) -> Tensor:
    """Return uint8 images in [-1, 1]."""
    return levels / 127.5 - 1


def open_onnx(path: Path) -> Run:
    """Return a function that runs an ONNX file on the CPU, on tensors in [-1, 1] whatever it takes."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"ONNX Runtime is absent; {_INSTALL}") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    if session.get_inputs()[0].type != "tensor(uint8)":
        return lambda image, mask: session.run(None, {"image": image.numpy(), "mask": mask.numpy()})

    def run(image: Tensor, mask: Tensor) -> list[Tensor]:
        levels = to_levels(image).permute(0, 2, 3, 1).contiguous()
        given = {"image": levels.numpy(), "mask": (255 * mask[:, 0]).to(torch.uint8).numpy()}
        return [to_float(torch.as_tensor(session.run(None, given)[0]).permute(0, 3, 1, 2))]

    return run


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's hundreds of notes on nodes, and on packages that it does not need, off the screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
