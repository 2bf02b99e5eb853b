"""The layer's errors, and the contract that every backend keeps.

Backends are found, not listed: every yaml of conf/attention that builds a layer is held to the same tests. Expected
values come from the golden files (the authors' TensorFlow code) and from the literal reference backend in float64,
which the golden files hold in turn.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

import golden
from gicinpaint.attention import ContextualAttention, ReferenceAttention, TiledAttention
from gicinpaint.attention.attention_map import overhear

OPTIONS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "conf" / "attention").glob("*.yaml"))}
# Triton's kernels run on a GPU, or in its interpreter, which takes minutes here: see test_triton.py.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = [
    name for name, path in OPTIONS.items() if "_target_" in OmegaConf.load(path) and (name != "triton" or INTERPRETED)
]
Build = Callable[..., ContextualAttention]


@pytest.fixture(params=BACKENDS)
def build(request: pytest.FixtureRequest) -> Build:
    """Return a function that builds the layer of one yaml with other settings."""
    return _builder(request.param)


def _builder(name: str) -> Build:
    return lambda **settings: instantiate(OmegaConf.load(OPTIONS[name]), **settings, _convert_="all")


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _gradients(layer: ContextualAttention, *inputs: Tensor | None) -> list[Tensor]:
    leaves = [x if x is None else x.detach().clone().requires_grad_() for x in inputs[:2]]
    output = layer(*leaves, *inputs[2:])
    weights = _random(*output.shape, seed=99).to(output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), [x for x in leaves if x is not None])]


# --- The contract -------------------------------------------------------------------------------------------------


def test_backends_were_found() -> None:
    assert {"reference", "unfold"} <= set(BACKENDS)


@pytest.mark.parametrize(
    "path", golden.paths("ca_*.npz") + golden.paths_v2("ca_*.npz"), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_backend_meets_the_golden_files(build: Build, path: Path) -> None:
    case = golden.load(path)
    meta, mask = case["meta"], case.get("mask")
    layer = build(
        patch_size=meta["ksize"],
        rate=meta["rate"],
        propagation_size=meta["fuse_k"],
        softmax_scale=meta["softmax_scale"],
        propagate=meta["fuse"],
    )
    foreground, background = (case[name].clone().requires_grad_() for name in "fb")
    output, offset = layer(foreground, background, mask, return_offset=True)
    small = float(case["y"].abs().max())  # case 22 lives at 1e-4
    torch.testing.assert_close(output, case["y"], atol=1e-4 * min(small, 1.0), rtol=0)
    clear = torch.ones_like(case["argmax_index"], dtype=torch.bool)
    if "attention_top1" in case:
        clear = case["attention_top1"] - case["attention_top2"] >= 1e-4 * case["attention_top1"]
    index = offset[:, 0] * (background.shape[-1] // meta["rate"]) + offset[:, 1]
    assert offset.dtype == torch.int64
    assert torch.equal(index[clear], case["argmax_index"][clear].long())
    if "grad_f" in case:
        gradients = torch.autograd.grad((output * case["g"]).sum(), (foreground, background))
        assert golden.relative_norm(gradients[0], case["grad_f"]) < 1e-3
        assert golden.relative_norm(gradients[1], case["grad_b"]) < 1e-3
    if "grad_x" in case:
        (layer(foreground, mask=mask) * case["g"]).sum().backward()
        assert golden.relative_norm(foreground.grad, case["grad_x"]) < 1e-3


class Case(NamedTuple):
    """A random problem: settings of the layer, and its inputs in float64."""

    settings: dict[str, Any]
    foreground: Tensor
    background: Tensor | None
    mask: Tensor | None


def _features(shape: tuple[int, ...], kind: str, layout: str, seed: int) -> Tensor:
    x = _random(*shape, seed=seed)
    if kind == "half_zero":  # zero patches beside others, as after a ReLU
        x = x.relu()
        x[..., : shape[-1] // 2] = 0
    elif kind == "zero":
        x = torch.zeros_like(x)
    elif kind == "tiny":  # patch norms on both sides of the floor 1e-4
        x = x * 1e-4 / (9 * shape[1]) ** 0.5
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    return x.mT.contiguous().mT if layout == "strided" else x


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = st.integers(1, 6)
    rate, batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["normal", "half_zero", "zero", "tiny"]))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "strided"]))
    seed = draw(st.integers(0, 2**31))

    def grid() -> tuple[int, int]:
        return rate * draw(size), rate * draw(size)

    foreground = _features((batch, channels, *grid()), kind, layout, seed)
    background = _features((batch, channels, *grid()), kind, layout, seed + 1) if draw(st.booleans()) else None
    key_grid = (foreground if background is None else background).shape[-2:]
    hole = draw(st.sampled_from([None, 0.0, 0.05, 0.3, 1.0]))
    mask = None
    if hole is not None:
        uniform = torch.rand(
            draw(st.sampled_from([1, batch])), 1, *key_grid, generator=torch.Generator().manual_seed(seed)
        )
        mask = (uniform < hole).double()
    chosen = {
        "rate": rate,
        "patch_size": draw(st.sampled_from([1, 3, 3, 5])),
        "propagation_size": draw(st.sampled_from([1, 3, 3, 5])),
        "softmax_scale": draw(st.sampled_from([1.0, 10.0])),
        "propagate": draw(st.booleans()),
    }
    return Case(chosen, foreground, background, mask)


@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases())
def test_every_backend_equals_the_reference_in_float64(name: str, case: Case) -> None:
    layer, judge = _builder(name)(**case.settings), ContextualAttention(**case.settings, backend=ReferenceAttention())
    inputs = case.foreground, case.background, case.mask
    before = [None if x is None else x.clone() for x in inputs]
    actual, expected = _gradients(layer, *inputs), _gradients(judge, *inputs)
    torch.testing.assert_close(actual[0], expected[0], atol=1e-9, rtol=1e-9)
    for gradient, right in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(gradient, right, atol=1e-9 * max(1.0, float(right.abs().max())), rtol=1e-9)
    output, offset = layer(*inputs, return_offset=True)  # no input requires a gradient here
    torch.testing.assert_close(output, expected[0], atol=1e-9, rtol=1e-9)
    assert not output.requires_grad
    _assert_offsets_are_best(offset, case)
    for x, copy in zip(inputs, before, strict=True):
        assert x is None or torch.equal(x, copy)  # no input was written to


def _assert_offsets_are_best(offset: Tensor, case: Case) -> None:
    """Compare by score: rounding may decide between keys that are equally good."""
    judge = AttentionOfReference()
    ContextualAttention(**case.settings, backend=judge)(case.foreground, case.background, case.mask)
    attention = judge.attention  # (B, keys, h, w)
    index = (offset[:, 0] * judge.key_width + offset[:, 1])[:, None]
    torch.testing.assert_close(attention.gather(1, index), attention.amax(1, keepdim=True), atol=1e-12, rtol=1e-9)


class AttentionOfReference(ReferenceAttention):
    """The reference backend that keeps the attention of the last call."""

    def __call__(self, foreground: Tensor, background: Tensor, valid: Tensor, **rest: Any) -> Tensor:  # type: ignore[override]
        from gicinpaint.attention.reference import attend, match, spread

        attention = []
        for i, image_valid in enumerate(valid.expand(len(foreground), -1, -1)):
            scores = match(foreground[i : i + 1], background[i : i + 1], rest["patch_size"])
            if rest["propagate"]:
                scores = spread(scores, background.shape[-2:], rest["propagation_size"])
            attention.append(attend(scores, image_valid, rest["softmax_scale"]))
        self.attention, self.key_width = torch.cat(attention), background.shape[-1]
        return foreground


@pytest.mark.parametrize("kind", ["normal", "half_zero", "tiny"])
def test_every_backend_is_close_to_the_reference_in_float32(build: Build, kind: str) -> None:
    foreground = _features((2, 16, 24, 32), kind, "contiguous", 3)
    mask = torch.zeros(2, 1, 24, 32)
    mask[0, :, 4:14, 8:20] = 1
    mask[1, :, 0:6, :] = 1
    expected = _gradients(ContextualAttention(backend=ReferenceAttention()), foreground, None, mask)
    actual = _gradients(build(), foreground.float(), None, mask)
    torch.testing.assert_close(
        actual[0], expected[0].float(), atol=1e-4 * min(1, float(foreground.abs().max())), rtol=0
    )
    assert golden.relative_norm(actual[1], expected[1]) < 1e-3


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_every_image_of_a_batch_equals_its_own_batch_of_one(build: Build, size: tuple[int, int]) -> None:
    features = _random(3, 8, *size, seed=4, dtype=torch.float32).relu()
    masks = torch.zeros(3, 1, *size)
    masks[0, :, 3:9, 2:10] = 1
    masks[1, :, :, : size[1] // 2] = 1
    whole, gradient = _gradients(build(), features, None, masks)
    weights = _random(*whole.shape, seed=99).float()
    for i in range(3):
        image = features[i : i + 1].clone().requires_grad_()
        alone = build()(image, mask=masks[i : i + 1])
        (alone * weights[i : i + 1]).sum().backward()
        torch.testing.assert_close(whole[i : i + 1], alone.detach(), atol=1e-5, rtol=0)
        torch.testing.assert_close(gradient[i : i + 1], image.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"rate": 1}, {"propagate": False}], ids=str)
def test_every_backend_passes_gradcheck(build: Build, settings: dict[str, Any]) -> None:
    rate = settings.get("rate", 2)
    foreground = _random(1, 2, 2 * rate, 3 * rate, seed=5).requires_grad_()
    background = _random(1, 2, 3 * rate, 2 * rate, seed=6).requires_grad_()
    mask = torch.zeros(1, 1, 3 * rate, 2 * rate)
    mask[..., -1, -1] = 1
    layer = build(
        patch_size=1, softmax_scale=2.0, **settings
    )  # patches of one cell, so that the corner alone is masked
    assert torch.autograd.gradcheck(lambda f, b: layer(f, b, mask), (foreground, background))
    assert torch.autograd.gradcheck(build(**settings), (foreground,))


@pytest.mark.parametrize("wanted", ["foreground", "background"])
def test_every_backend_gives_one_gradient_when_only_one_is_wanted(build: Build, wanted: str) -> None:
    inputs = {"foreground": _random(1, 3, 8, 12, seed=7), "background": _random(1, 3, 12, 8, seed=8)}
    inputs[wanted].requires_grad_()
    results = []
    for layer in (build(), ContextualAttention(backend=ReferenceAttention())):
        results.append(torch.autograd.grad(layer(**inputs).square().sum(), inputs[wanted])[0])
    torch.testing.assert_close(results[0], results[1], atol=1e-9, rtol=1e-9)


def test_zero_features_are_attended_evenly_and_the_first_valid_key_is_the_offset(build: Build) -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :2, :2] = 1  # shrunk cell (0, 0), so the keys up to (1, 1) are invalid
    features = torch.zeros(1, 2, 8, 8, requires_grad=True)
    output, offset = build()(features, mask=mask, return_offset=True)
    assert torch.equal(output, torch.zeros_like(output))
    assert torch.equal(offset[:, 0], torch.zeros(1, 4, 4, dtype=torch.int64))
    assert torch.equal(offset[:, 1], torch.full((1, 4, 4), 2))
    output.sum().backward()
    assert features.grad.isfinite().all()


def test_an_image_of_holes_gives_zeros_and_finite_gradients(build: Build) -> None:
    features = _random(2, 3, 8, 12, seed=9, dtype=torch.float32).requires_grad_()
    mask = torch.ones(2, 1, 8, 12)
    mask[1] = 0
    output, offset = build()(features, mask=mask, return_offset=True)
    assert torch.equal(output[0], torch.zeros_like(output[0]))
    assert torch.equal(offset[0], torch.zeros_like(offset[0]))
    assert output[1].abs().max() > 0.01
    output.sum().backward()
    assert features.grad.isfinite().all()
    assert torch.equal(features.grad[0], torch.zeros_like(features.grad[0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_inputs_are_scored_in_float32(build: Build, dtype: torch.dtype) -> None:
    features = _random(2, 8, 16, 16, seed=10).to(dtype)
    expected = _gradients(ContextualAttention(backend=ReferenceAttention()), features.double())
    actual = _gradients(build(), features)
    assert actual[0].dtype == actual[1].dtype == dtype
    step = torch.finfo(dtype).eps  # the rounding of output and gradient alone; scores in bfloat16 would miss by 0.1
    torch.testing.assert_close(actual[0].double(), expected[0], atol=step, rtol=step)
    assert golden.relative_norm(actual[1].double(), expected[1]) < 2 * step


def test_autocast_does_not_lower_the_scores(build: Build) -> None:
    features = _random(1, 8, 16, 16, seed=11, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = build()(features)
    expected = build()(features)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)
    gradients = [torch.autograd.grad(output.square().sum(), features)[0] for output in (actual, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-5)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_every_backend_can_be_traced_by_the_compiler_without_a_break(build: Build) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), build(), torch.nn.Conv2d(4, 2, 1)).double()
    image = _random(1, 3, 12, 16, seed=12)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(network(image).square().sum(), network[0].weight)[0]
    actual = torch.autograd.grad(compiled(image).square().sum(), network[0].weight)[0]
    torch.testing.assert_close(compiled(image), network(image), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


def test_every_backend_leaves_nothing_in_a_checkpoint(build: Build) -> None:
    assert not build().state_dict()


# --- The layer ----------------------------------------------------------------------------------------------------


STRIDED = [name for name in BACKENDS if "stride" in OmegaConf.load(OPTIONS[name])]


def _first(size: int, patch_size: int, stride: int) -> int:
    """Middle of the first of TensorFlow's 'SAME' patches: ceil(size / stride) of them, most padding at the end."""
    count = -(-size // stride)
    return patch_size // 2 - max(0, (count - 1) * stride + patch_size - size) // 2


def _attend_slowly(features: Tensor, mask: Tensor, rate: int, stride: int, propagate: bool) -> Tensor:
    """Return the strided attention of one image, patch by patch; patches of 3 x 3 cells, diagonals of 3."""
    layer = ContextualAttention(rate=rate)
    cells, _, _ = (x[0] for x in layer.prepare(features, None, mask))
    hole, (h, w) = layer._shrink(mask)[0, 0], cells.shape[-2:]
    padded, holes = F.pad(cells, (1, 1, 1, 1)), F.pad(hole, (1, 1, 1, 1))
    queries = [(y, x) for y in range(h) for x in range(w)]
    rows, columns = range(_first(h, 3, stride), h, stride), range(_first(w, 3, stride), w, stride)
    keys = [(y, x) for y in rows for x in columns]
    patches = {(y, x): padded[:, y : y + 3, x : x + 3] for y, x in queries}
    scores = {
        (q, k): float((patches[q] * patches[k]).sum() / max(1e-4, patches[k].norm())) for q in queries for k in keys
    }
    for column_major in (False, True) if propagate else ():
        order = [sorted(cells, key=lambda cell: cell[::-1]) if column_major else cells for cells in (queries, keys)]

        def next_to(q: int, k: int, d: int, order: list[Any] = order, scores: Any = scores) -> float:
            q, k = q + stride * d, k + d
            inside = 0 <= q < len(order[0]) and 0 <= k < len(order[1])
            return scores[order[0][q], order[1][k]] if inside else 0.0

        numbers = [(q, k) for q in range(len(queries)) for k in range(len(keys))]
        scores = {(order[0][q], order[1][k]): sum(next_to(q, k, d) for d in (-1, 0, 1)) for q, k in numbers}
    valid = torch.tensor([float(holes[y : y + 3, x : x + 3].sum() == 0) for y, x in keys], dtype=torch.float64)
    output = torch.zeros(features.shape[1], rate * (h + 2), rate * (w + 2), dtype=torch.float64)
    values = F.pad(features[0], (rate, rate, rate, rate))
    for y, x in queries:
        row = torch.tensor([scores[(y, x), key] for key in keys], dtype=torch.float64)
        for weight, (v, u) in zip(torch.softmax(10 * row * valid, 0) * valid, keys, strict=True):
            (top, left), (high, low) = (
                ((1 + a) * rate - rate // 2, (1 + b) * rate - rate // 2) for a, b in ((y, x), (v, u))
            )
            patch = values[:, high : high + 2 * rate, low : low + 2 * rate]
            output[:, top : top + 2 * rate, left : left + 2 * rate] += weight * patch / 4
    return output[None, :, rate : rate * (h + 1), rate : rate * (w + 1)]


def test_the_reference_takes_a_stride() -> None:
    assert "reference" in STRIDED


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize(("size", "rate", "stride"), [((6, 5), 1, 2), ((4, 7), 2, 2), ((7, 5), 1, 3), ((3, 3), 2, 5)])
@pytest.mark.parametrize("propagate", [True, False])
def test_a_stride_is_that_of_a_slow_loop(
    name: str, size: tuple[int, int], rate: int, stride: int, propagate: bool
) -> None:
    features = _random(1, 2, rate * size[0], rate * size[1], seed=3)
    mask = torch.zeros(1, 1, *features.shape[-2:], dtype=torch.float64)
    mask[..., -rate:, -rate:] = 1  # one cell
    layer = _builder(name)(rate=rate, stride=stride, propagate=propagate)
    output, offset = layer(features, mask=mask, return_offset=True)
    expected = _attend_slowly(features, mask, rate, stride, propagate)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
    for axis in (0, 1):
        assert set((offset[:, axis] % stride).flatten().tolist()) == {_first(size[axis], 3, stride) % stride}


@pytest.mark.parametrize("name", STRIDED)
def test_a_part_of_strided_attention_and_its_rows_are_those_of_the_whole(name: str) -> None:
    features, mask = _random(1, 3, 12, 10, seed=5), torch.zeros(1, 1, 12, 10, dtype=torch.float64)
    mask[..., 4:7, 3:6] = 1
    layer = _builder(name)(rate=1, stride=2)
    with overhear(layer) as calls:
        output, offset = layer(features, mask=mask, return_offset=True)
    part = layer(features, mask=mask, window=(range(4, 7), range(3)))
    torch.testing.assert_close(part, output[..., 4:7, 0:3])
    row = calls[0].row(0, (5, 4))
    assert row.nonzero()[:, 0].remainder(2).eq(1).all()  # of 12 rows every other one from the second on
    assert row.flatten().argmax() == offset[0, 0, 5, 4] * 10 + offset[0, 1, 5, 4]
    whole = features.new_zeros(1, 3, 14, 12)  # each query's patch of 2 x 2 cells, without an overlap: by hand
    for y in range(12):
        for x in range(10):
            values = F.pad(features, (0, 1, 0, 1)).unfold(2, 2, 1).unfold(3, 2, 1)  # (1, 3, 12, 10, 2, 2)
            pasted = (values * calls[0].row(0, (y, x))[None, None, :, :, None, None]).sum((2, 3))
            whole[..., y : y + 2, x : x + 2] += pasted / 4
    torch.testing.assert_close(output, whole[..., :12, :10])


def test_background_defaults_to_the_foreground() -> None:
    features = _random(1, 4, 8, 8)
    torch.testing.assert_close(ContextualAttention()(features), ContextualAttention()(features, features))


def test_offsets_point_to_the_copied_patch() -> None:
    # An orthogonal code per cell: a foreground shifted by one row must point one row further down.
    code = torch.eye(36, dtype=torch.float64).reshape(1, 36, 6, 6)
    shifted = torch.cat((code[:, :, 1:], code[:, :, :1]), dim=2)
    layer = ContextualAttention(rate=1, patch_size=1, propagate=False, softmax_scale=50.0)
    _, offset = layer(shifted, code, return_offset=True)
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    assert torch.equal(offset[0], torch.stack(((rows + 1) % 6, columns)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 2}, "patch_size must be odd .* got 2; use 3"),
        ({"propagation_size": 4}, "propagation_size must be odd .* got 4; use 5"),
        ({"rate": 0}, "rate must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        (
            {"stride": 2, "backend": TiledAttention()},
            "stride=2 needs the backend ReferenceAttention, got TiledAttention",
        ),
    ],
)
def test_wrong_settings_say_what_to_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContextualAttention(**settings)


