"""The demo job: open the model, start the server, clean up."""

import ipaddress
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gicinpaint.config.validation import ConfigurationError, JobError, check_configuration

READS = {
    "checkpoint": str | None,
    "device": str,
    "host": str,
    "port": int,
    "max_upload": float,
    "max_pixels": int,
    "max_waiting": int,
    "max_disk": float,
    "max_memory": float,
    "threads": int | None,
}


def demo(config: DictConfig) -> None:
    """Serve the page and the API until interrupted.

    Args:
        config: `conf/demo.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If there is no model, a package is absent, or the port is taken.
    """
    check_configuration(config, READS)
    for key in ("max_upload", "max_pixels", "max_waiting", "max_disk"):
        if config[key] <= 0:
            raise ConfigurationError(f"{key}: expected a number above 0, got {config[key]}")
    _check_address(config.host, config.port)
    with tempfile.TemporaryDirectory(prefix="gicinpaint-demo-") as folder:
        # gradio reads these when it is imported
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_TEMP_DIR=folder)
        try:
            import gradio  # noqa: F401
            import uvicorn
        except ImportError as error:
            raise JobError("the demo needs gradio; install it with pip install 'gicinpaint[demo]'") from error
        application = _application(config, Path(folder))
        if not _is_loopback(config.host):
            print(f"WARNING: {config.host} can be reached from other machines, and nobody is asked for a password")
        print(f"open http://{config.host}:{config.port} in a browser; Ctrl-C ends the server", flush=True)
        uvicorn.run(application, host=config.host, port=config.port, log_level="warning", timeout_graceful_shutdown=2)


def _application(config: DictConfig, folder: Path) -> Any:
    import torch

    from gicinpaint.data.datasets import SAMPLE_TRAIN, SamplePhotographs
    from gicinpaint.demo.filler import Filler, Limits
    from gicinpaint.demo.server import build_application
    from gicinpaint.demo.storage import Storage
    from gicinpaint.inference.inpainter import Inpainter

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    options = {"device": config.device, "max_memory": config.max_memory, "progress": False}
    try:
        if config.checkpoint is None:
            inpainter = Inpainter.default(**options)
        else:
            inpainter = Inpainter.from_checkpoint(config.checkpoint, **options)
    except ValueError as error:
        hint = "; or name one: gicinpaint demo checkpoint=FILE" if config.checkpoint is None else ""
        raise JobError(f"{error}{hint}") from error
    limits = Limits(
        upload=int(config.max_upload * 1e6),
        pixels=config.max_pixels,
        waiting=config.max_waiting,
        disk=int(config.max_disk * 1e6),
    )
    storage = Storage(folder, limits.disk)
    examples = SamplePhotographs(SAMPLE_TRAIN[:4]).paths
    return build_application(Filler(inpainter, limits), storage, examples, f"http://{config.host}:{config.port}")


def _check_address(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except (OSError, OverflowError) as error:
        raise JobError(
            f"cannot serve at {host}:{port}: {error}; choose another with port={port % 60000 + 1}"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
