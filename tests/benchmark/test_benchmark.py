"""The benchmark job: what it times, in which order, how it measures memory, and what it writes."""

import csv
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gicinpaint import cli
from gicinpaint.benchmark import AttentionBenchmark, BenchmarkLimits, Case, Measuring, list_cases
from gicinpaint.benchmark.measure import peak_extra_memory, time_in_turns
from gicinpaint.benchmark.networks import first_paper, second_paper, training_step
from gicinpaint.models import Generator
from gicinpaint.models.layers import Convolution

FOLDER = Path(__file__).parents[2] / "conf" / "benchmark"
OPTIONS = sorted(
    {path.stem for path in FOLDER.glob("*.yaml")} - {"data", "roofline"}
)  # these have figures instead of cases
TINY = {
    "attention": ["backends=[reference,tiled]", "benchmark.sizes=[8,[16,8]]", "benchmark.channels=4"],
    "generator": ["backends=[tiled,baseline]", "benchmark.basis='tiled contiguous'", "benchmark.sizes=[32]"],
    "training_step": ["benchmark.sizes=[32]", "benchmark.batch_sizes=[2]", "benchmark.dtypes=[float32,bfloat16]"],
}
TINY |= {f"{option}_v2": TINY[option] for option in ("generator", "training_step")}
NARROW = {"attention": [], "generator": ["benchmark.width=4"], "training_step": ["benchmark.width=4"]}
NARROW |= {f"{option}_v2": NARROW[option] for option in ("generator", "training_step")}


@dataclass(frozen=True)
class Sleep:
    """A step of a known length: so many seconds per pixel."""

    seconds: float

    def __call__(self, case: Case):
        return lambda: time.sleep(self.seconds * case.pixels)


@dataclass(frozen=True)
class Allocate:
    """A step that touches a known number of bytes."""

    megabytes: int

    def __call__(self, case: Case):
        count = self.megabytes * 250_000 if case.height > 32 else 1
        return lambda: torch.ones(count).sum()


CASE = Case("sleep", "slow", 1, 1, 1, "float32", torch.get_num_threads(), "cpu", Sleep(0.06))


def run(*arguments: str, folder: Path) -> int:
    return cli.main(["benchmark", *arguments, f"hydra.run.dir={folder}", "threads=[1]"])


def test_steps_take_turns_and_each_comes_first_in_turn():
    calls = []
    steps = {name: lambda name=name: (calls.append(name), time.sleep(0.06)) for name in "abc"}
    found = time_in_turns(steps, 4, 60)
    assert calls[:6] == ["a", "a", "b", "b", "c", "c"]  # unmeasured, then one to learn the length
    assert calls[6:] == [*"abc", *"bca", *"cab", *"abc"]
    assert all(0.06 <= seconds < 1 for times in found.values() for seconds in times)


def test_short_steps_are_repeated_and_reported_per_step():
    found = time_in_turns({"short": lambda: time.sleep(0.005)}, 3, 60)
    assert 0.005 <= statistics.median(found["short"]) < 0.025  # a turn takes 0.05 s or more


def test_the_time_limit_leaves_three_rounds():
    found = time_in_turns({"slow": lambda: time.sleep(0.06)}, 9, 0.0)
    assert len(found["slow"]) == 3


def test_ratios_divide_the_time_of_the_basis():
    cases = [CASE, replace(CASE, variant="fast", work=Sleep(0.02))]
    slow, fast = Measuring("slow", BenchmarkLimits(rounds=3), with_memory=False).results(cases)
    assert slow.ratio == 1
    assert fast.ratio == pytest.approx(3, rel=0.2)


def test_sizes_that_would_take_too_long_are_left_out_with_the_reason():
    cases = [replace(CASE, height=size, work=Sleep(0.01)) for size in (2, 4, 8)]
    limits = BenchmarkLimits(
        rounds=1, step_seconds=0.1
    )  # 2 pixels 0.02 s; 4 pixels at most 0.08; 8 pixels at most 0.16
    results = list(Measuring("slow", limits, with_memory=False).results(cases))
    assert [bool(result.seconds) for result in results] == [True, True, False]
    assert results[2].left_out.startswith("may take")


def test_peak_memory_is_what_the_step_touches():
    megabytes = peak_extra_memory(replace(CASE, height=64, work=Allocate(200))) / 1e6
    assert 195 < megabytes < 230


@pytest.mark.parametrize("option", OPTIONS)
def test_every_benchmark_runs_and_writes_what_it_measured(option, tmp_path, capsys):
    arguments = [f"benchmark={option}", *TINY[option], *NARROW[option], "memory=false", "limits.rounds=1"]
    assert run(*arguments, folder=tmp_path) == 0
    with (tmp_path / "benchmark.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    output = capsys.readouterr().out
    for row in rows:
        assert float(row["median_s"]) == pytest.approx(statistics.median(map(float, row["runs_s"].split())), rel=1e-4)
        assert row["variant"] in output
    for row in rows[1:2]:
        assert float(row["ratio"]) == pytest.approx(float(rows[0]["median_s"]) / float(row["median_s"]), rel=1e-2)
    assert len(rows) >= 4
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000


def test_attention_option_is_compared_with_the_reference_under_multirun(tmp_path):
    arguments = ["-m", "attention=unfold,factorized", "benchmark.sizes=[8]", "benchmark.channels=4", "memory=false"]
    code = cli.main(["benchmark", *arguments, "limits.rounds=1", "threads=[1]", f"hydra.sweep.dir={tmp_path}"])
    assert code == 0
    for number, name in enumerate(("unfold", "factorized")):
        text = (tmp_path / str(number) / "benchmark.csv").read_text()
        assert f"forward,{name}," in text
        assert "forward,reference," in text


@pytest.mark.parametrize(
    ("override", "expected", "code"),
    [
        ("backends=[tilde]", "attention=tilde: no such option; did you mean attention=tiled?", 2),
        ("benchmark.sizes=[0]", "sizes must be numbers or pairs", 1),
        ("benchmark.dtypes=[int8]", "dtypes must be floating-point types of torch, got 'int8'", 1),
        ("benchmark.parts=[backward]", "parts must be among forward, forward_backward", 1),
        ("benchmark=generator benchmark.layouts=[planar]", "layouts must be contiguous or channels_last", 1),
        ("device=tpu", "device must be auto, cpu or cuda, got 'tpu'", 1),
        ("limits.round=3", "did you mean limits.rounds?", 2),
    ],
)
def test_a_wrong_setting_is_one_line(override, expected, code, tmp_path, capsys):
    assert run(*override.split(), folder=tmp_path) == code
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "benchmark.csv").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("paper", [first_paper, second_paper])
def test_a_training_step_is_measured_in_the_type_that_was_asked_for(paper, dtype):
    work = partial(training_step, layer=None, width=4, paper=paper, pair=True, channels_last=False)
    step = work(Case("pair", "none", 64, 64, 1, dtype, 1, "cpu", work))
    seen = set()

    def note(module, inputs, output):
        if isinstance(module, Convolution):
            seen.add(output.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        step()
    finally:
        hook.remove()
    penalty = {torch.float32} if paper is first_paper else set()  # in float32 always; the second paper has none
    assert seen == penalty | {getattr(torch, dtype)}


def test_the_second_papers_step_has_its_loss_and_updates_both_networks():
    module = second_paper(None, 12, (32, 32))
    assert (module.critics["patch"].features[0].out_channels, module.critic_steps) == (16, 1)
    loss = instantiate(OmegaConf.load(FOLDER.parent / "loss" / "hinge_v2.yaml"), _convert_="all")
    for name, value in vars(loss).items():
        if name != "_own":
            assert value == getattr(module.loss, name) or type(value) is type(getattr(module.loss, name)), name
    assert module.loss.adversary.scale == loss.adversary.scale


def test_sizes_of_a_curve_come_in_order_and_variants_together():
    benchmark = AttentionBenchmark({"a": None, "b": None}, sizes=(16, (4, 8), 8))
    cases = list(list_cases(benchmark, [1], "cpu"))
    assert [(case.what, case.height, case.width, case.variant) for case in cases[:6]] == [
        ("forward", *size, variant) for size in ((4, 8), (8, 8), (16, 16)) for variant in "ab"
    ]


def test_the_roofline_counts_operations_and_bytes_as_by_hand(tmp_path):
    arguments = ["benchmark=roofline", "benchmark.size=32", "benchmark.width=4", "benchmark.threads=1"]
    assert run(*arguments, "limits.rounds=1", folder=tmp_path) == 0
    with (tmp_path / "benchmark.csv").open(newline="") as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    stem, value = rows["coarse_network.encoder.stem, forward"], 4
    operations = 2 * 32 * 32 * 5 * 5 * 5 * 4  # pixels, kernel, channels in and out
    traffic = value * (5 * 32 * 32 + 4 * 32 * 32 + 5 * 5 * 5 * 4 + 4)
    assert stem["verdict"].startswith(f"{operations / 1e9:.4g} GFLOP, {traffic / 1e6:.4g} MB, ")
    backward = rows["coarse_network.encoder.stem, backward"]["verdict"]
    assert backward.startswith(f"{2 * operations / 1e9:.4g} GFLOP, {2 * traffic / 1e6:.4g} MB, ")
    milliseconds = float(stem["verdict"].split(", ")[2].split()[0])
    assert float(stem["value"]) == pytest.approx(operations / milliseconds / 1e6, rel=1e-3)
    convolutions = sum(isinstance(module, Convolution) for module in Generator(4).modules())
    assert len(rows) == 2 + 2 * (convolutions + 1 + 1)  # peaks; attention and the sum of all
