"""Models by name: in the repository, inside the installed package, or downloaded from the hub and verified."""

import http.client
import os
import shutil
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import yaml
from tqdm import tqdm

from gicinpaint.config.atomic_files import atomic_file, sha256
from gicinpaint.config.validation import JobError, closest
from gicinpaint.models.stored import CONFIG_FILE, DIGEST_FILE, WEIGHTS_FILE

REPOSITORY_FOLDER = Path(__file__).parents[3] / "weights"
PACKAGED_FOLDER = Path(__file__).parent / "shipped"  # the same folder in an installed package, with one model's weights
UNFINISHED_FILE = f"{WEIGHTS_FILE}.part"  # has one name, so that the next download goes on with it
_TABLE = "models.yaml"
_CARD = "README.md"
_ENDPOINT = "HF_ENDPOINT"  # as huggingface_hub: another address of the hub
_ATTEMPTS = 5
_PAUSE = 0.5  # seconds before the second attempt; each pause is twice the last
_TIMEOUT = 30  # seconds without an answer
_CHUNK = 2**18  # bytes


class HubEntry(NamedTuple):
    """What the table knows of a model: its repository, size and digest of its weights, licence and scores in words."""

    hub: str
    bytes: int
    sha256: str
    licence: str
    scores: str


def download_folder() -> Path:
    """Return where downloads go: `gicinpaint` in torch's hub folder, which TORCH_HOME moves."""
    return Path(torch.hub.get_dir()) / "gicinpaint"


def local_models() -> dict[str, Path]:
    """Return the folders of the models on this machine by name; of one name, the nearest."""
    homes = (download_folder(), PACKAGED_FOLDER, REPOSITORY_FOLDER)
    folders = (folder for home in homes if home.is_dir() for folder in home.iterdir())
    return {folder.name: folder for folder in folders if (folder / WEIGHTS_FILE).is_file()}


def find_model(path: str | os.PathLike[str]) -> Path:
    """Return a path, or, where nothing is there, the folder of the model on this machine that has this name."""
    path = Path(path)
    return path if path.exists() else local_models().get(str(path), path)


def shipped_models() -> list[str]:
    """Return the names of the models on this machine, in order."""
    return sorted(local_models())


def published_models() -> dict[str, HubEntry]:
    """Return the table of the models that can be downloaded, by name; the first is the default."""
    tables = (folder / _TABLE for folder in (REPOSITORY_FOLDER, PACKAGED_FOLDER))
    table = next((path for path in tables if path.is_file()), None)
    return _read_table(table) if table else {}


@cache
def _read_table(path: Path) -> dict[str, HubEntry]:
    return {name: HubEntry(**entry) for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def print_models() -> None:
    """Print a line for each model: name, size, where it is, what it may be used for, what it reaches."""
    published, local = published_models(), local_models()
    rows = [("model", "MB", "where", "licence", "in the hole")]
    for name in sorted({*published, *local}):
        folder, entry = local.get(name), published.get(name)
        size = (folder / WEIGHTS_FILE).stat().st_size if folder else entry.bytes if entry else 0
        where = "here" if folder else "hub"
        rows.append((name, f"{size / 1e6:.1f}", where, entry.licence if entry else "?", entry.scores if entry else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nFetch one with gicinpaint download NAME; use it with model=NAME or Inpainter.from_pretrained(NAME).")


def download_models(name: str, *names: str, folder: str | None = None) -> None:
    """Download models as `download_model` does and print where each lies."""
    for each in (name, *names):
        print(f"{each}: {download_model(each, folder)}")


def download_model(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a model that `gicinpaint models` lists; what is missing of it is downloaded.

    Settings and card come with the package, the weights from the hub; HF_ENDPOINT names another address of it. The
    folder of downloads is by default the one where models are found by name.

    Raises:
        JobError: If there is no such model, it cannot be reached, or what came has another SHA-256.
    """
    published = published_models()
    if name not in published:
        match = closest(name, published)
        raise JobError(f"{name}: no such model; " + (f"did you mean {match}?" if match else "see gicinpaint models"))
    if folder is None and (here := local_models().get(name)):
        return here
    entry = published[name]
    target = (download_folder() if folder is None else Path(folder).expanduser()) / name
    if not (target / WEIGHTS_FILE).is_file() or sha256(target / WEIGHTS_FILE) != entry.sha256:
        endpoint = os.environ.get(_ENDPOINT, "https://huggingface.co").rstrip("/")
        fetch_file(f"{endpoint}/{entry.hub}/resolve/main/{WEIGHTS_FILE}", target / WEIGHTS_FILE, entry)
    source = next(path / name for path in (REPOSITORY_FOLDER, PACKAGED_FOLDER) if (path / name).is_dir())
    for file in (CONFIG_FILE, DIGEST_FILE, _CARD):
        with atomic_file(target / file) as partial:
            shutil.copyfile(source / file, partial)
    return target


def fetch_file(url: str, target: Path, entry: HubEntry) -> None:
    """Download a file, continue after interruptions, and give it its name if its SHA-256 is right, else a JobError.

    What is not whole yet lies beside it; the next call asks a server that knows ranges for the missing bytes alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(UNFINISHED_FILE)
    reason = ""
    with tqdm(total=entry.bytes, unit="B", unit_scale=True, desc=target.parent.name, leave=False, disable=None) as bar:
        for attempt in range(_ATTEMPTS):
            time.sleep(_PAUSE * 2**attempt / 2 if attempt else 0)
            try:
                _append(url, partial, entry.bytes, bar)
            except HTTPError as error:
                reason = f"{error.code} {error.reason}"
                if error.code < 500:
                    break  # asking again does not help
            except (OSError, http.client.HTTPException) as error:  # no route, refused, reset, timed out
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            size = partial.stat().st_size if partial.exists() else 0
            if size >= entry.bytes:
                break
            reason = reason or f"it ends after {size:,} of {entry.bytes:,} bytes"
        else:
            raise JobError(f"{url}: {reason}; run the same command again to continue")
    if not partial.exists() or partial.stat().st_size < entry.bytes:
        raise JobError(f"{url}: {reason}; is the model published there? {_ENDPOINT} names another address of the hub")
    if (found := sha256(partial)) != entry.sha256:
        partial.unlink()
        raise JobError(f"{url}: expected the SHA-256 {entry.sha256[:12]}..., got {found[:12]}...; it was deleted")
    with atomic_file(target) as whole:
        os.replace(partial, whole)


def _append(url: str, partial: Path, size: int, bar: "tqdm[None]") -> None:
    """Add the bytes that are missing; a server that sends all of them again starts the file anew."""
    have = partial.stat().st_size if partial.exists() else 0
    if have >= size:
        return
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=_TIMEOUT) as answer:
        have = have if answer.status == 206 else 0
        bar.update(have - bar.n)
        with partial.open("r+b" if have else "wb") as file:
            file.seek(have)
            while have <= size and (chunk := answer.read(_CHUNK)):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
