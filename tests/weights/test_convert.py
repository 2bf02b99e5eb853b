"""The convert job: from the authors' files to ours and back, and what is refused."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import golden
from gicinpaint import Generator
from gicinpaint.config.validation import JobError
from gicinpaint.models.generator import CoarseGenerator
from gicinpaint.weights import load_weights
from gicinpaint.weights.conversion import check_golden
from gicinpaint.weights.pretrained import load_generator, save_generator
from models import checkpoint, outputs
from models import run_convert as convert


@pytest.mark.parametrize("raw", [False, True])
def test_the_authors_checkpoint_becomes_a_folder_that_holds_the_golden_outputs(
    raw: bool, released: Path, tmp_path: Path
) -> None:
    check = golden.DATA / "ckpt_c8_expected.npz"  # what TensorFlow computed with these weights
    options = (f"source={released}", f"output={tmp_path / 'model'}", f"check={check}", f"raw={raw}")
    code, output, errors = convert(tmp_path, *options)
    assert code == 0, errors
    found = re.search(r"equal to the outputs in .*npz to ([\d.e-]+)", output)
    assert found
    assert float(found[1]) < 1e-4
    assert ("blue, green, red" in output) == raw
    values = golden.load(check.name)
    image, mask = values["x"], values["mask"]
    with torch.no_grad():
        own = load_generator(tmp_path / "model")(image if raw else image.flip(1), mask)
    expected = values["x_stage2"] if raw else values["x_stage2"].flip(1)
    torch.testing.assert_close(own.refined, expected, atol=1e-4, rtol=0)


def test_the_raw_conversion_has_the_authors_weights_to_the_bit(released: Path, tmp_path: Path) -> None:
    assert convert(tmp_path, f"source={released}", f"output={tmp_path / 'model'}", "raw=true")[0] == 0
    state = load_generator(tmp_path / "model").state_dict()
    for name, value in load_weights(released)["generator"].items():
        assert torch.equal(state[name], value), name


def test_folder_to_checkpoint_and_back_keeps_every_bit(tmp_path: Path) -> None:
    generator = Generator(4, padding="mirror")
    generator.trained_size = 96
    save_generator(generator, tmp_path / "a")
    assert '"trained_size": 96' in (tmp_path / "a" / "config.json").read_text()
    assert convert(tmp_path, f"source={tmp_path / 'a'}", f"output={tmp_path / 'b.ckpt'}")[0] == 0
    assert convert(tmp_path, f"source={tmp_path / 'b.ckpt'}", f"output={tmp_path / 'c'}")[0] == 0
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    plain = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert plain["config"]["generator"]["_target_"] == "gicinpaint.models.generator.Generator"


def test_half_precision_of_a_run_is_its_average_rounded_with_a_digest_beside_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    average = Generator(4)
    run = {"dataset.image_size.0": 80, "dataset.image_size.1": 64, "dataset.batch_size": 2}
    checkpoint(tmp_path / "last.ckpt", generator_average=average.state_dict(), run_settings=run)
    options = (f"source={tmp_path / 'last.ckpt'}", f"output={tmp_path / 'half'}", "dtype=float16")
    code, output, errors = convert(tmp_path, *options)
    assert code == 0, errors
    assert load_generator(tmp_path / "half").trained_size == 64
    assert "equal to the original rounded to float16 to " in output
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert stored.keys() == average.state_dict().keys()
    for name, value in average.state_dict().items():
        assert torch.equal(stored[name], value.half()), name
    weights = (tmp_path / "half" / "model.safetensors").read_bytes()
    assert len(weights) < 2 * sum(value.numel() for value in stored.values()) + 20_000  # and the header
    recorded = (tmp_path / "half" / "model.safetensors.sha256").read_text()
    assert recorded == f"{hashlib.sha256(weights).hexdigest()}  model.safetensors\n"
    again = load_generator(tmp_path / "half")
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(outputs(again), outputs(average), atol=0.05, rtol=0)
    told = re.search(r"rounding to float16 changes its outputs in \[-1, 1\] by ([\d.e-]+) on average", output)
    assert told
    assert 0 < float(told[1]) < 1 / 255
    options = (f"source={tmp_path / 'half'}", f"output={tmp_path / 'half.ckpt'}", "dtype=float16")
    assert convert(tmp_path, *options)[0] == 0
    plain = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(plain[f"generator.{name}"], value) for name, value in stored.items())


def test_half_precision_of_the_released_networks_takes_rgb(released: Path, tmp_path: Path) -> None:
    check = golden.DATA / "ckpt_c8_expected.npz"
    options = (f"source={released}", f"output={tmp_path / 'model'}", f"check={check}", "dtype=float16")
    code, output, errors = convert(tmp_path, *options, "tolerance=0.02")
    assert code == 0, errors
    found = re.search(r"equal to the outputs in .*npz to ([\d.e-]+)", output)
    assert found
    assert 1e-6 < float(found[1]) < 0.02  # rounded weights are not the published ones


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    generator = Generator(2)
    with torch.no_grad():
        generator.coarse_network.encoder.stem.bias.fill_(1e5)
    save_generator(generator, tmp_path / "large")
    code, _, errors = convert(tmp_path, f"source={tmp_path / 'large'}", f"output={tmp_path / 'x'}", "dtype=float16")
    assert code == 1
    assert re.search(r"finite and at most 65504 .* got others in coarse_network.encoder.stem.bias; use dtype", errors)
    assert not (tmp_path / "x").exists()


def test_half_precision_that_changes_the_outputs_is_refused(tmp_path: Path) -> None:
    generator = CoarseGenerator(2)
    last, image = generator.coarse_network.decoder.full_size, generator.coarse_network.decoder.image
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(3e-8)  # between 0 and the least number of half precision, 6e-8
        image.weight.fill_(6e4)  # makes it visible
    save_generator(generator, tmp_path / "small")
    code, _, errors = convert(tmp_path, f"source={tmp_path / 'small'}", f"output={tmp_path / 'x'}", "dtype=float16")
    assert code == 1
    assert re.search(r"rounding to float16 must change outputs by at most 0.0039 .*, got 0.01\d; use dtype", errors)
    assert not (tmp_path / "x").exists()


def test_outputs_that_differ_from_the_golden_ones_fail(released: Path, tmp_path: Path) -> None:
    values = dict(np.load(golden.DATA / "ckpt_c8_expected.npz"))
    values["x_stage2"] = values["x_stage2"] + 1e-3
    np.savez(tmp_path / "other.npz", **{name: values[name] for name in ("x", "mask", "x_stage1", "x_stage2")})
    options = (f"source={released}", f"output={tmp_path / 'model'}", f"check={tmp_path / 'other.npz'}")
    code, _, errors = convert(tmp_path, *options)
    assert code == 1
    assert re.search(r"differ from those of .*other.npz by 0.001\d*, more than 0.0001; do not use it", errors)


def broken_outputs(folder: Path) -> list[Path]:
    """Write files that hold no golden outputs: of a size that no network takes, flat, cut off, of one array."""
    paths = [folder / name for name in ("odd.npz", "flat.npz", "cut.npz", "one.npy")]
    shapes = {"x": (1, 3, 30, 30), "mask": (1, 1, 30, 30), "x_stage1": (1, 3, 30, 30), "x_stage2": (1, 3, 30, 30)}
    np.savez(paths[0], **{name: np.zeros(shape) for name, shape in shapes.items()})
    np.savez(paths[1], **{name: np.zeros(3) for name in shapes})
    paths[2].write_bytes(paths[0].read_bytes()[:-100])
    np.save(paths[3], np.zeros(3))
    return paths


def test_files_without_golden_outputs_are_named(tmp_path: Path) -> None:
    for path in broken_outputs(tmp_path):
        with pytest.raises(JobError, match=rf"check: .*{path.name} must hold x, mask, x_stage1 and x_stage2: "):
            check_golden(Generator(2), path, swapped=True)


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (("source=nowhere", "output=x"), 1, "nowhere must be a model's file or folder"),
        (("output=x",), 2, "source: a value is missing"),
        (("source=x", "output=x", "dtype=int8"), 2, "dtype: expected one of float32, float16, got 'int8'"),
        (("source={released}", "output={folder}/x", "check=nowhere"), 1, "check: nowhere must hold x, mask"),
        (("source={folder}/code.ckpt", "output={folder}/x"), 1, "was refused and nothing in it was run"),
    ],
)
def test_mistakes_are_one_line(
    overrides: tuple[str, ...], code: int, message: str, released: Path, tmp_path: Path
) -> None:
    torch.save({"state_dict": Generator(2)}, tmp_path / "code.ckpt")
    options = [text.format(released=released, folder=tmp_path) for text in overrides]
    result, _, errors = convert(tmp_path, *options)
    assert result == code
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
