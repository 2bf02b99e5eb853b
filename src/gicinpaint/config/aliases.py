"""Old names of keys, options and classes, and names from elsewhere that people try: the one table of renames.

`explain_key` answers an override or a yaml key with the name that is in use; `modernize` gives the settings of an old
checkpoint the names of today. A name that is still in use is never looked up here: callers ask after it was refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# A key of several words is found at any depth: attention.backend.fuse also inside model.generator. `*` is any one word.
KEYS = {
    "model.clip": "model.grad_clip_norm",
    "model.pieces": "model.micro_batches",
    "model.frozen": "model.freeze",
    "model.global_critic": "model.critics.global",
    "model.local_critic": "model.critics.local",
    "attention.backend.fuse": "attention.backend.compile",
    "mask.share": "mask.hole_ratio",
    "masks.*.share": "masks.*.hole_ratio",
    "dataset.colours": "dataset.color_augment",
    "callbacks.average": "callbacks.ema",
    "callbacks.advice": "callbacks.training_health",
    "callbacks.measurements": "callbacks.throughput",
    "preset": "eval_mask",
}
OPTIONS = {"attention=none": "model=baseline"}
TARGETS = {  # the longest beginning that fits is replaced; the modules can also be imported by their old names
    "gicinpaint.attention_pictures": "gicinpaint.attention.visualize",
    "gicinpaint.baselines": "gicinpaint.evaluation.baselines",
    "gicinpaint.blocks": "gicinpaint.models.layers",
    "gicinpaint.callbacks": "gicinpaint.training.callbacks",
    "gicinpaint.callbacks.Advise": "gicinpaint.training.callbacks.TrainingHealth",
    "gicinpaint.callbacks.AverageGenerator": "gicinpaint.training.callbacks.GeneratorEMA",
    "gicinpaint.callbacks.LogMeasurements": "gicinpaint.training.callbacks.ThroughputMonitor",
    "gicinpaint.checkpoints": "gicinpaint.training.checkpoint",
    "gicinpaint.compositing": "gicinpaint.models.compositing",
    "gicinpaint.config.multirun": "gicinpaint.config.command_line",
    "gicinpaint.critics": "gicinpaint.models.critics",
    "gicinpaint.data.VaryColours": "gicinpaint.data.ColorJitter",
    "gicinpaint.evaluation.masks": "gicinpaint.evaluation",
    "gicinpaint.filling.hole": "gicinpaint.inference.canvas",
    "gicinpaint.flow": "gicinpaint.attention.attention_map",
    "gicinpaint.generator": "gicinpaint.models.generator",
    "gicinpaint.inpainter": "gicinpaint.inference.inpainter",
    "gicinpaint.losses.CrossEntropy": "gicinpaint.losses.NonSaturating",
    "gicinpaint.module": "gicinpaint.training.module",
    "gicinpaint.official": "gicinpaint.weights",
    "gicinpaint.record": "gicinpaint.training.run_record",
    "gicinpaint.training.wandb_logger": "gicinpaint.training.loggers",
    "gicinpaint.wandb_runs": "gicinpaint.training.loggers",
}
# Names that people know from elsewhere, for each job.
_TRAIN = {
    "accumulate_grad_batches": "model.micro_batches",
    "batch_size": "dataset.batch_size",
    "ckpt_path": "resume",
    "clip": "model.grad_clip_norm",
    "devices": "trainer.devices",
    "enable_progress_bar": "trainer.enable_progress_bar",
    "epochs": "updates",
    "gpus": "trainer.devices",
    "gradient_clip_val": "model.grad_clip_norm",
    "image_size": "dataset.image_size",
    "learning_rate": "optimizer.lr",
    "lr": "optimizer.lr",
    "max_epochs": "updates",
    "max_steps": "updates",
    "num_workers": "dataset.workers",
    "precision": "trainer.precision",
    "steps": "updates",
    "trainer.accumulate_grad_batches": "model.micro_batches",
    "trainer.gradient_clip_val": "model.grad_clip_norm",
    "weight_decay": "+optimizer.weight_decay",
    "workers": "dataset.workers",
}
FOREIGN = {
    "train": _TRAIN,
    "inpaint": {"image": "input", "images": "input", "mask": "masks", "weights": "checkpoint"},
    "evaluate": {"checkpoint": "+checkpoints.NAME", "image_size": "dataset.image_size", "mask": "eval_mask"},
    "demo": {"weights": "checkpoint"},
    "export": {"weights": "checkpoint"},
}
SECOND_NAMES = {job: {"model": "checkpoint"} for job in ("inpaint", "demo", "export")}  # as good as the first


def first_names(overrides: Sequence[str], job: str) -> list[str]:
    """Return overrides with the keys that the job's configuration has.

    Example:
        >>> first_names(["model=faces_128", "input=a.png"], "inpaint")
        ['checkpoint=faces_128', 'input=a.png']
    """
    names = SECOND_NAMES.get(job, {})
    pairs = (override.partition("=") for override in overrides)
    return [names.get(key, key) + equals + value for key, equals, value in pairs]


def explain_key(key: str, job: str = "") -> str | None:
    """Return a line that names the key to write instead of one that a job refused, or None for one not in the table.

    The key is as on the command line, without `+` or `~` and without its value.

    Example:
        >>> explain_key("model.clip")
        'model.clip is called model.grad_clip_norm now'
        >>> explain_key("preset@dataset.validation_mask")
        'preset@dataset.validation_mask is called eval_mask@dataset.validation_mask now'
        >>> explain_key("lr", "train")
        'lr: no such key; write optimizer.lr'
    """
    group, at, package = key.partition("@")
    if new := new_key(group):
        return f"{key} is called {new}{at}{package} now"
    foreign = FOREIGN.get(job, {}).get(key)
    return foreign and f"{key}: no such key; write {foreign}"


def explain_option(group: str, option: str) -> str | None:
    """Return a line that names the option to choose instead, or None."""
    new = OPTIONS.get(f"{group}={option}")
    return new and f"{group}={option} is called {new} now"


def new_key(key: str) -> str | None:
    """Return the present name of a renamed key, or None.

    Example:
        >>> new_key("callbacks.average.decay"), new_key("dataset.mask.masks.1.share"), new_key("mask.box")
        ('callbacks.ema.decay', 'dataset.mask.masks.1.hole_ratio', None)
    """
    for old, new in KEYS.items():
        above = r"(|.*?\.)" if "." in old else "()"  # a name of one word is the first word alone
        words = re.escape(old).replace(r"\*", r"([^.]*)")
        if found := re.fullmatch(rf"{above}{words}(|\..*)", key):
            before, *stars, after = found.groups()
            return before + new.replace("*", "{}").format(*stars) + after
    return None


def new_target(target: str) -> str:
    """Return where the class or function lies that a `_target_` names; unchanged if it has not moved."""
    fitting = [old for old in TARGETS if target == old or target.startswith(f"{old}.")]
    old = max(fitting, key=len, default="")
    return TARGETS[old] + target[len(old) :] if old else target


def modernize(settings: Mapping[str, Any], root: str = "model") -> dict[str, Any]:
    """Return plain settings, such as a checkpoint's `config`, with the present names of their keys and `_target_`s.

    Their place in the configuration of a run is `root`.

    Example:
        >>> modernize({"_target_": "gicinpaint.module.InpaintingModule", "clip": 1.0, "local_critic": None})
        {'_target_': 'gicinpaint.training.module.InpaintingModule', 'grad_clip_norm': 1.0, 'critics': {'local': None}}
    """
    renamed: dict[str, Any] = {}
    for key, value in settings.items():
        path = new_key(f"{root}.{key}") or f"{root}.{key}"
        node, words = renamed, path.removeprefix(f"{root}.").split(".")
        for word in words[:-1]:
            node = node.setdefault(word, {})
        value = new_target(value) if key == "_target_" and isinstance(value, str) else _modernize_value(value, path)
        if isinstance(value, dict) and isinstance(node.get(words[-1]), dict):
            value = node[words[-1]] | value
        node[words[-1]] = value
    return renamed


def _modernize_value(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return modernize(value, path)
    if isinstance(value, list):
        return [_modernize_value(item, f"{path}.{index}") for index, item in enumerate(value)]
    return value
