"""The Triton backend: what its kernels compute in Triton's interpreter, and that they compile for GPUs.

Triton decides when it is imported whether it interprets, so both run in processes of their own.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

from gicinpaint.attention import ContextualAttention, triton_rows
from gicinpaint.attention.triton_rows import patch_cells, wrapped_cells

needs_triton = pytest.mark.skipif(triton_rows.triton is None, reason="triton is not installed")

COMPARED = """
import json
import torch
from gicinpaint.attention import ContextualAttention, ReferenceAttention
from gicinpaint.attention.triton_rows import TritonAttention

def results(backend, foreground, background, mask, settings):
    leaves = [x.clone().requires_grad_() for x in (foreground, background)]
    output, offset = ContextualAttention(**settings, backend=backend)(*leaves, mask, return_offset=True)
    weights = torch.arange(output.numel(), dtype=output.dtype).sin().view_as(output)
    return [output.detach(), offset, *torch.autograd.grad((output * weights).sum(), leaves)]

rng, found = torch.Generator().manual_seed(0), []
for settings, query_grid, key_grid, hole in (
    ({}, (12, 8), (8, 14), 0.1),
    ({"rate": 1, "patch_size": 5, "propagation_size": 5, "softmax_scale": 0.3}, (5, 7), (6, 4), 0.02),
    ({"propagate": False}, (6, 6), (6, 6), 0.0),
    ({"propagation_size": 7}, (4, 4), (6, 2), 0.05),
    ({"rate": 1}, (1, 3), (17, 16), 1.0),  # more keys than a tile has, all of them invalid
):
    foreground, background = (
        torch.randn(2, 3, *grid, generator=rng, dtype=torch.float64) for grid in (query_grid, key_grid)
    )
    foreground[1, :, :2], background[1, :, -2:] = 0, 0
    mask = (torch.rand(2, 1, *key_grid, generator=rng) < hole).double()
    problem = foreground, background, mask, settings
    pairs = zip(results(TritonAttention(), *problem), results(ReferenceAttention(), *problem), strict=True)
    found.append([float((x - y).abs().max()) for x, y in pairs])

small = [torch.randn(1, 2, *grid, generator=rng, dtype=torch.float64).requires_grad_() for grid in ((2, 3), (3, 2))]
layer = ContextualAttention(rate=1, backend=TritonAttention())
torch.autograd.gradcheck(layer, small)
half = torch.randn(1, 4, 8, 8, generator=rng).bfloat16()
outputs = [ContextualAttention(backend=b)(half) for b in (TritonAttention(), ReferenceAttention())]
found.append([float((outputs[0] - outputs[1]).abs().max())])
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), ContextualAttention(backend=TritonAttention()))
image = torch.randn(1, 3, 8, 8, generator=rng)
compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
found.append([float((compiled(image) - network(image)).abs().max())])
gradient = torch.autograd.grad(layer(*small).square().sum(), small[0], create_graph=True)[0]
try:
    gradient.sum().backward()
except RuntimeError as error:
    refusal = str(error)
print(json.dumps([found, refusal]))
"""
COMPILED = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gicinpaint.attention.triton_rows import KEYS, QUERIES, _attend_kernel, _sum_kernel

sizes, found = {"steps": 9, "queries": QUERIES, "keys": KEYS}, []
for kernel in (_sum_kernel, _attend_kernel):
    for number in ("fp32", "fp64"):
        integers = {"rows": "i32", "count": "i32", "query_cells": "*i32", "key_cells": "*i32"}
        kinds = {name: integers.get(name, f"*{number}") for name in kernel.arg_names if name not in sizes}
        source = ASTSource(kernel, kinds | dict.fromkeys(sizes, "constexpr"), sizes)
        for capability in (80, 90):
            binary = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            found.append([len(binary.asm["cubin"]), f".target sm_{capability}" in binary.asm["ptx"]])
print(json.dumps(found))
"""


def output_of(program: str, interpret: bool) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_INTERPRET": "1"} if interpret else {}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@needs_triton
def test_interpreted_kernels_equal_the_reference_forward_and_backward() -> None:
    (*problems, half, compiled), refusal = json.loads(output_of(COMPARED, interpret=True))
    assert len(problems) == 5
    for output, offset, *gradients in problems:
        assert output < 1e-10
        assert offset == 0
        assert max(gradients) < 1e-9
    assert half[0] < 0.02  # a step of bfloat16
    assert compiled[0] < 1e-5
    assert "no second gradient" in refusal


@needs_triton
def test_kernels_compile_for_gpus_ahead_of_time() -> None:
    for size, right_target in json.loads(output_of(COMPILED, interpret=False)):
        assert size > 1000
        assert right_target


@needs_triton
def test_features_on_the_cpu_are_refused_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_rows.triton.knobs.runtime, "interpret", False)
    with pytest.raises(ValueError, match="needs features on a GPU, got cpu; use attention=tiled"):
        ContextualAttention(backend=triton_rows.TritonAttention())(torch.zeros(1, 2, 4, 4))


def test_a_patch_has_the_cells_around_and_none_outside() -> None:
    # Expected by hand: a grid of 2 x 3, numbered row by row, and the patch of its first and of its fifth cell.
    cells = patch_cells((2, 3), 1, torch.device("cpu")).t().tolist()
    assert cells[0] == [-1, -1, -1, -1, 0, 1, -1, 3, 4]
    assert cells[4] == [0, 1, 2, 3, 4, 5, -1, -1, -1]


def test_propagation_goes_on_in_the_next_row_and_column() -> None:
    # Expected by hand on the same grid, whose cells in the order of its columns are 0 3 1 4 2 5.
    cells = wrapped_cells((2, 3), 1, torch.device("cpu")).t().tolist()
    assert cells[0] == [-1, -1, -1, -1, 0, 1, 2, 3, 4]
    transposed = wrapped_cells((2, 3), 1, torch.device("cpu"), columns_first=False).t().tolist()
    assert transposed[0] == [-1, -1, -1, -1, 0, 3, 3, 1, 4]


def test_without_triton_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_rows, "triton", None)
    with pytest.raises(ImportError, match=r"pip install 'gicinpaint\[triton\]'"):
        triton_rows.TritonAttention()
