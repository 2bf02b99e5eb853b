"""JSON schemas of the configuration, made from constructors' signatures: editors complete and check yaml with them."""

import inspect
import json
import re
import types
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.jobs import JOBS
from gicinpaint.config.signatures import arguments, describe, find, hints
from gicinpaint.config.validation import JobError

Schema = dict[str, Any]
_INTERPOLATION: Schema = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
_NULL: Schema = {"type": "null"}
_NODE: Schema = {"$ref": "#/$defs/node"}
_BUILT: Schema = {"allOf": [_NODE, {"required": ["_target_"]}]}
_PLAIN: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    type(None): _NULL,
}
_CALL_KEYS: dict[str, Schema] = {
    "_target_": {"type": "string"},
    "_partial_": {"type": "boolean"},
    "_recursive_": {"type": "boolean"},
    "_convert_": {"enum": ["none", "partial", "object", "all"]},
    "_args_": {"type": "array"},
}
_OURS = {("lightning.Trainer", "precision"): {"const": "auto"}}  # values that a job replaces before it builds
_GLOBAL = "# @package _global_"
_DEFAULTS: Schema = {"type": "array"}


class _Tree:
    """What the files of a group hold at one place: the targets that may stand there, and the keys below."""

    def __init__(self) -> None:
        self.targets: set[str] = set()
        self.children: dict[str, _Tree] = {}
        self.items: _Tree | None = None  # mappings in a list
        self.plain = False  # some file has a plain value here

    def add(self, value: object) -> None:
        """Take in what a file holds here."""
        for item in value if isinstance(value, list) else ():
            if isinstance(item, dict):
                self.items = self.items or _Tree()
                self.items.add(item)
        if not isinstance(value, dict):
            self.plain = self.plain or not (value is None or (isinstance(value, str) and "${" in value))
            return
        if isinstance(target := value.get("_target_"), str):
            self.targets.add(target)
        for key, child in value.items():
            if key not in (*_CALL_KEYS, "defaults"):
                self.children.setdefault(str(key), _Tree()).add(child)

    def every_target(self) -> set[str]:
        """Return the targets here and below."""
        below = [*self.children.values(), *([self.items] if self.items else [])]
        return self.targets.union(*(child.every_target() for child in below))


def write_schemas(folder: str = "schema") -> None:
    """Write a schema for each job and group to a folder, and print an editor's settings that name the files of each."""
    for name, schema in schemas().items():
        write_text(Path(folder) / f"{name}.json", json.dumps(schema, indent=1) + "\n")
    served: dict[str, list[str]] = {}
    for path, _ in _yaml_files():
        served.setdefault(f"./{folder}/{schema_name(path)}.json", []).append(f"conf/{path}")
    print(json.dumps({"yaml.schemas": served}, indent=1))


def schema_name(path: str) -> str:
    """Return which schema a file within `conf` has to fit: that of its group, or of a job, where it is a part of that.

    Example:
        >>> [schema_name(path) for path in ("train.yaml", "model/gated.yaml", "experiment/quickstart.yaml")]
        ['train', 'model', 'train']
    """
    group = path.partition("/")[0].removesuffix(".yaml")
    if group in JOBS and "/" not in path:
        return group
    if files("gicinpaint.conf").joinpath(path).read_text(encoding="utf-8").startswith(_GLOBAL):
        return next(job for job in JOBS if group in _groups(_primary(job)))
    return group


def schemas() -> dict[str, Schema]:
    """Return the schema of each job and of each group, by name."""
    trees: dict[str, _Tree] = {}
    for path, text in _yaml_files():
        name, content = schema_name(path), yaml.safe_load(text) or {}
        if name not in JOBS:
            trees.setdefault(name, _Tree()).add(content)
            continue
        for key, value in content.items():  # a group's place in a job, or a value of the job
            trees.setdefault(key if key in _group_names() else f"{name}.{key}", _Tree()).add(value)
    every = set().union(*(tree.every_target() for tree in trees.values()))
    definitions = _definitions(every)
    found = {group: _document(_place(trees.get(group, _Tree()))) for group in _group_names()}
    for job in JOBS:
        found[job] = _document(_job(job, trees))
    return {name: schema | {"$defs": definitions} for name, schema in found.items()}


