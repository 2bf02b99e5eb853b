"""The demo job: open the model, start the server."""

import ipaddress
import logging
import socket
from functools import partial

from omegaconf import DictConfig

from gicinpaint.config.validation import ConfigurationError, JobError, check_configuration
from gicinpaint.demo.application import Application, is_address
from gicinpaint.demo.filler import Filler, Limits

READS = {
    "checkpoint": str | None,
    "device": str,
    "host": str,
    "port": int,
    "names": list[str],
    "max_upload": float,
    "max_pixels": int,
    "max_waiting": int,
    "max_disk": float,
    "max_memory": float,
    "threads": int | None,
}
_CONNECTIONS = 256


def demo(config: DictConfig) -> None:
    """Serve the page and the API until interrupted.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If there is no model, a package is absent, or the port is taken.
    """
    import torch
    import uvicorn

    from gicinpaint.data.datasets import SAMPLE_TRAIN, SamplePhotographs
    from gicinpaint.inference.inpainter import Inpainter
    from gicinpaint.weights.hub import shipped_models

    check_configuration(config, READS)
    for key in ("max_upload", "max_pixels", "max_waiting", "max_disk"):
        if config[key] <= 0:
            raise ConfigurationError(f"{key}: expected a number above 0, got {config[key]}")
    _check_address(config.host, config.port)
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
    megabytes = {key: int(config[f"max_{key}"] * 1e6) for key in ("upload", "disk")}
    limits = Limits(pixels=config.max_pixels, waiting=config.max_waiting, **megabytes)
    shipped = {name: partial(Inpainter.from_checkpoint, name, **options) for name in shipped_models()}
    filler = Filler(inpainter, limits, shipped)
    application = Application(filler, SamplePhotographs(SAMPLE_TRAIN[:4]).paths, (config.host, *config.names))
    if not (ipaddress.ip_address(config.host).is_loopback if is_address(config.host) else config.host == "localhost"):
        print(f"WARNING: {config.host} can be reached from other machines, and there is no password")
    host = f"[{config.host}]" if ":" in config.host else config.host
    print(f"open http://{host}:{config.port} in a browser; Ctrl-C ends the server", flush=True)
    # A filling that Ctrl+C ends is no error: its user gets an answer with 503.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not record.getMessage().startswith("Cancel "))
    try:
        uvicorn.run(
            application,
            host=config.host,
            port=config.port,
            log_level="error",
            lifespan="off",
            ws="none",
            proxy_headers=False,  # X-Forwarded-For can be forged
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
    finally:
        filler.stop()


def _check_address(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except (OSError, OverflowError) as error:
        raise JobError(
            f"cannot serve at {host}:{port}: {error}; choose another with port={port % 60000 + 1}"
        ) from error
