"""Private names of other libraries: each is there, and does what it is used for."""

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from gicinpaint.compat import failing_key, hydra_argument_parser


def test_hydra_still_has_the_parser_of_its_command_line() -> None:
    arguments = hydra_argument_parser().parse_args(["--cfg", "job", "seed=1", "--multirun"])
    assert (arguments.cfg, arguments.overrides, arguments.multirun) == ("job", ["seed=1"], True)


def test_hydra_still_says_in_the_same_words_where_building_failed() -> None:
    node = {"_target_": "builtins.dict", "inner": {"_target_": "builtins.int", "_args_": ["no number"]}}
    with pytest.raises(InstantiationException) as raised:
        instantiate(node)
    assert failing_key(raised.value) == "inner"
    with pytest.raises(InstantiationException) as raised:
        instantiate(node["inner"])
    assert failing_key(raised.value) == ""
