"""Order of images: pure functions of (seed, position), split over processes without loss."""

import hashlib
import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gicinpaint.data import order
from gicinpaint.data.order import EndlessBatchSampler, FiniteBatchSampler, derive_seed, random_order


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_key_never_changes_between_versions_and_machines():
    # The definition, written out: blake2b of the comma-separated arguments, little-endian, without the lowest bit.
    for parts, text in [((3, 14), b"0,3,14"), (("mask",), b"0,'mask'"), ((), b"0"), ((-1,), b"0,-1")]:
        digest = hashlib.blake2b(text, digest_size=8).digest()
        assert derive_seed(0, *parts) == int.from_bytes(digest, "little") >> 1
    assert derive_seed(0, 3, 14) == 119477511129328053  # written down once: resumed runs depend on it


def test_key_is_the_same_in_another_process_with_another_hash_seed():
    found = f"runpy.run_path({order.__file__!r})['derive_seed']"  # the file alone: fast
    code = f"import runpy; print({found}(7, 1, 2, 'mask'))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {str(derive_seed(7, 1, 2, "mask"))}


def test_keys_of_neighbours_differ_and_fit_a_generator():
    keys = {derive_seed(seed, epoch, index) for seed in range(5) for epoch in range(10) for index in range(200)}
    assert len(keys) == 5 * 10 * 200
    for value in list(keys)[:100]:
        torch.Generator().manual_seed(value)
    assert derive_seed(torch.tensor(3), 4) == derive_seed(3, 4)


def test_key_refuses_what_it_cannot_name():
    with pytest.raises(TypeError, match="integers and strings, got float"):
        derive_seed(0, 1.5)


def test_every_image_comes_once_per_epoch_though_batches_do_not_divide_it():
    items = [item for batch in take(EndlessBatchSampler(10, 4), 25) for item in batch]  # 100 items: ten epochs
    for epoch in range(10):
        assert sorted(index for e, index in items if e == epoch) == list(range(10))
    assert [epoch for epoch, _ in items] == sorted(epoch for epoch, _ in items)


def test_epochs_are_shuffled_differently_and_seeds_differ():
    assert not torch.equal(random_order(50, 0, 0), random_order(50, 0, 1))
    assert not torch.equal(random_order(50, 0, 0), random_order(50, 1, 0))
    assert torch.equal(random_order(50, 3, 2), random_order(50, 3, 2))


@pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 1000])
def test_a_resumed_sampler_continues_where_the_undisturbed_one_goes_on(start):
    position = 0
    whole = take(EndlessBatchSampler(11, 4, seed=5), start + 6)
    resumed = EndlessBatchSampler(11, 4, seed=5, position=lambda: position)
    position = start
    assert take(resumed, 6) == whole[start:]


@settings(max_examples=60, deadline=None)
@given(length=st.integers(4, 60), share=st.integers(1, 5), world_size=st.integers(1, 5), k=st.integers(0, 10**6))
def test_processes_together_see_the_batch_of_one_process(length, share, world_size, k):
    batch_size = share * world_size
    length = max(length, batch_size)
    whole = EndlessBatchSampler(length, batch_size, seed=1).batch(k)
    parts = [
        EndlessBatchSampler(length, batch_size, seed=1, rank=rank, world_size=world_size).batch(k)
        for rank in range(world_size)
    ]
    assert [item for part in parts for item in part] == whole
    assert {len(part) for part in parts} == {share}


def test_the_sampler_has_no_length_because_a_trainer_would_count_epochs():
    with pytest.raises(TypeError):
        len(EndlessBatchSampler(10, 2))


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 200), share=st.integers(1, 20), world_size=st.integers(1, 8))
def test_validation_counts_every_image_once_in_equally_many_steps(length, share, world_size):
    length = max(length, world_size)
    samplers = [
        FiniteBatchSampler(length, share * world_size, epoch=-1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert {len(part) for part in batches} == {len(samplers[0])}
    assert all(batch for part in batches for batch in part)
    assert sorted(index for part in batches for batch in part for _, index in batch) == list(range(length))
    largest = max(len(batch) for part in batches for batch in part)
    assert largest <= max(share, 2)  # 2: one step fewer than a process of one-image batches would need


def test_one_process_validates_in_plain_order():
    assert list(FiniteBatchSampler(5, 2, epoch=-1)) == [[(-1, 0), (-1, 1)], [(-1, 2), (-1, 3)], [(-1, 4)]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 3, "batch_size": 4}, "a batch of 4 needs at least as many images, got 3"),
        ({"length": 30, "batch_size": 4, "world_size": 3}, "positive multiple of the 3 processes, got 4; use 3"),
        ({"length": 30, "batch_size": 0}, "positive multiple"),
        ({"length": 30, "batch_size": 4, "rank": 2, "world_size": 2}, r"rank must lie in 0\.\.1, got 2"),
    ],
)
def test_impossible_shares_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EndlessBatchSampler(**arguments)


def test_validation_needs_an_image_for_every_process():
    with pytest.raises(ValueError, match="4 processes need at least one image each, got 3"):
        FiniteBatchSampler(3, 4, epoch=-1, rank=0, world_size=4)
