"""The command line: what help pages show, a line for each way in which it can fail, folders and ends of runs."""

import contextlib
import io
import json
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gicinpaint.compat import hydra_argument_parser
from gicinpaint.config.aliases import explain_key
from gicinpaint.config.signatures import arguments
from gicinpaint.config.validation import JobError, build, closest, unknown_option

_WIDTH = 118
_ABSENT = object()
_PATHS = ("checkpoint", "data_dir", "dir", "input", "masks", "output", "path", "resume", "source", "sources")
_MARKS = frozenset("\"'\\,[]{}()$=")  # of Hydra's grammar


def complaint_about_options(command_line: Sequence[str]) -> str | None:
    """Return what is wrong with options such as --multirun, in one line, or None if they can be read."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
            hydra_argument_parser().parse_args(command_line)
    except SystemExit as stop:
        if stop.code:
            return output.getvalue().strip().splitlines()[-1].partition("error: ")[2]
    return None


def quote_values(overrides: Sequence[str]) -> list[str]:
    """Return overrides whose values Hydra takes as they were typed: letters beyond ASCII, numbers as names, `~/x`.

    Values with quotes, brackets or other marks of Hydra's grammar are left to it, so are lists of a multirun, but for
    paths that are there, or that the grammar refuses, such as "photo (1).png".

    Example:
        >>> quote_values(["input=größe/a.png", "output=2024", "seed=7", "input=[a,é]"])
        ['input="größe/a.png"', 'output="2024"', 'seed=7', 'input=[a,é]']
    """
    quoted = []
    for text in overrides:
        key, _, value = text.partition("=")
        is_path = key.lstrip("+~").rpartition(".")[2] in _PATHS
        at_home = value.startswith("~/")
        value = os.path.expanduser(value) if at_home else value
        if text.startswith("-") or not value:
            odd = False
        elif set(value) & _MARKS:
            plain = value[0] not in "\"'[{" and "${" not in value
            odd = is_path and (os.path.exists(value) or (plain and _parse(text) is None))
        else:
            odd = not value.isascii() or at_home or (is_path and _is_number(value))
        escaped = value.replace('"', '\\"')
        quoted.append(f'{key}="{escaped}"' if odd else text)
    return quoted


def separate_outputs(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which one `output` for all runs of a multirun has become the folder that holds theirs.

    Example:
        >>> separate_outputs(["-m", "output=all", "seed=1,2"])
        ['-m', 'hydra.sweep.dir=all', 'seed=1,2']
        >>> separate_outputs(["-m", "output=one,two"]), separate_outputs(["output=one"])
        (['-m', 'output=one,two'], ['output=one'])
    """
    if not any(text in ("-m", "--multirun") or text.startswith("sweep=") for text in overrides):
        return list(overrides)

    def separate(text: str) -> str:
        if not text.lstrip("+").startswith("output=") or "${" in text:
            return text
        parsed = _parse(text)  # what cannot be read is explained later
        return text if parsed is None or parsed.is_sweep_override() else f"hydra.sweep.dir={text.partition('=')[2]}"

    return [separate(text) for text in overrides]


def _parse(override: str) -> Any:
    """Return an override as Hydra reads it, or None if its grammar refuses it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with contextlib.suppress(HydraException):
        return OverridesParser.create().parse_override(override)
    return None


def _is_number(value: str) -> bool:
    try:
        float(value.replace("_", ""))
    except ValueError:
        return False
    return True


def explain(error: Exception, overrides: Sequence[str] = (), job: str = "") -> str:
    """Return what is wrong with a job's overrides, in one line that names the key.

    The error is what Hydra or OmegaConf raised while it composed the configuration.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return f"{error.override}: expected key=value; quote special characters, e.g. 'key=\"a,b\"'"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return unknown_option(group, option, error.options)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        full_key = str(cause.full_key)
        given = (key for key, _ in _split(overrides) if f"{key}.".startswith(f"{full_key}."))
        return explain_key(next(given, full_key), job) or _explain_key(full_key, str(cause.key), cause.parent_node)
    if line := _explain_group(overrides, job):
        return line
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()]
    if isinstance(error, MissingConfigException):
        return lines[0]  # the rest is the search path
    return "; ".join(line for line in lines if line and not line.startswith("See https"))


