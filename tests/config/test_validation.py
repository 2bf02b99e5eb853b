"""What a configuration may hold: the constructor is the schema, and every value has a reader."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from gicinpaint.config.signatures import find
from gicinpaint.config.validation import ConfigurationError, JobError, build, check_configuration, closest


class Part:
    """Stands for any constructor that a configuration names."""

    def __init__(
        self,
        size: int,
        *,
        rate: float = 0.5,
        name: str | None = None,
        pair: tuple[float, float] = (0.0, 1.0),
        sizes: Sequence[int] = (),
        folder: Path | None = None,
        mode: Literal["zeros", "mirror"] = "zeros",
        switch: bool = False,
        child: "Part | None" = None,
        function: Callable[[int], int] | None = None,
        anything: Any = None,
    ) -> None:
        if size < 0:
            raise ValueError("size must not be negative; raise it\nand a second line")
        if size == 13:
            raise KeyError("a bug")
        self.size, self.sizes, self.child = size, sizes, child


TARGET = f"{__name__}.Part"


def check(part: dict[str, Any], **others: Any) -> None:
    check_configuration(OmegaConf.create({"part": {"_target_": TARGET, **part}, **others}), {"seed": int})


@pytest.mark.parametrize(
    "part",
    [
        {"size": 3},
        {"size": 3, "rate": 1, "name": None, "pair": [0, 1.5], "sizes": [1, 2], "folder": "a", "mode": "mirror"},
        {"size": 3, "switch": True, "anything": {"a": [1, {"b": "c"}]}},
        {"size": 3, "child": {"_target_": TARGET, "size": 1}},
        {"size": 3, "function": {"_target_": TARGET, "_partial_": True}},  # a partial's arguments may come later
        {"size": "${seed}"},
    ],
)
def test_what_the_constructor_takes_is_accepted(part: dict[str, Any]) -> None:
    check(part, seed=1)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"size": "abc"}, "part.size: expected a whole number, got 'abc'"),
        ({"size": 1.5}, "part.size: expected a whole number, got 1.5"),
        ({"size": True}, "part.size: expected a whole number, got True"),
        ({"size": None}, "part.size: expected a whole number, got None"),
        ({"size": 1, "rate": float("nan")}, "part.rate: expected a number, got nan"),
        ({"size": 1, "name": 3}, "part.name: expected a text or null, got 3"),
        ({"size": 1, "name": ""}, "part.name: the value is empty; write part.name=null for none"),
        ({"size": 1, "pair": [1.0]}, "part.pair: expected a list of 2 values, got [1.0]"),
        ({"size": 1, "sizes": [1, "b"]}, "part.sizes: expected a list (a whole number each), got [1, 'b']"),
        ({"size": 1, "sizes": "12"}, "part.sizes: expected a list (a whole number each), got '12'"),
        ({"size": 1, "mode": "mirrored"}, "part.mode: expected one of zeros, mirror, got 'mirrored'"),
        ({"size": 1, "switch": "yes"}, "part.switch: expected true or false, got 'yes'"),
        ({"size": 1, "child": "x"}, "part.child: expected Part or null, got 'x'"),
        ({"size": 1, "function": "x"}, "part.function: expected Callable or null, got 'x'"),
        ({"size": 1, "sise": 2}, f"part.sise: {TARGET} takes no such value; did you mean part.size?"),
        ({"size": "???"}, "part.size: a value is missing; set it with part.size=<value>"),
        ({"rate": 1.0}, "part.size: a value is missing; set it with +part.size=<value>"),
        ({"size": "${nope}"}, "part.size: Interpolation key 'nope' not found"),
        ({"size": 1, "child": {"_target_": TARGET, "size": "x"}}, "part.child.size: expected a whole number, got 'x'"),
        ({"size": 1, "child": {"_target_": "torch.Nope"}}, "part.child._target_: cannot find 'torch.Nope'"),
        ({"size": 1, "child": {"_target_": 3}}, "part.child._target_: expected the dotted path of a class, got 3"),
        ({"size": 1, "anything": [{"_target_": TARGET, "size": "x"}]}, "part.anything.0.size: expected a whole number"),
    ],
)
def test_what_the_constructor_would_choke_on_is_named(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check(part, seed=1)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    "others",
    [
        {"typo": 1},
        {"typo": ["a"]},
        {"group": {"typo": 1}},
        {"part2": {"_target_": TARGET, "size": "${grooup.size}"}, "group": {"size": 1}, "grooup": {"size": 1}},
    ],
)
def test_a_value_that_nothing_reads_is_refused(others: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="nothing reads this key"):
        check({"size": 1}, seed=1, **others)


def test_a_value_is_read_through_an_interpolation_from_anywhere() -> None:
    check({"size": "${group.size}"}, group={"size": 1})
    check({"size": "${group.inner.size}"}, group={"inner": {"size": "${..size}"}, "size": 1})
    check({"size": 1, "name": "${group.a}-${group.b}"}, group={"a": "x", "b": "y"})


def test_what_the_job_reads_has_its_type_checked() -> None:
    with pytest.raises(ConfigurationError, match="seed: expected a whole number, got 'x'"):
        check({"size": 1}, seed="x")


def test_building_makes_plain_lists_and_nested_parts() -> None:
    part = build(
        OmegaConf.create({"_target_": TARGET, "size": 1, "sizes": [1], "child": {"_target_": TARGET, "size": 2}})
    )
    assert type(part.sizes) is list
    assert part.child.size == 2


def test_a_constructor_that_refuses_a_value_ends_the_job_with_its_first_line() -> None:
    config = OmegaConf.create({"part": {"_target_": TARGET, "size": 1, "child": {"_target_": TARGET, "size": -1}}})
    with pytest.raises(JobError, match=r"^part\.child: size must not be negative; raise it$"):
        build(config.part)


def test_a_bug_in_a_constructor_is_not_hidden() -> None:
    with pytest.raises(Exception, match="a bug") as raised:
        build(OmegaConf.create({"_target_": TARGET, "size": 13}))
    assert not isinstance(raised.value, JobError)


def test_closest_finds_a_slip_and_nothing_for_another_word() -> None:
    assert closest("max_step", ["max_steps", "devices"]) == "max_steps"
    assert closest("zebra", ["max_steps", "devices"]) is None


def test_a_target_that_cannot_be_imported_is_named_with_the_reason() -> None:
    with pytest.raises(
        ImportError, match=r"cannot find 'gicinpaint\.nowhere\.Thing' \(module 'gicinpaint' has no attribute"
    ):
        find("gicinpaint.nowhere.Thing")
