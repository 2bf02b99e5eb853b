"""What a `_target_` can be called with: the names and types of a constructor, and which plain values they accept."""

import inspect
import math
import types
from collections.abc import Iterable, Mapping
from pkgutil import resolve_name
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gicinpaint.config.aliases import new_target

_PLAIN_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}


def arguments(target: str) -> dict[str, inspect.Parameter] | None:
    """Return what a `_target_` can be called with, or None if it takes any name or does not tell.

    Raises:
        ImportError: If there is no such class or function.
    """
    found = find(target)
    try:
        signature = inspect.signature(found)
    except ValueError:  # some builtins have no signature
        return None
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {p.name: p for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)}


def find(target: str) -> Any:
    """Return the class or function that a `_target_` names.

    Raises:
        ImportError: If there is no such thing; the message names where it has moved, if it has.
    """
    try:
        return resolve_name(target)
    except Exception as error:  # foreign modules may raise anything when they are imported
        if (new := new_target(target)) != target:
            raise ImportError(f"{target} is called {new} now") from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ImportError(f"cannot find {target!r} ({reason}); check the spelling and what is installed") from error


def hints(target: str) -> dict[str, Any]:
    """Return the types of what a `_target_` can be called with, as far as they are annotated.

    Raises:
        ImportError: If there is no such class or function.
    """
    found = find(target)
    try:
        return get_type_hints(found.__init__ if isinstance(found, type) else found)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker can read
        return {}


def accepts(expected: Any, value: object) -> bool:
    """Return whether a plain value, as yaml holds it, can be meant for an annotation; in doubt it can.

    Example:
        >>> accepts(float, 1), accepts(int, 1.0), accepts(tuple[int, int] | None, [1])
        (True, False, False)
    """
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return any(accepts(option, value) for option in get_args(expected))
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in get_args(expected))
    if isinstance(value, dict) and "_target_" in value:
        return True
    if expected is None or expected is type(None):
        return value is None
    if expected in (int, float):
        number = isinstance(value, int | expected) and not isinstance(value, bool)
        return number and not (isinstance(value, float) and math.isnan(value))
    if isinstance(value, list):
        return _accepts_list(expected, value)
    kind = origin or expected
    if not isinstance(kind, type) or kind in (Any, object) or getattr(kind, "_is_protocol", False):
        return True  # Any, type variables; what a protocol asks for shows in use
    if isinstance(value, str):
        return kind is str or hasattr(kind, "__fspath__") or (issubclass(str, kind) and not issubclass(kind, Iterable))
    return isinstance(value, kind) or (isinstance(value, dict) and not issubclass(kind, bool | str))


def _accepts_list(expected: Any, value: list[object]) -> bool:
    origin, options = get_origin(expected) or expected, get_args(expected)
    if not isinstance(origin, type):
        return True
    if issubclass(origin, tuple) and options and options[-1] is not Ellipsis:
        return len(options) == len(value) and all(map(accepts, options, value))
    if issubclass(origin, str | bool) or origin in (Mapping, dict):
        return False
    return all(accepts(options[0], item) for item in value) if options else True


def describe(expected: Any) -> str:
    """Return an annotation in words.

    Example:
        >>> describe(tuple[int, int] | None), describe(Literal["zeros", "mirror"])
        ('a list of 2 values or null', 'one of zeros, mirror')
    """
    origin, options = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        literals = [value for option in options if get_origin(option) is Literal for value in get_args(option)]
        others = [describe(option) for option in options if get_origin(option) is not Literal]
        named = [describe(Literal[tuple(literals)])] if literals else []
        return " or ".join(dict.fromkeys([*named, *others]))
    if origin is Literal:
        return "one of " + ", ".join(dict.fromkeys(map(str, options)))
    if isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        if issubclass(origin, tuple) and options and options[-1] is not Ellipsis:
            return f"a list of {len(options)} values"
        return f"a list ({describe(options[0])} each)" if options else "a list"
    return _PLAIN_NAMES.get(expected) or str(getattr(origin or expected, "__name__", expected))