def _document(schema: Schema) -> Schema:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", **schema}


def _job(job: str, trees: Mapping[str, _Tree]) -> Schema:
    try:
        reads = import_module(JOBS[job].function.partition(":")[0]).READS
    except (ImportError, JobError):  # needs an extra that is not installed: its values stay without a type
        reads = {}
    content = yaml.safe_load(_primary(job))
    properties: dict[str, Schema] = {"defaults": _DEFAULTS, "hydra": {"type": "object"}}
    for group in _groups(_primary(job)):
        properties[group] = {"anyOf": [_place(trees.get(group, _Tree())), _NULL, _INTERPOLATION]}
    texts = [text for _, text in _yaml_files()]
    own = {name.partition(".")[2] for name in trees if name.startswith(f"{job}.")}
    shared = {key for key in own if any(f"${{{key}" in text for text in texts)}  # values that files name for themselves
    for key in {*content, *reads, *shared} - {*properties}:
        tree = trees.get(f"{job}.{key}", _Tree())
        if tree.targets or tree.children:
            properties[key] = {"anyOf": [_place(tree), _NULL, _INTERPOLATION]}
        else:
            properties[key] = _either(_of(reads[key])) if key in reads else {}
    return {"properties": properties, "additionalProperties": _BUILT}  # a node that others refer to


def _place(tree: _Tree) -> Schema:
    """Return what may stand at a place: any of its targets' arguments, or a node with a target of its own."""
    below: Schema = {}
    for key, child in tree.children.items():
        if child.targets or child.children:
            plain = [{"not": {"type": "object"}}] * child.plain
            below[key] = {"anyOf": [_place(child), _NULL, _INTERPOLATION, *plain]}
    known = [arguments(target) for target in tree.targets]
    if not tree.targets:
        leaves: Schema = {key: {} for key in tree.children}
        others = {"anyOf": [_BUILT, _NULL, _INTERPOLATION]}
        properties = {"defaults": _DEFAULTS, **leaves, **below}
        return {"type": "object", "properties": properties, "additionalProperties": others}
    if None in known:  # one of them takes any name
        return {"type": "object", "properties": below}
    types_of: dict[str, list[Schema]] = {}
    for target in tree.targets:
        for name, annotation in hints(target).items():
            types_of.setdefault(name, []).append(_argument(target, name, annotation))
    free: Schema = {name: {} for parameters in known for name in parameters or ()}
    free |= {name: _either(*found) for name, found in types_of.items() if name in free}
    free |= {key: {} for key in ("defaults", *_CALL_KEYS)} | below
    return {
        "type": "object",
        "properties": {"defaults": _DEFAULTS, **_CALL_KEYS, **below},
        "if": {"required": ["_target_"]},
        "then": _NODE,
        "else": {"properties": free, "additionalProperties": False},
    }


def _definitions(targets: Iterable[str]) -> dict[str, Schema]:
    """Return `node`, any mapping that may have a target, and what each known target takes, by its last name."""
    named: dict[str, list[str]] = {}
    for target in sorted(targets):
        named.setdefault(target.rpartition(".")[2], []).append(target)
    own = "|".join(sorted(name for name, paths in named.items() if any(p.startswith("gicinpaint.") for p in paths)))
    definitions = {name: _call(paths[0]) for name, paths in named.items()}
    others = {"pattern": rf"^(?!gicinpaint\.)|\.({own})(\.\w+)?$"}
    names = {"type": "string", "anyOf": [{"enum": sorted(targets)}, others]}
    calls = []
    for name, paths in named.items():
        is_named = {"properties": {"_target_": {"enum": paths}}, "required": ["_target_"]}
        calls.append({"if": is_named, "then": {"$ref": f"#/$defs/{name}"}})
    return definitions | {"node": {"type": "object", "properties": {"_target_": names}, "allOf": calls}}


