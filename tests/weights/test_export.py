"""Exported files compute what the network computes, at sizes that the tracing never saw, with and without torch."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hydra import compose, initialize_config_module
from PIL import Image
from torch import Tensor, nn

from gicinpaint import ContextualAttention, Generator
from gicinpaint.attention.layer import nearest_index, resize_nearest
from gicinpaint.config.validation import ConfigurationError, JobError
from gicinpaint.inference.inpainter import Inpainter
from gicinpaint.models.generator import CoarseGenerator
from gicinpaint.weights.export import (
    Completer,
    compare,
    example,
    export,
    open_torch,
    trace,
    write_torch,
)
from gicinpaint.weights.onnx_file import open_onnx, write_onnx
from gicinpaint.weights.pretrained import save_generator

ROOT = Path(__file__).parents[2]
OUTPUTS = ("completed", "coarse", "refined", "offset")
SIZES = [(1, 64, 64), (3, 128, 96), (2, 40, 136)]


@pytest.fixture(scope="module")
def completer() -> Completer:
    torch.manual_seed(0)
    return Completer(Generator(width=4), OUTPUTS)  # its own attention is the tiled one


@pytest.fixture(scope="module")
def files(completer: Completer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    program = trace(completer)
    write_onnx(program, OUTPUTS, folder / "generator.onnx")
    write_torch(program, folder / "generator.pt2")
    assert sorted(path.name for path in folder.iterdir()) == ["generator.onnx", "generator.pt2"]
    return folder


@pytest.fixture(scope="module")
def pixels(completer: Completer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixels") / "generator.onnx"
    write_onnx(trace(Completer(completer.generator)), ("completed",), path, uint8=True)
    return path


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_onnx_runtime_equals_the_network_of_the_tiled_attention(files: Path, size: tuple[int, int, int]) -> None:
    # the network as it was built, not the exported copy of it
    torch.manual_seed(0)
    network = Generator(width=4).eval()
    image, mask = example(size)
    with torch.inference_mode():
        completion = network(image * (1 - mask), mask, return_offset=True)
    completed, coarse, refined, offset = (torch.as_tensor(x) for x in open_onnx(files / "generator.onnx")(image, mask))
    hole = mask.bool().expand_as(image)
    torch.testing.assert_close(refined, completion.refined, atol=1e-4, rtol=0)
    torch.testing.assert_close(completed[hole], completion.refined[hole], atol=1e-4, rtol=0)
    torch.testing.assert_close(coarse[hole], completion.coarse[hole], atol=1e-4, rtol=0)
    assert torch.equal(completed[~hole], image[~hole])
    assert (offset != completion.offset).float().mean() < 0.02  # equally good keys may be told apart by rounding


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_loaded_program_equals_the_network(files: Path, completer: Completer, size: tuple[int, int, int]) -> None:
    assert compare(open_torch(files / "generator.pt2"), completer, size).difference <= 1e-6


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_openvino_equals_the_network(files: Path, completer: Completer, size: tuple[int, int, int]) -> None:
    """OpenVINO is the extra `openvino`; in single precision, as its default may be another on some processors."""
    openvino = pytest.importorskip("openvino", reason="needs the extra openvino")
    compiled = openvino.Core().compile_model(files / "generator.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image, mask = example(size)
    found = [torch.from_numpy(x) for x in compiled([image.numpy(), mask.numpy()]).values()]
    with torch.inference_mode():
        expected = completer(image, mask)
    for name, actual, wanted in zip(OUTPUTS[:3], found, expected, strict=False):
        torch.testing.assert_close(actual, wanted, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert (found[3] != expected[3]).float().mean() < 0.02  # equally good keys may be told apart by rounding


def test_every_mask_counts_for_its_own_image(files: Path) -> None:
    run = open_onnx(files / "generator.onnx")
    image, mask = example((2, 32, 48))
    together = run(image, mask)[0]
    alone = [run(image[i : i + 1], mask[i : i + 1])[0] for i in range(2)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


def test_mirrored_padding_can_be_exported(tmp_path: Path) -> None:
    torch.manual_seed(1)
    completer = Completer(CoarseGenerator(width=4, padding="mirror"))
    write_onnx(trace(completer), ("completed",), tmp_path / "generator.onnx")
    assert compare(open_onnx(tmp_path / "generator.onnx"), completer, (2, 72, 40)).difference <= 1e-4


def test_a_residual_generator_can_be_exported(tmp_path: Path) -> None:
    torch.manual_seed(2)
    completer = Completer(Generator(width=4, residual=True))
    program = trace(completer)
    write_onnx(program, ("completed",), tmp_path / "generator.onnx")
    for size in SIZES:
        assert compare(open_onnx(tmp_path / "generator.onnx"), completer, size).difference <= 1e-4
        assert compare(program.module(), completer, size).difference <= 1e-6


class Resize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return resize_nearest(x, (x.shape[-2] // 2, x.shape[-1] // 4))


def test_exported_nearest_resize_rounds_as_the_released_code_at_every_size() -> None:
    axes = {2: 2 * torch.export.Dim("half"), 3: 4 * torch.export.Dim("quarter")}
    program = torch.export.export(Resize(), (torch.zeros(1, 1, 8, 12),), dynamic_shapes=(axes,)).module()
    for half in range(2, 700):
        height, width = 2 * half, 4 * half
        rows = torch.arange(float(height))[:, None].expand(-1, 8)[None, None]
        columns = torch.arange(float(width)).expand(4, -1)[None, None]
        assert program(rows)[0, 0, :, 0].tolist() == nearest_index(height, height // 2)
        assert program(columns)[0, 0, 0].tolist() == nearest_index(width, width // 4)


def test_outputs_that_a_generator_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outputs must be some of completed, coarse for this generator"):
        Completer(CoarseGenerator(width=4), ["refined"])
    with pytest.raises(ValueError, match=r"some of completed, coarse, refined for"):
        Completer(Generator(width=4, attention=None), ["offset"])
    with pytest.raises(ValueError, match="attention must take every patch to be exported, got stride=2"):
        Completer(Generator(width=4, attention=ContextualAttention(stride=2)))


def test_the_generator_itself_keeps_its_attention() -> None:
    attention = ContextualAttention()
    backend = attention.backend
    Completer(Generator(width=4, attention=attention))
    assert attention.backend is backend


@pytest.mark.parametrize("size", [(64, 64), (45, 61)], ids=str)
def test_the_example_runs_without_torch_and_equals_the_inpainter(
    files: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    picture = small.resize(size[::-1], Image.Resampling.BICUBIC)
    hole = np.zeros(size, bool)
    hole[10:30, 20:44] = hole[-5:, -9:] = True
    picture.save(tmp_path / "picture.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    site = tmp_path / "site"  # everything that the example needs, and nothing else
    site.mkdir()
    for package in ("numpy", "numpy.libs", "PIL", "pillow.libs", "onnxruntime", "flatbuffers", "google", "packaging"):
        found = Path(np.__file__).parents[1] / package
        if found.exists():
            (site / package).symlink_to(found)
    code = (
        f"import sys, runpy, importlib.util; sys.path.insert(0, {str(site)!r})\n"
        "assert importlib.util.find_spec('torch') is None\n"
        f"runpy.run_path({str(ROOT / 'examples' / 'inpaint_onnx.py')!r}, run_name='__main__')"
    )
    names = ["picture.png", "mask.png", "filled.png"]
    arguments = [str(files / "generator.onnx"), *(str(tmp_path / name) for name in names)]
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    filled = np.asarray(Image.open(tmp_path / "filled.png")).astype(int)
    torch.manual_seed(0)
    expected = Inpainter(Generator(width=4), device="cpu")(np.asarray(picture), hole).astype(int)
    assert np.array_equal(filled[~hole], np.asarray(picture)[~hole])
    assert np.abs(filled - expected).max() <= 1
    assert (filled != np.asarray(picture))[hole].mean() > 0.5


@pytest.mark.parametrize("size", [(64, 64), (45, 61), (9, 130)], ids=str)
def test_a_file_of_pixels_equals_the_inpainter_at_any_size(pixels: Path, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    images, masks = random.integers(0, 256, (2, *size, 3), np.uint8), np.zeros((2, *size), np.uint8)
    masks[0, 2:7, 20:44] = masks[1, 3:8, -9:] = 255
    masks[0, 0, 0], masks[1, 0, 0] = 128, 127  # the first hole level, and the last known one
    session = onnxruntime.InferenceSession(str(pixels), providers=["CPUExecutionProvider"])
    completed = session.run(None, {"image": images, "mask": masks})[0]
    assert completed.dtype == np.uint8
    torch.manual_seed(0)
    inpainter = Inpainter(Generator(width=4), device="cpu")
    for image, mask, filled in zip(images, masks > 127, completed, strict=True):
        assert np.array_equal(filled[~mask], image[~mask])
        assert np.abs(filled.astype(int) - inpainter(image, mask)).max() <= 1
        assert (filled != image)[mask].mean() > 0.5


def test_a_file_of_pixels_is_compared_with_the_network_to_a_level(pixels: Path, completer: Completer) -> None:
    only = Completer(completer.generator)
    assert compare(open_onnx(pixels), only, (2, 32, 48), uint8=True).difference <= 1.01 / 127.5
    assert compare(lambda image, _: [image + 0.1], only, (2, 32, 48), uint8=True).difference > 1.01 / 127.5


def test_an_output_that_is_no_number_differs_whatever_the_other_outputs_are(completer: Completer) -> None:
    image, mask = example((1, 16, 16))
    with torch.inference_mode():
        expected = completer(image, mask)
    for wrong in range(3):
        actual = [value * torch.nan if number == wrong else value for number, value in enumerate(expected)]
        assert compare(lambda *_, actual=actual: actual, completer, (1, 16, 16)).difference == torch.inf


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Return the job as a function of overrides; it runs in a folder of its own that holds a model."""
    torch.manual_seed(0)
    save_generator(CoarseGenerator(width=4), tmp_path / "model")  # quick to trace
    monkeypatch.chdir(tmp_path)
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        yield lambda *overrides: export(compose("export", overrides=["output=exported", *overrides]))