def register_resolvers() -> None:
    """Let configurations ask for `${datasets_there:...}`, `${help.groups:}` and what else stands here."""
    OmegaConf.register_new_resolver("datasets_there", _datasets_there, replace=True)
    OmegaConf.register_new_resolver("own_folder", own_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("folder_of_output", _folder_of_output, replace=True)
    OmegaConf.register_new_resolver("help.groups", _groups, replace=True)
    OmegaConf.register_new_resolver("help.setting", _setting, replace=True)


def _explain_group(overrides: Sequence[str], job: str) -> str | None:
    """Return a line for the first override of a group that cannot be meant, or of one that has another name."""
    for key, value in _split(overrides):
        group = key.partition("@")[0]
        if line := explain_key(key, job):
            return line
        is_name = value.lower() not in ("null", "true", "false") and not _is_number(value)
        if not is_name and files("gicinpaint.conf").joinpath(group).is_dir():
            return f"{key}={value}: {group} is a group; name one of its options, or leave it out with ~{group}"
    return None


def _split(overrides: Iterable[str]) -> list[tuple[str, str]]:
    """Return keys and values of overrides, options such as --cfg left out."""
    pairs = (text.lstrip("+~").partition("=") for text in overrides if not text.startswith("-"))
    return [(key, value) for key, _, value in pairs]


def _explain_key(full_key: str, key: str, parent: DictConfig) -> str:
    path = full_key.rpartition(".")[0]
    known = _known_arguments(parent)
    if key in known:
        return f"{full_key}: not in the configuration yet; add it with +{full_key}=<value>"
    match = closest(key, {str(name) for name in parent} | known)
    if match is None:
        return f"{full_key}: no such key; --cfg job shows all keys"
    return f"{full_key}: no such key; did you mean {path + '.' if path else ''}{match}?"


def _known_arguments(node: DictConfig) -> set[str]:
    try:
        return set(arguments(node["_target_"]) or ()) if "_target_" in node else set()
    except ImportError:  # the target is wrong too; the key is what was asked about
        return set()


def own_folder(path: str) -> str:
    """Make a folder for this run alone and return it; where another run took it, in the same second, a number is added.

    Processes of a distributed run but the first one make none: they share the first one's.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> [Path(own_folder(f"{folder}/12-00-00")).name for _ in range(3)]
        ['12-00-00', '12-00-00-2', '12-00-00-3']
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        return path
    claimed, number = path, 1
    while True:
        try:
            os.makedirs(claimed)
            return claimed
        except FileExistsError:
            number += 1
            claimed = f"{path}-{number}"
        except OSError:  # whoever writes there says so
            return path


def _run_folder(path: str, _root_: DictConfig) -> str:
    """Return the folder that `output` names, else one for this run alone, the same however often it is asked for."""
    made = OmegaConf.get_cache(_root_)["run_folder"]  # OmegaConf keeps none for resolvers that look at the root
    if path not in made:
        named = _named_output(_root_)
        made[path] = str(named) if named is not None and not named.is_file() else own_folder(path)
    return str(made[path])


def _folder_of_output(default: str, _root_: DictConfig) -> str:
    """Return the folder of the results, or of the one file that `output` names, else the default."""
    path = _named_output(_root_)
    if path is None:
        return default
    return str(path.parent if path.is_file() or (path.suffix and not path.is_dir()) else path)


def _named_output(config: DictConfig) -> Path | None:
    output = OmegaConf.to_container(config, resolve=False)["output"]  # type: ignore[call-overload, index]
    return None if output is None or "${" in str(output) else Path(str(output)).expanduser()


def _datasets_there(*names: str, _root_: DictConfig) -> str:
    """Return the datasets whose folder is in `data_dir`, as a list for a multirun; the sample set if there is none."""
    return ",".join(name for name in names if (Path(_root_.data_dir) / name).is_dir()) or "sample"


def _groups(_root_: DictConfig) -> str:
    """Return a line for each group that the job reads, with what is chosen now in brackets."""
    loader = GlobalHydra.instance().config_loader()
    chosen = {group: name for group, name in _root_.hydra.runtime.choices.items() if not group.startswith("hydra/")}
    width = max(map(len, chosen), default=0)
    lines = []
    for group, name in reversed(chosen.items()):  # Hydra counts from the last default to the first
        options = loader.get_group_options(group.partition("@")[0])
        shown = ", ".join(f"[{option}]" if option == name else option for option in options)
        indent = " " * (width + 5)
        lines += textwrap.wrap(f"  {group:{width}}   {shown}", _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
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
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


class AfterMultirun(Callback):
    """Call something with the multirun's folder when all runs have ended.

    Args:
        call: Plain data with the `_target_` that is called; nothing of it is imported before.
    """

    def __init__(self, call: DictConfig) -> None:
        self.call = call

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Make the call; if it fails, say why and exit with 1. Hydra itself would turn an error into a warning."""
        try:
            build(self.call, _partial_=True)(config.hydra.sweep.dir)
        except Exception as error:
            if isinstance(error, JobError):
                print(f"gicinpaint: after the multirun: {error}", file=sys.stderr)
            else:
                traceback.print_exc()
            raise SystemExit(1) from None