def _call(target: str) -> Schema:
    """Return what a target takes: its arguments with types, defaults and their lines of the docstring."""
    known = arguments(target)
    if known is None:
        return {"type": "object"}
    annotations, texts = hints(target), _argument_texts(find(target))
    properties: dict[str, Schema] = {"defaults": _DEFAULTS, **_CALL_KEYS}
    for name, parameter in known.items():
        kind = describe(annotations[name]) if name in annotations else ""
        default = "" if parameter.default is parameter.empty else f"default {parameter.default!r}"
        words = [texts.get(name, ""), "; ".join(filter(None, (kind, default)))]
        properties[name] = {
            "description": re.sub(r" at 0x\w+", "", "\n".join(filter(None, words))),
            **(_either(_argument(target, name, annotations[name])) if name in annotations else {}),
        }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _argument_texts(found: Any) -> dict[str, str]:
    """Return what a docstring says of each argument."""
    block = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", inspect.getdoc(found) or "", re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n      .*)*)", block[1], re.MULTILINE) if block else []
    return {name: " ".join(text.split()) for name, text in entries}


def _either(*options: Schema) -> Schema:
    """Return a schema that one of some meets, or an interpolation, or a node that builds the value."""
    if {} in options:
        return {}
    return {"anyOf": [*options, _INTERPOLATION, *([_BUILT] if _NODE not in options else [])]}


def _argument(target: str, name: str, annotation: Any) -> Schema:
    schema, ours = _of(annotation), _OURS.get((target, name))
    return {"anyOf": [schema, ours]} if schema and ours else schema


def _of(expected: Any) -> Schema:
    """Return what `signatures.accepts` accepts for an annotation, as a schema; in doubt anything."""
    origin, options = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        schemas = [_of(option) for option in options]
        return {} if {} in schemas else {"anyOf": schemas}
    if origin is Literal:
        return {"enum": list(options)}
    if expected is None or expected in _PLAIN:
        return _PLAIN[expected or type(None)]
    kind = origin or expected
    if not isinstance(kind, type) or kind in (Any, object) or getattr(kind, "_is_protocol", False):
        return {}
    if issubclass(kind, tuple) and options and options[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [_of(o) for o in options], "minItems": len(options), "items": False}
    if issubclass(kind, Iterable) and not issubclass(kind, Mapping) and (origin or kind in (list, tuple)):
        return {"type": "array", **({"items": _of(options[0])} if options else {})}
    if hasattr(kind, "__fspath__"):
        return {"type": "string"}
    return {"type": "object"} if issubclass(kind, Mapping) else _NODE


def _yaml_files() -> list[tuple[str, str]]:
    """Return the files of `conf` that are ours to check, within it, and their texts."""
    root = Path(str(files("gicinpaint.conf")))
    paths = sorted(path.relative_to(root) for path in root.rglob("*.yaml"))
    return [(path.as_posix(), (root / path).read_text("utf-8")) for path in paths if "hydra" not in path.parts]


def _primary(job: str) -> str:
    return files("gicinpaint.conf").joinpath(f"{job}.yaml").read_text(encoding="utf-8")


def _groups(primary: str) -> list[str]:
    """Return the groups that a job's defaults choose from."""
    entries = yaml.safe_load(primary)["defaults"]
    keys = [key for entry in entries if isinstance(entry, dict) for key in entry]
    return [key.partition("@")[0] for key in keys if not key.startswith("override ")]


def _group_names() -> list[str]:
    return sorted({path.partition("/")[0] for path, _ in _yaml_files() if "/" in path})