@pytest.mark.parametrize(
    ("foreground", "background", "mask", "message"),
    [
        ((4, 8, 8), None, None, r"foreground must be .* got torch.float32 \(4, 8, 8\); add the batch"),
        ((1, 4, 7, 8), None, None, "foreground must be multiples of 2, got 7x8; pad it to 8x8"),
        ((1, 4, 8, 8), (1, 4, 8, 10, 1), None, "background must be floating point features"),
        ((1, 4, 8, 8), (1, 4, 9, 8), None, "background must be multiples of 2, got 9x8"),
        ((1, 4, 8, 8), (1, 3, 8, 8), None, r"batch and channels \(1, 4\), got \(1, 3\); take both"),
        ((2, 4, 8, 8), (1, 4, 8, 8), None, r"batch and channels \(2, 4\), got \(1, 4\)"),
        ((1, 4, 8, 8), (1, 4, 10, 8), (1, 1, 8, 8), r"height and width \(10, 8\), got \(8, 8\)"),
        ((3, 4, 8, 8), None, (2, 1, 8, 8), "batch size 3 or 1, got 2"),
        ((1, 4, 8, 8), None, (1, 4, 8, 8), "pass one channel"),
    ],
)
def test_wrong_shapes_say_what_to_do(
    foreground: tuple[int, ...], background: tuple[int, ...] | None, mask: tuple[int, ...] | None, message: str
) -> None:
    inputs = [None if shape is None else torch.zeros(shape) for shape in (foreground, background, mask)]
    with pytest.raises(ValueError, match=message):
        ContextualAttention()(*inputs)


def test_a_mask_that_is_not_binary_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"only 0 .known. and 1 .hole."):
        ContextualAttention()(torch.zeros(1, 4, 8, 8), mask=torch.full((1, 1, 8, 8), 0.5))


def test_two_types_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"type torch.float32, got torch.float64; convert it"):
        ContextualAttention()(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8, dtype=torch.float64))
