"""What the pages of `gicinpaint <job> --help` show of a configuration: its groups with their options, and settings."""

import textwrap

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_WIDTH = 118
_ABSENT = object()


def register_resolvers() -> None:
    """Let the pages in `conf/hydra/help` ask for `${help.groups:}` and `${help.setting:key}`."""
    OmegaConf.register_new_resolver("help.groups", _groups, replace=True)
    OmegaConf.register_new_resolver("help.setting", _setting, replace=True)


def _groups(_root_: DictConfig) -> str:
    """Return a line for each group that the job reads, with what is chosen now in brackets."""
    loader = GlobalHydra.instance().config_loader()
    chosen = {group: name for group, name in _root_.hydra.runtime.choices.items() if not group.startswith("hydra/")}
    width = max(map(len, chosen), default=0)
    lines = []
    for group, name in reversed(chosen.items()):  # Hydra counts from the last default to the first
        options = loader.get_group_options(group.partition("@")[0])
        shown = ", ".join(f"[{option}]" if option == name else option for option in options)
        lines += textwrap.wrap(
            f"  {group:{width}}   {shown}",
            _WIDTH,
            subsequent_indent=" " * (width + 5),
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _setting(key: str, _root_: DictConfig) -> str:
    """Return a setting as the command line takes it, with its present value."""
    try:
        value = OmegaConf.select(_root_, key, default=_ABSENT)
    except OmegaConfBaseException:  # a value that refers to what is chosen or given only later
        value = _ABSENT
    return f"{key}=..." if value is _ABSENT else f"{key}={_typed(value)}"


def _typed(value: object) -> str:
    if OmegaConf.is_list(value):
        return "[" + ",".join(_typed(item) for item in value) + "]"  # type: ignore[attr-defined]
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )
