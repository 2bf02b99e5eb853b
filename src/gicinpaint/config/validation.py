"""Refusing a wrong configuration before anything is built from it.

Hydra accepts `optimizer.lr=abc`, `optimizer.lr=`, `+typo=1` and values that are still missing. Here the constructor is
the schema: every node with a `_target_` is compared with the signature of what it calls, and every other value must
have a reader.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gicinpaint.compat import failing_key
from gicinpaint.config.aliases import FOREIGN, explain_key, explain_option
from gicinpaint.config.signatures import accepts, arguments, describe, hints

_CALL_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


class ConfigurationError(ValueError):
    """A configuration that cannot be meant: a wrong key, a wrong kind of value, or a value that is missing."""


class JobError(Exception):
    """A job that cannot go on, for a reason that its user can mend; the message is one line."""


def check_configuration(config: DictConfig, reads: Mapping[str, Any]) -> None:
    """Raise unless every value of a job's configuration is complete, of the right kind, and used.

    A value is used if it is an argument of a `_target_`, if an interpolation such as `${mask}` refers to it, or if the
    job reads it itself: `reads` has the keys and types of these.

    Raises:
        ConfigurationError: If a value is missing, empty, of a wrong type or unused, or if a `_target_` cannot be found,
            lacks an argument or does not know one.
    """
    values = dict(_values(OmegaConf.to_container(config, resolve=False)))
    for path, value in values.items():
        if value == "???":
            raise ConfigurationError(f"{'.'.join(path)}: a value is missing; set it with {'.'.join(path)}=<value>")
    try:
        OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"{error.full_key or 'configuration'}: {_first_line(error)}") from error
    for key, expected in reads.items():
        if key in config:
            _check_value(key, _plain(config[key]), expected)
    for key in FOREIGN.get(_job(), {}):
        if OmegaConf.select(config, key) is not None:
            raise ConfigurationError(explain_key(key, _job()) or key)
    references = {key for path, value in values.items() for key in _references(value, path)}

    def is_used(path: str) -> bool:
        parts = path.split(".")
        return path in reads or any(".".join(parts[:n]) in references for n in range(1, len(parts) + 1))

    _check_node(config, "", is_used)


def load_option(group: str, name: str) -> DictConfig | None:
    """Return what an option of a group holds, found as the job's own configuration was; None for an empty option.

    Raises:
        ConfigurationError: If there is no such option.
    """
    loader = GlobalHydra.instance().config_loader()
    options = loader.get_group_options(group)
    if name not in options:
        raise ConfigurationError(unknown_option(group, name, options))
    found = loader.load_configuration(f"{group}/{name}", [], run_mode=RunMode.RUN)
    OmegaConf.set_struct(found, False)
    node: DictConfig | None = found[group]
    return node


def unknown_option(group: str, name: str, options: Sequence[str]) -> str:
    """Return a line for an option that a group does not have, with the one that was most likely meant."""
    if line := explain_option(group, name):
        return line
    match = closest(name, options)
    hint = f"did you mean {group}={match}? " if match else ""
    return f"{group}={name}: no such option; {hint}The options are {', '.join(options)}"


def build(node: DictConfig, **extra: Any) -> Any:
    """Build what a node's `_target_` names, with further arguments that are known only at run time.

    Raises:
        JobError: If a constructor refuses a value, or a package or file that it needs is absent.
    """
    try:
        return instantiate(node, **extra, _convert_="all")
    except InstantiationException as error:
        from lightning.fabric.utilities.exceptions import MisconfigurationException  # slow: help pages do without

        cause = error.__cause__
        if not isinstance(cause, ValueError | TypeError | OSError | ImportError | MisconfigurationException):
            raise
        key = failing_key(error)
        raise JobError(f"{key}: {_first_line(cause)}" if key else _first_line(cause)) from error


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that a mistyped name most likely stands for, or None."""
    matches = difflib.get_close_matches(name, sorted(set(candidates)), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _check_node(node: DictConfig, path: str, is_used: Callable[[str], bool] | None) -> None:
    """Walk a mapping. `is_used` is None inside the arguments of a call, where every value is used."""
    if "_target_" in node:
        _check_call(node, path)
        is_used = None
    for key in node:
        child_path = _join(path, key)
        if OmegaConf.is_interpolation(node, str(key)):
            continue  # checked at its own place, or by the call that takes it
        child = node[key]
        if isinstance(child, DictConfig):
            _check_node(child, child_path, is_used)
        elif isinstance(child, ListConfig):
            for index in range(len(child)):
                if not OmegaConf.is_interpolation(child, index) and isinstance(child[index], DictConfig):
                    _check_node(child[index], f"{child_path}.{index}", is_used)
        elif isinstance(child, str) and not child:
            raise ConfigurationError(f"{child_path}: the value is empty; write {child_path}=null for none")
        if is_used and child is not None and not isinstance(child, DictConfig) and not is_used(child_path):
            raise ConfigurationError(
                explain_key(child_path, _job()) or f"{child_path}: nothing reads this key{_hint(path, str(key), node)}"
            )


def _check_call(node: DictConfig, path: str) -> None:
    target = node["_target_"]
    if not isinstance(target, str):
        raise ConfigurationError(f"{_join(path, '_target_')}: expected the dotted path of a class, got {target!r}")
    try:
        known = arguments(target)
    except ImportError as error:
        raise ConfigurationError(f"{_join(path, '_target_')}: {error}") from error
    types = hints(target)
    for key in (str(key) for key in node if key not in _CALL_KEYS):
        if known is not None and key not in known:
            raise ConfigurationError(
                explain_key(_join(path, key))
                or f"{_join(path, key)}: {target} takes no such value{_hint(path, key, known)}"
            )
        parameter = known.get(key) if known else None
        value = _plain(node[key])
        if key in types and not (parameter and value is parameter.default):
            _check_value(_join(path, key), value, types[key])
    if not node.get("_partial_") and "_args_" not in node:
        for name, parameter in (known or {}).items():
            if parameter.default is parameter.empty and name not in node:
                raise ConfigurationError(
                    f"{(key := _join(path, name))}: a value is missing; set it with +{key}=<value>"
                )


def _check_value(path: str, value: object, expected: object) -> None:
    if value == "":
        raise ConfigurationError(f"{path}: the value is empty; write {path}=null for none")
    if not accepts(expected, value):
        raise ConfigurationError(f"{path}: expected {describe(expected)}, got {value!r}")


def _values(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each value of a plain configuration with the words of its key, numbers in lists included."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(child, (*path, str(key)))
    else:
        yield path, value


def _references(value: object, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys that the interpolations of an unresolved value refer to."""
    for text in re.findall(r"\$\{([^}]*)", value) if isinstance(value, str) else ():
        for dots, name in re.findall(r"(\.*)(\w[\w.]*)", text):  # ${.key}: a neighbour, ${..key}: one level up
            yield ".".join((*path[: len(path) - len(dots)], name)) if dots else name


def _hint(path: str, key: str, candidates: Iterable[object]) -> str:
    match = closest(key, (str(name) for name in candidates if name not in (key, *_CALL_KEYS)))
    return f"; did you mean {_join(path, match)}?" if match else f"; remove it, with ~{_join(path, key)} if not yours"


def _job() -> str:
    """Return the name of the job that runs, empty outside of one."""
    return str(HydraConfig.get().job.name) if HydraConfig.initialized() else ""


def _plain(value: object) -> object:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
