"""The words of the command `gicinpaint`: jobs, which Hydra configures, and commands, which take plain arguments."""

import inspect
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any, NamedTuple

from omegaconf import DictConfig


class Job(NamedTuple):
    """A job: what it does, in a line, and where the function lies that does it with a composed configuration."""

    summary: str
    function: str

    def __call__(self, config: DictConfig) -> Any:
        """Run the job and return what it returns; only now is it imported, with what it needs."""
        return resolve_name(self.function)(config)


class Command(NamedTuple):
    """A command: how it is written, what it does, and where its function lies, which takes its arguments as texts."""

    usage: str
    summary: str
    function: str

    def __call__(self, words: Sequence[str]) -> None:
        """Run the command with its words; `name=value` is an argument by its name.

        Raises:
            ConfigurationError: If it does not take these words.
            JobError: If it fails for a reason that the user can mend.
        """
        from gicinpaint.config.validation import ConfigurationError

        function = resolve_name(self.function)
        named = dict(word.split("=", 1) for word in words if "=" in word)
        try:
            bound = inspect.signature(function).bind(*(word for word in words if "=" not in word), **named)
        except TypeError as error:
            raise ConfigurationError(f"{error}; write: gicinpaint {self.usage}") from None
        function(*bound.args, **bound.kwargs)


JOBS = {
    "train": Job("Train the networks on a dataset.", "gicinpaint.training.train:train"),
    "prepare": Job("Pack a dataset into shards, or find its bad images.", "gicinpaint.data.prepare:run_prepare"),
    "inpaint": Job("Fill holes in images: one, a folder, a pattern or shards.", "gicinpaint.inference.predict:inpaint"),
    "evaluate": Job("Measure methods on images and masks.", "gicinpaint.evaluation.evaluate:evaluate"),
    "benchmark": Job(
        "Measure time and memory of attention, generator or training step.", "gicinpaint.benchmark.run:run_benchmark"
    ),
    "convert": Job(
        "Convert a model: the authors' checkpoints, training checkpoints, safetensors.",
        "gicinpaint.weights.conversion:convert",
    ),
    "export": Job("Write a generator as ONNX and for torch.export.", "gicinpaint.weights.export:export"),
    "demo": Job("Serve a web page to paint and fill holes.", "gicinpaint.demo.server:demo"),
}
COMMANDS = {
    "models": Command("models", "List the models: size, licence, scores.", "gicinpaint.weights.hub:print_models"),
    "download": Command(
        "download NAME... [folder=FOLDER]", "Download models by name.", "gicinpaint.weights.hub:download_models"
    ),
    "dashboard": Command(
        "dashboard [entity=ENTITY] [project=PROJECT]",
        "Make a workspace and a report of W&B with a run's panels.",
        "gicinpaint.training.dashboard:upload_dashboard",
    ),
    "schema": Command(
        "schema [folder=FOLDER]",
        "Write JSON schemas of the configuration, for editors.",
        "gicinpaint.config.schema:write_schemas",
    ),
}