def test_the_command_writes_checked_files(tmp_path: Path) -> None:
    save_generator(CoarseGenerator(width=4), tmp_path / "model")
    overrides = ["checkpoint=model", "output=exported", "check_sizes=[[1,64,64],[2,32,72]]"]
    command = [sys.executable, "-m", "gicinpaint.cli", "export", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == ["generator.onnx", "generator.pt2"]
    assert "2 x 32x72" in result.stdout
    lines = result.stderr.splitlines()
    noise = [line for line in lines if line and not re.match(r"tracing|(writing|checking) gen", line)]
    assert noise == []  # the exporter has warnings of its own
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "model"]  # no folder with a log


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("checkpoint=absent.ckpt", JobError, r"absent\.ckpt must be a model's file or folder"),
        ("outputs=[offset]", JobError, "outputs must be some of completed, coarse"),
        (f"output={__file__}", JobError, "test_export.py is a file; name a folder"),
        ("formats=[onix]", ConfigurationError, r"formats: expected a list \(one of onnx, torch each\)"),
        ("check_sizes=[[1,60,64]]", ConfigurationError, r"multiples of 8 from 16 on, got \[1, 60, 64\]"),
        ("check_sizes=[[1,8,64]]", ConfigurationError, "multiples of 8 from 16 on"),
        ("check_sizes=[]", ConfigurationError, "check_sizes: expected at least one size, got none"),
        ("uint8=true", ConfigurationError, r"uint8: expected formats=\[onnx\] and outputs=\[completed\]"),
        ("tolerance=much", ConfigurationError, "tolerance: expected a number"),
    ],
)
def test_mistakes_are_named(job: Callable[..., None], override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        job("checkpoint=model", override)


def test_a_file_that_differs_is_removed(job: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"differed from the network by .* it was removed"):
        job("checkpoint=model", "formats=[torch]", "check_sizes=[[1,16,16]]", "tolerance=-1")
    assert not list((tmp_path / "exported").iterdir())
