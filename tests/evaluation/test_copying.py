"""Does attention copy from afar: what counts as a copy, how far it is, and that the shipped model copies."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from gicinpaint.attention import ContextualAttention
from gicinpaint.evaluation.copying import (
    CopiedShare,
    RepeatedImage,
    Shuffled,
    copied_distance,
    copy_distance,
    draw_copying,
    measure_copying,
    repeat_view,
    true_copies,
)
from gicinpaint.models.generator import Completion, Generator

SCRIPT = Path(__file__).parents[2] / "examples" / "measure_copying.py"


def noise(seed: int = 0) -> Image.Image:
    rng = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (90, 80, 3), generator=rng, dtype=torch.uint8).numpy())


def repeated(size: int = 64, periods: tuple[int, int] = (17, 24), seed: int = 1) -> RepeatedImage:
    return repeat_view(noise(), size, torch.Generator().manual_seed(seed), periods)


def test_pixels_of_one_place_of_the_view_are_equal() -> None:
    image, places, (rows, columns) = repeated()
    pixels: dict[tuple[int, ...], list[float]] = {}
    for y in range(64):
        for x in range(64):
            color = image[:, y, x].tolist()
            assert pixels.setdefault(tuple(places[:, y, x].tolist()), color) == color
    assert len(pixels) == rows * columns
    assert 17 <= min(rows, columns) <= max(rows, columns) <= 24


def test_true_copies_are_those_of_a_slow_loop() -> None:
    one = repeated(seed=2)
    found = true_copies(one, cell=4, within=2)

    def apart(a: int, b: int, period: int) -> int:
        return min((a - b) % period, (b - a) % period)

    for first in range(0, 256, 7):
        for second in range(256):
            a, b = (one.places[:, cell // 16 * 4 + 2, cell % 16 * 4 + 2].tolist() for cell in (first, second))
            near = all(apart(i, j, period) <= 2 for i, j, period in zip(a, b, one.period, strict=True))
            assert found[first, second] == near


@pytest.mark.parametrize("periods", [(5, 7), (11, 14), (30, 32)])
def test_the_distance_to_a_copy_is_that_of_a_slow_loop(periods: tuple[int, int]) -> None:
    one = repeated(20, periods)
    hole = torch.zeros(20, 20, dtype=torch.bool)
    hole[6:14, 5:15] = True
    expected = []
    for y, x in hole.nonzero().tolist():
        known = (
            math.hypot(v - y, u - x)
            for v in range(20)
            for u in range(20)
            if not hole[v, u] and torch.equal(one.places[:, v, u], one.places[:, y, x])
        )
        expected.append(min(known, default=math.inf))
    assert copy_distance(one, hole).tolist() == pytest.approx(expected)


class _Copies(torch.nn.Module):
    """Knows the truth of the pixels whose nearest copy is at most so far, and guesses grey elsewhere."""

    def __init__(self, image: RepeatedImage, reach: float) -> None:
        super().__init__()
        self.image, self.reach = image, reach

    def forward(self, masked: torch.Tensor, mask: torch.Tensor, return_offset: bool = False) -> Completion:
        guess, inside = torch.zeros_like(self.image.image), mask[0, 0] > 0
        near = torch.zeros_like(inside)
        near[inside] = copy_distance(self.image, inside) <= self.reach
        return Completion(torch.where(near, self.image.image, guess)[None], None, None)


def test_errors_count_at_the_distance_of_the_nearest_copy() -> None:
    one = repeated(48, (12, 14))
    row = measure_copying(_Copies(one, 15), [one], hole=30, edges=(8, 15, 64))
    assert set(row) == {"coarse", "completed", "8 to 15", "15 to 64"}  # no copy is nearer than the period
    assert row["8 to 15"] == pytest.approx(100)  # no error, cut off there
    hole = torch.zeros(48, 48, dtype=torch.bool)
    hole[9:39, 9:39] = True
    levels = one.image[:, hole][:, copy_distance(one, hole) > 15]  # against grey, which is 0
    assert row["15 to 64"] == pytest.approx(-10 * math.log10(float(levels.square().mean()) / 4), abs=1e-3)


def test_shuffling_moves_the_results_within_the_hole_alone() -> None:
    features, mask = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    layer = ContextualAttention(rate=1)
    before = layer(features, mask=mask)
    after = Shuffled(layer, torch.Generator().manual_seed(0))(features, mask=mask)
    inside = mask.bool().expand_as(before)
    assert torch.equal(before[~inside], after[~inside])
    assert not torch.equal(before[inside], after[inside])
    assert torch.equal(before[inside].sort().values, after[inside].sort().values)


def test_the_distance_of_what_is_copied_is_that_of_the_offsets() -> None:
    torch.manual_seed(0)
    generator, mask = Generator(width=4, attention=ContextualAttention(rate=1)), torch.zeros(1, 1, 32, 32)
    mask[..., 8:16, 8:24] = 1
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        offset = generator(image * (1 - mask), mask, return_offset=True).offset[0]
    expected = [math.dist((y, x), offset[:, y, x].tolist()) * 4 for y in range(2, 4) for x in range(2, 6)]
    assert copied_distance(generator, image, mask).tolist() == pytest.approx(expected)


class _Paints(torch.nn.Module):
    """Fills first with red and then with green, and copies all from the upper left cell."""

    def forward(self, masked: torch.Tensor, mask: torch.Tensor, return_offset: bool = False) -> Completion:
        red, green = (masked.new_tensor(one).view(1, 3, 1, 1).expand_as(masked) for one in ([1, -1, -1], [-1, 1, -1]))
        return Completion(red, green, torch.zeros(1, 2, 12, 12, dtype=torch.int64))


def test_the_picture_of_copying_shows_the_hole_large_outlined_and_with_arrows() -> None:
    grey = RepeatedImage(torch.zeros(3, 48, 48), torch.zeros(2, 48, 48, dtype=torch.int64), (8, 8))
    sheet = draw_copying(_Paints(), [grey, grey], hole=8, side=192)
    near, white, level = 192 // 2 - 12, (255, 255, 255), (128, 128, 128)  # close-ups: 24 pixels, 3.5 times as large
    assert sheet.size == (192 + 2 * (near + 4), 2 * (192 + 24) - 4)
    right, below = near + 4, near + 24
    shown = {(0, 0): white, (right, 0): (255, 0, 0), (0, below): (0, 255, 0), (right, below): level}
    for top in (20, 20 + 192 + 24):  # a row for each image: input, first stage, completed, ground truth
        for (x, y), colour in shown.items():
            x, y = 196 + x + near // 2, top + y + near // 2
            assert sheet.getpixel((x, y)) == colour
            assert sheet.getpixel((x, y - 14 - 1)) == white  # half of 8 x 3.5 pixels
            assert sheet.getpixel((x, y - 14 - 5)) != white
        # from the middle of cell (5, 5), 22, to that of the upper left one, 2; four times as large
        on_it = [sheet.getpixel((at, top + at)) for at in range(12, 72)]
        assert sum(pixel not in (level, white) for pixel in on_it) > 0.9 * len(on_it)
        beside = [sheet.getpixel((at + 12, top + at)) for at in range(12, 50)]
        assert beside == [level] * len(beside)


def test_the_share_that_a_training_prints_is_that_of_a_slow_loop(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    generator = Generator(width=4, attention=ContextualAttention(rate=1))
    data = SimpleNamespace(validation=SimpleNamespace(source=[noise(1), noise(2)]))
    data.validation.source = type("Source", (list,), {"read": list.__getitem__})(data.validation.source)
    trainer = SimpleNamespace(is_global_zero=True, datamodule=data)
    CopiedShare(count=3, size=48, hole=12).on_fit_end(trainer, SimpleNamespace(generator=generator))
    rng, mask, copied = torch.Generator().manual_seed(0), torch.zeros(1, 1, 48, 48), []
    mask[..., 18:30, 18:30] = 1
    for seed in (1, 2, 1):
        one = repeat_view(noise(seed), 48, rng, (17, 24))
        with torch.no_grad():
            offset = generator(one.image[None] * (1 - mask), mask, return_offset=True).offset[0]
        for y in range(18 // 4, -(-30 // 4)):  # cells of 4 x 4 pixels that touch the hole
            for x in range(18 // 4, -(-30 // 4)):
                own = one.places[:, 4 * y + 2, 4 * x + 2].tolist()
                v, u = offset[:, y, x].tolist()
                other = one.places[:, 4 * v + 2, 4 * u + 2].tolist()
                apart = (min((a - b) % p, (b - a) % p) for a, b, p in zip(own, other, one.period, strict=True))
                copied.append(all(distance <= 4 for distance in apart))
    assert capsys.readouterr().out.startswith(f"copied       {sum(copied) / len(copied):.0%} of the hole from true")
    CopiedShare().on_fit_end(trainer, SimpleNamespace(generator=Generator(width=4, attention=None)))
    assert capsys.readouterr().out == ""


def test_the_shipped_model_copies_and_loses_by_shuffling(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "lattices_64_contextual", "lattices_64_baseline", "--count", "24"]
    command += ["--picture", str(tmp_path / "copies.png"), "--drawn", "12", "23"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in result.stdout.splitlines() if "_64_" in line}
    _, completed, shuffled, attention, copies, chance, *_ = (
        float(cell.strip().rstrip("%")) for cell in rows["lattices_64_contextual"][:8]
    )
    assert completed > float(rows["lattices_64_baseline"][1]) + 1
    assert completed > shuffled + 1
    assert copies > 2 * chance
    assert attention > 2 * chance
    with Image.open(tmp_path / "copies.png") as picture:
        assert picture.size == (320 + 2 * (148 + 4), 2 * (320 + 24) - 4)
