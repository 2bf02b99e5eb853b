"""One line for each way in which a command line can fail to compose."""

import contextlib
import io
import re
from collections.abc import Sequence

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from gicinpaint.config.aliases import explain_key, explain_option
from gicinpaint.config.validation import ConfigurationError, arguments, closest


def complaint_about_options(command_line: Sequence[str]) -> str | None:
    """Return what is wrong with options such as --multirun, in one line, or None if they can be read.

    Args:
        command_line: Everything after the job's name.
    """
    from hydra._internal.utils import get_args_parser  # what hydra.main reads the command line with

    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
            get_args_parser().parse_args(command_line)
    except SystemExit as stop:
        if stop.code:
            return output.getvalue().strip().splitlines()[-1].partition("error: ")[2]
    return None


def explain(error: Exception, overrides: Sequence[str] = (), job: str = "") -> str:
    """Return what is wrong with the overrides, in one line that names the key.

    Args:
        error: What Hydra or OmegaConf raised while it composed a configuration.
        overrides: The overrides as they were given.
        job: The job that they were given to.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return f"{error.override}: expected key=value; quote special characters, e.g. 'key=\"a,b\"'"
    if isinstance(error, MissingConfigException) and error.options is not None:
        return _explain_option(error.missing_cfg_file or "", error.options)
    if line := _explain_old_name(str(error), overrides, job):
        return line
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        return _explain_key(str(cause.full_key), str(cause.key), cause.parent_node)
    if str(error).startswith("Config group override must be"):
        return _explain_group(overrides) or str(error)
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()]
    if isinstance(error, MissingConfigException):
        return lines[0]  # the rest is the search path
    return "; ".join(line for line in lines if line and not line.startswith("See https"))


def _explain_old_name(error: str, overrides: Sequence[str], job: str) -> str | None:
    named = set(re.findall(r"[\w.@/]+", error))
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        words = key.split(".")
        refused = named & {".".join(words[: n + 1]) for n in range(len(words))}
        if refused and (line := explain_key(key, job)):
            return line
    return None


def _explain_option(missing: str, options: Sequence[str]) -> str:
    group, _, option = missing.rpartition("/")
    if line := explain_option(group, option):
        return line
    match = closest(option, options)
    hint = f"did you mean {group}={match}? " if match else ""
    return f"{group}={option}: no such option; {hint}The options are {', '.join(options)}"


def _explain_group(overrides: Sequence[str]) -> str | None:
    for override in overrides:
        if found := re.fullmatch(r"\+?([\w/@]+)=(null|true|false|[-\d.e]+)", override, re.IGNORECASE):
            group = found[1]
            return f"{override}: {group} is a group; name one of its options, or leave it out with ~{group}"
    return None


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
    except ConfigurationError:  # the target is wrong too; the key is what was asked about
        return set()
