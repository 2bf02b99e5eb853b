"""The copies of the authors' numbers are whole; conftest.py fails a run in which no test opened one of them."""

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

import golden

CONTENTS = {  # what every file of a kind holds, from the description of the full set
    "ca_*": {"f", "b", "y", "argmax_index", "attention_top1", "attention_top2"},
    "ckpt_*": {"x", "mask", "x_local", "x_stage1", "x_stage2", "dout_local", "dout_global"},
    "critics_*": {"x_local", "x_global", "dout_local", "dout_global", "grad_x_local", "grad_x_global"},
    "e2e_*": {"batch_data", "mask", "bbox_tlhw", "alpha_local", "alpha_global", "g_loss", "d_loss", "x_stage2"},
    "generator_*": {"x", "mask", "x_stage1", "x_stage2", "x_complete", "offset_rel", "flow_rgb"},
    "losses_*": {"batch_data", "mask", "bbox_tlhw", "x_stage1", "l1_loss", "ae_loss", "gp_loss", "g_loss", "d_loss"},
    "nearest_resize_tables*": {"in64_out32", "in18_out9"},
    "server_*": {"image_u8", "mask_u8", "x", "mask", "x_stage1", "x_stage2", "complete", "result_u8"},
    "spatial_discounting_mask*": {"mask_128x128_gamma0.9"},
    "v2_discriminator_*": {"x", "dout", "dout_run2", "dout_run21", "grad_x"},
    "v2_gated_*": {"x", "y", "g", "grad_x"},
    "v2_generator_*": {"x", "mask", "x_stage1", "x_stage2", "x_complete", "argmax_index"},
    "v2_losses_*": {"batch_data", "mask", "x_stage1", "ae_loss", "gan_g_loss", "g_loss", "d_loss"},
    "v2_masks_*": {"stroke_bits", "box_bits", "box_tlhw", "box_inset", "ratio_combined"},
}


@pytest.mark.parametrize("path", golden.paths("*.npz"), ids=lambda path: path.stem)
def test_a_file_is_of_one_kind_and_holds_its_finite_numbers(path: Path) -> None:
    (kind,) = (pattern for pattern in CONTENTS if fnmatch(path.stem, pattern))
    opened = set(golden.READ)
    values = golden.load(path)
    golden.READ.intersection_update(opened)  # a look at its names compares nothing
    assert values.keys() >= CONTENTS[kind] | {"meta"}
    assert not [name for name, value in values.items() if name != "meta" and not torch.isfinite(value).all()]


def test_the_files_are_many_and_the_copies_are_those_of_the_full_set_and_small() -> None:
    copies = list(golden.DATA.iterdir())
    assert len(golden.paths("*.npz")) >= 32
    assert sum(path.stat().st_size for path in copies) <= 16_000_000
    full = {path.name: path for path in golden.SHARED.glob("*.npz")}  # none in a bare clone
    full |= {f"v2_{path.name}": path for path in golden.SHARED_V2.glob("*.npz")}
    assert not [path.name for path in copies if path.name in full and path.read_bytes() != full[path.name].read_bytes()]


def test_a_run_that_opens_no_golden_file_fails(tmp_path: Path) -> None:
    """A suite of one test, with this suite's conftest: it passes alone and fails as a whole suite."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .\n")
    (tmp_path / "test_one.py").write_text("def test_nothing(): pass\n")
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    options: Any = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    one = subprocess.run([*command, "test_one.py"], **options)
    assert one.returncode == 0, one.stdout + one.stderr
    for workers in ("0", "2"):
        whole = subprocess.run([*command, "-n", workers], **options)
        assert whole.returncode == 1, whole.stdout + whole.stderr
        assert "no test opened the golden files" in whole.stdout
        assert "ca_01_16x16_r2_fuse_nomask.npz" in whole.stdout
