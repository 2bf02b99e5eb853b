"""A new run's generator takes what fits from a model's file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from faults import digest, log_of, run
from gicinpaint.config.validation import JobError
from gicinpaint.models.generator import CoarseGenerator, Generator
from gicinpaint.weights.fine_tuning import fresh_parts, take_weights
from gicinpaint.weights.pretrained import save_generator


def seeded(seed: int, build: type[nn.Module], *arguments: object) -> nn.Module:
    torch.manual_seed(seed)
    return build(*arguments)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in after if not torch.equal(before[name], after[name])}


def test_a_coarse_network_starts_the_first_stage_and_the_second_stays_as_it_was(tmp_path: Path) -> None:
    coarse, generator = seeded(1, CoarseGenerator, 4), seeded(2, Generator, 4)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    save_generator(coarse, tmp_path)
    (taken,) = take_weights(generator, str(tmp_path))
    after, given = generator.state_dict(), coarse.state_dict()
    assert all(torch.equal(after[name], value) for name, value in given.items())
    assert {name.partition(".")[0] for name in changed(before, after)} == {"coarse_network"}
    assert str(taken) == (
        f"the generator starts with {len(given)} of its {len(after)} tensors from {tmp_path}; fresh: refinement_network"
    )
    found = hashlib.sha256()
    for name in sorted(given):
        found.update(f"{name} {tuple(given[name].shape)}\n".encode() + given[name].numpy().tobytes())
    assert taken.sha256 == found.hexdigest()


def test_a_whole_model_leaves_nothing_fresh_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    save_generator(seeded(1, Generator, 4), tmp_path)
    assert str(take_weights(seeded(2, Generator, 4), str(tmp_path))[0]).endswith("; nothing starts fresh")
    coarse = CoarseGenerator(4)
    rest = len(Generator(4).state_dict()) - len(coarse.state_dict())
    assert str(take_weights(coarse, str(tmp_path))[0]).endswith(
        f"nothing starts fresh; {rest} of the file's fit nothing"
    )


def test_a_model_without_attention_starts_all_that_its_shapes_fit(tmp_path: Path) -> None:
    """Only the first convolution after the branches are joined sees another number of channels."""
    plain, generator = seeded(1, Generator, 4, None), seeded(2, Generator, 4)
    save_generator(plain, tmp_path)
    (taken,) = take_weights(generator, str(tmp_path))
    assert taken.tensors == len(plain.state_dict()) - 2  # the weight and the bias of that layer
    assert "refinement_network.decoder.merge" in taken.fresh
    assert {"refinement_network.attention_encoder", "refinement_network.attended"} <= set(taken.fresh)
    assert not any(part.startswith("coarse_network") for part in taken.fresh)


def test_a_stage_that_adds_leaves_out_the_layer_that_made_images(tmp_path: Path) -> None:
    save_generator(seeded(1, Generator, 4), tmp_path)
    generator = Generator(4, residual=True)
    own = [stage.decoder.image.weight.clone() for stage in generator.children()]
    (taken,) = take_weights(generator, str(tmp_path))
    assert taken.fresh == ["coarse_network.decoder.image", "refinement_network.decoder.image"]
    assert all(torch.equal(stage.decoder.image.weight, w) for stage, w in zip(generator.children(), own, strict=True))
    save_generator(generator, tmp_path)
    assert take_weights(CoarseGenerator(4, residual=True), str(tmp_path))[0].fresh == []
    assert take_weights(CoarseGenerator(4), str(tmp_path))[0].fresh == ["coarse_network.decoder.image"]


def test_of_two_models_the_later_one_replaces_what_it_has_too(tmp_path: Path) -> None:
    plain, coarse, generator = (
        seeded(1, Generator, 4, None),
        seeded(2, CoarseGenerator, 4),
        seeded(3, Generator, 4, None),
    )
    save_generator(plain, tmp_path / "plain")
    save_generator(coarse, tmp_path / "coarse")
    first, second = take_weights(generator, [str(tmp_path / "plain"), str(tmp_path / "coarse")])
    expected = plain.state_dict() | coarse.state_dict()
    assert not changed(expected, generator.state_dict())
    assert (first.tensors, second.tensors) == (len(expected), len(coarse.state_dict()))
    assert first.fresh == second.fresh == []
    take_weights(generator, [str(tmp_path / "coarse"), str(tmp_path / "plain")])
    assert not changed(plain.state_dict(), generator.state_dict())


def test_fresh_parts_are_the_largest_without_any_tensor_taken() -> None:
    names = ["a.b.weight", "a.b.bias", "a.bc.weight", "a.c.weight", "a.c.bias", "d.weight"]
    assert fresh_parts(names, ["a.c.weight"]) == ["a.b", "a.bc", "a.c.bias", "d"]
    assert fresh_parts(names, names) == []


def test_weights_that_cannot_be_taken_are_reported_and_change_nothing(tmp_path: Path) -> None:
    generator = Generator(4)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    save_generator(CoarseGenerator(6), tmp_path / "wide")
    with pytest.raises(JobError, match=r"got none that fit \(coarse_network\S* is \(.*\) there and \(.*\) here\); cho"):
        take_weights(generator, str(tmp_path / "wide"))
    with pytest.raises(JobError, match=r"initial_weights: .*absent must be a model's file or folder, got nothing"):
        take_weights(generator, str(tmp_path / "absent"))
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    with pytest.raises(JobError, match=r"initial_weights: .*broken\.ckpt"):
        take_weights(generator, str(tmp_path / "broken.ckpt"))
    spoiled = CoarseGenerator(4)
    next(spoiled.parameters()).data.fill_(torch.nan)
    save_generator(spoiled, tmp_path / "spoiled")
    with pytest.raises(JobError, match=r"cannot be used, coarse_network\S* holds NaN or infinity; take another copy"):
        take_weights(generator, str(tmp_path / "spoiled"))
    with pytest.raises(JobError, match=r"\(there is coarse_network.encoder.stem.weight, here right\)"):
        nothing_alike(tmp_path)
    save_generator(CoarseGenerator(4), tmp_path / "right")
    with pytest.raises(JobError, match=r"absent must be a model's file or folder"):
        take_weights(generator, [str(tmp_path / "right"), str(tmp_path / "absent")])
    with pytest.raises(JobError, match="must name a model's file or folder, got none"):
        take_weights(generator, [])
    assert not changed(before, generator.state_dict())


def nothing_alike(folder: Path) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.right = nn.Parameter(torch.zeros(1))

    save_generator(CoarseGenerator(2), folder / "other")
    take_weights(Other(), str(folder / "other"))


def test_a_run_starts_from_a_coarse_runs_average_and_a_resumed_one_leaves_it_aside(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    coarse = ("model.generator._target_=gicinpaint.models.generator.CoarseGenerator", "~model.generator.attention")
    assert run(first, *coarse, "updates=2") == 0, log_of(first)
    source = first / "checkpoints" / "last.ckpt"
    given = (f"initial_weights={source}", "updates=1", "optimizer.lr=1e-30")  # so small a step changes nothing
    assert run(second, *given) == 0, log_of(second)
    assert f"tensors from {source}; fresh: refinement_network\n" in log_of(second)
    average = torch.load(source, weights_only=True)["generator_average"]
    started = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(started[f"generator.{name}"], value) for name, value in average.items())
    (start,) = json.loads((second / "starts.jsonl").read_text())["initial_weights"]
    assert (start["path"], start["tensors"], start["fresh"]) == (str(source), len(average), ["refinement_network"])
    ended = digest(second)
    assert run(second, *given, "resume=auto") == 0, log_of(second)
    assert f"initial_weights={source} is left aside: a resumed run goes on with its own" in log_of(second)
    assert digest(second) == ended


def test_a_run_whose_initial_weights_are_absent_ends_with_one_line(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(output, "initial_weights=absent.ckpt") == 1
    assert [line for line in log_of(output).splitlines() if "initial_weights" in line] == [log_of(output).strip()]
