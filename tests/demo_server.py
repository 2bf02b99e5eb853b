"""A demo server in a process of its own, with a small random model, that notes whom it talks to."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from faults import finish, wait_for
from gicinpaint.models.generator import Generator
from gicinpaint.weights.pretrained import save_generator

# The hook sees every connection and every look-up of a name that Python makes, from the first import on.
_PROGRAM = """
import sys
log = open(sys.argv.pop(1), "a", buffering=1)
def hook(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        log.write(f"connect {arguments[1]}\\n")
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "127.0.0.1", "::1", "localhost"):
        log.write(f"look-up {arguments[0]}\\n")
sys.addaudithook(hook)
from gicinpaint.cli import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    address: str
    folder: Path
    contacts: Path

    def foreign_contacts(self) -> str:
        return self.contacts.read_text()

    def memory(self) -> int:
        """Bytes that the process holds now."""
        return psutil.Process(self.process.pid).memory_info().rss

    def work(self) -> float:
        """Seconds of processor time that the process has used, whatever else the machine does."""
        used = psutil.Process(self.process.pid).cpu_times()
        return used.user + used.system

    def open_files(self, folder: Path) -> list[int]:
        """Sizes of the open files of a folder, those without a name too."""
        sizes = []
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link).startswith(str(folder)):
                    sizes.append(link.stat().st_size)
        return sizes

    def answers(self) -> bool:
        with urllib.request.urlopen(self.address + "/settings", timeout=60) as answer:
            return answer.status == 200

    def stop(self) -> None:
        self.process.terminate()
        finish(self.process)


def model(folder: Path) -> Path:
    """Write a small random model and return its folder."""
    torch.manual_seed(0)
    save_generator(Generator(width=8), folder / "model")
    return folder / "model"


def start(folder: Path, *overrides: str, temporary: Path | None = None) -> Server:
    """Start a server, with a small random model unless an override names another, and return it when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    contacts = folder / "contacts.txt"
    contacts.touch()
    arguments = ["demo", f"checkpoint={model(folder)}", f"port={port}", "threads=1", *overrides]
    output = (folder / "server.txt").open("w")
    command = [sys.executable, "-c", _PROGRAM, str(contacts), *arguments]
    environment = {**os.environ, **({"TMPDIR": str(temporary)} if temporary else {})}
    process = subprocess.Popen(
        command, cwd=folder, stdout=output, stderr=output, text=True, env=environment, start_new_session=True
    )
    server = Server(process, f"http://127.0.0.1:{port}", folder, contacts)
    wait_for(lambda: process.poll() is not None or listens(port), 240, process)
    if process.poll() is None and server.answers():
        return server
    raise RuntimeError("the server did not start: " + (folder / "server.txt").read_text())


def listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
