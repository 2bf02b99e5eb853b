"""Fixed masks: what they depend on, what the presets draw, and the hash that tells two sets apart."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch

from gicinpaint.masks import CenterMask, FixedMasks, RectangleMask, free_form, paper_center, paper_random
from holes import hole_edges, rectangle

PRESETS = [paper_center, paper_random, free_form]
BUCKETS = [(0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6)]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_mask_depends_on_its_number_alone(preset) -> None:  # type: ignore
    masks = preset(box=16, seed=3)
    together, box = masks(range(8), 32, 40)
    torch.manual_seed(0)
    for index in (5, 0, 7):
        alone, alone_box = preset(box=16, seed=3)([index], 32, 40)
        assert torch.equal(alone[0], together[index])
        assert (alone_box.top[0], alone_box.left[0]) == (box.top[index], box.left[index])
    assert torch.equal(masks([6, 6, 1], 32, 40)[0], together[[6, 6, 1]])


def test_seeds_presets_and_numbers_draw_different_masks() -> None:
    def place(preset: str, seed: int) -> list[tuple[int, int]]:
        box = FixedMasks(preset, RectangleMask(), seed)(range(12))[1]
        return list(zip(box.top.tolist(), box.left.tolist(), strict=True))

    sets = [place("a", 0), place("a", 1), place("b", 0), place("a", 10)]
    assert len({place for one in sets for place in one}) > 44  # of 48, drawn from 128 * 128


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    free_form(box=16)(range(6), 32, 32)
    assert torch.equal(torch.get_rng_state(), state)


def test_paper_center_is_the_middle_of_the_image() -> None:
    mask, box = paper_center()([0, 4])
    assert torch.equal(mask, rectangle(256, 256, 64, 64, 192, 192).expand(2, 1, 256, 256))
    assert (box.top.tolist(), box.left.tolist(), box.height, box.width) == ([64, 64], [64, 64], 128, 128)


def test_paper_random_holes_measure_96_to_128_at_places_all_over_the_image() -> None:
    mask, box = paper_random()(range(200))
    edges = [hole_edges(one) for one in mask]
    heights, widths = {b - t for t, _, b, _ in edges}, {r - x for _, x, _, r in edges}
    assert heights == widths == set(range(96, 129, 2))  # 17 sizes in 200 draws: one is absent for one seed in 5,000
    # uniform on 0 ... 127: mean 63.5, standard error 2.6
    assert abs(box.top.double().mean() - 63.5) < 10
    assert abs(box.left.double().mean() - 63.5) < 10
    assert box.top.min() < 8
    assert box.top.max() > 119


def test_free_form_goes_through_the_buckets_in_turn() -> None:
    mask = free_form()(range(12))[0]
    for index, share in enumerate(mask.double().mean((1, 2, 3)).tolist()):
        low, high = BUCKETS[index % 6]
        assert low <= share < high


def test_the_manifest_hashes_all_masks_and_boxes() -> None:
    masks = paper_random(box=16, seed=2)
    mask, box = masks(range(3), 32, 40)
    digest = hashlib.sha256()
    for index in range(3):
        digest.update(bytes(int(value) for value in mask[index].flatten()))
        digest.update(f"({int(box.top[index])}, {int(box.left[index])}, 16, 16)".encode())
    settings = {"preset": "paper_random", "seed": 2, "count": 3, "height": 32, "width": 40}
    assert masks.manifest(3, 32, 40) == {**settings, "sha256": digest.hexdigest()}


def test_the_hash_changes_with_seed_count_size_and_box() -> None:
    hashes = [
        paper_random(box=16)
        .manifest(4, 32, 32)["sha256"],
        paper_random(box=16, seed=1).manifest(4, 32, 32)["sha256"],
        paper_random(box=16).manifest(5, 32, 32)["sha256"],
        paper_random(box=16).manifest(4, 32, 40)["sha256"],
        paper_random(box=(16, 17)).manifest(4, 32, 32)["sha256"],
    ]  # fmt: skip
    assert len(set(hashes)) == 5


# Recorded once: published results name these hashes, so a change of them is a change of the benchmark.
RECORDED = {
    paper_center: "87897f12783e45530622342454a2b0834fad6d1a776c5944de9e2f2356f4d069",
    paper_random: "618f5310502df3842be910bb5b8a32b0731093a92703e718cac67be69041dfa8",
    free_form: "b4e248472800d2863f2762716ed6d270adee6eec8fb160acdfa0e9242cdbdbc1",
}


@pytest.mark.parametrize(("preset", "sha256"), RECORDED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_masks_of_published_results_never_change(preset, sha256: str) -> None:  # type: ignore
    assert preset().manifest(12)["sha256"] == sha256


def test_another_process_draws_the_same_masks() -> None:
    code = "from gicinpaint.masks import free_form; print(free_form(box=16, seed=4).manifest(6, 48, 48)['sha256'])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == free_form(box=16, seed=4).manifest(6, 48, 48)["sha256"]


def test_impossible_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="samplers must hold at least one sampler, got none; add one"):
        FixedMasks("none", [])
    with pytest.raises(ValueError, match=r"samplers must all have the box \(4, 4\), got \[\(4, 4\), \(5, 5\)\]"):
        FixedMasks("two", [CenterMask(4), CenterMask(5)])
    with pytest.raises(ValueError, match="indices must be 0 or more, got -1; count from the first image"):
        paper_center()([0, -1])
    with pytest.raises(ValueError, match="indices must hold at least one number, got none; skip empty batches"):
        paper_center()([])
    with pytest.raises(ValueError, match="count must be at least 1, got 0; count the images"):
        paper_center().manifest(0)
    with pytest.raises(ValueError, match="box 128x128 must fit the image 96x256"):
        paper_random()([0], 96, 256)


@pytest.mark.parametrize("preset", PRESETS)
def test_fixed_masks_and_boxes_go_to_the_device_that_is_asked_for(preset) -> None:  # type: ignore
    mask, box = preset(box=16)([0, 3], 32, 40, device="meta")
    assert {mask.device.type, box.top.device.type, box.left.device.type} == {"meta"}
