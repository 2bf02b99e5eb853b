"""examples/measure_copying.py: what counts as a true copy, and that the shipped model copies."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "examples" / "measure_copying.py"


@pytest.fixture(scope="module")
def copying() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_copying", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pixels_of_one_place_of_the_view_are_equal(copying: ModuleType) -> None:
    noise = torch.randint(0, 256, (90, 80, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image, places = copying.lattice(Image.fromarray(noise.numpy()), 64, torch.Generator().manual_seed(1))
    pixels: dict[tuple[int, ...], list[float]] = {}
    for y in range(64):
        for x in range(64):
            color = image[:, y, x].tolist()
            assert pixels.setdefault(tuple(places[:2, y, x].tolist()), color) == color
    rows, columns = places[2:, 0, 0].tolist()
    assert len(pixels) == rows * columns
    assert 17 <= min(rows, columns) <= max(rows, columns) <= 24


def test_true_copies_are_those_of_a_slow_loop(copying: ModuleType) -> None:
    _, places = copying.lattice(Image.new("RGB", (90, 80)), 64, torch.Generator().manual_seed(2))
    rows, columns = places[2:, 0, 0].tolist()
    found = copying.true_copies(places, within=2)

    def apart(a: int, b: int, period: int) -> int:
        return min((a - b) % period, (b - a) % period)

    for first in range(0, 256, 7):
        for second in range(256):
            one = places[:2, first // 16 * 4 + 2, first % 16 * 4 + 2].tolist()
            other = places[:2, second // 16 * 4 + 2, second % 16 * 4 + 2].tolist()
            near = apart(one[0], other[0], rows) <= 2 and apart(one[1], other[1], columns) <= 2
            assert found[first, second] == near


def test_the_shipped_model_copies_and_loses_by_shuffling(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "lattices_64_contextual", "lattices_64_baseline", "--count", "24"]
    command += ["--picture", str(tmp_path / "copies.png")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in result.stdout.splitlines() if "_64_" in line}
    _, completed, shuffled, copies, chance, *_ = (
        float(cell.strip().rstrip("%")) for cell in rows["lattices_64_contextual"][:8]
    )
    assert completed > float(rows["lattices_64_baseline"][1]) + 1
    assert completed > shuffled + 1
    assert copies > 2 * chance
    with Image.open(tmp_path / "copies.png") as picture:
        assert picture.width > picture.height > 700
