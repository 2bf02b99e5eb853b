"""Models by name: the table says what the files and cards say, and downloads survive a real server that drops them."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml

from gicinpaint.cli import main
from gicinpaint.config.validation import JobError
from gicinpaint.inference import Inpainter
from gicinpaint.weights import hub, load_generator
from gicinpaint.weights.hub import UNFINISHED_FILE, download_model, published_models

ROOT = Path(__file__).parents[2]
MODELS = sorted(path.parent for path in (ROOT / "weights").glob("*/model.safetensors"))
NAME = "faces_64"
WEIGHTS = (ROOT / "weights" / NAME / "model.safetensors").read_bytes()


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_the_table_says_what_files_and_cards_say(folder: Path) -> None:
    table = yaml.safe_load((ROOT / "weights" / "models.yaml").read_text(encoding="utf-8"))
    weights, card = (folder / "model.safetensors").read_bytes(), (folder / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(weights).hexdigest()
    expected = f"{folder.name}:\n  hub: gicinpaint/{folder.name}\n  bytes: {len(weights)}\n  sha256: {digest}"
    assert folder.name in table, f"weights/models.yaml lacks the model; add\n{expected}\n  licence: ...\n  scores: ..."
    entry = table[folder.name]
    assert (entry["bytes"], entry["sha256"]) == (len(weights), digest)
    assert entry["licence"] == "research use only"
    assert "**For research use only.**" in card
    numbers = re.findall(r"\d+\.\d+", entry["scores"])
    assert numbers
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert any(all(number in row for number in numbers) for row in rows)
    assert re.search(rf"Measured on {re.search(r', ([0-9]+) ', entry['scores'])[1]} ", card)  # type: ignore[index]
    measured = int(re.findall(r"at (\d+) x", entry["scores"])[0])  # smaller than the paper's 256: as trained
    assert load_generator(folder).trained_size == (measured if measured < 256 else None)


def test_the_table_names_no_model_that_is_not_there() -> None:
    assert sorted(published_models()) == [folder.name for folder in MODELS]


class Hub(ThreadingHTTPServer):
    """A hub on this machine that sends at most `breaks[n]` bytes of the body of its n-th answer, then cuts the line."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.body = WEIGHTS
        self.breaks: list[int] = []
        self.ranges = True
        self.status: list[int] = []
        self.seen: list[tuple[str, str | None]] = []


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers["Range"]
        server.seen.append((self.path, asked))
        if server.status:
            self.send_error(server.status.pop(0))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        sent = server.body[start:]
        self.wfile.write(sent[: server.breaks.pop(0)] if server.breaks else sent)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(hub, "_PAUSE", 0.0)
        yield server
        server.shutdown()
        thread.join()


def test_a_download_goes_on_where_the_line_was_cut(server: Hub, tmp_path: Path) -> None:
    server.breaks = [700_000, 0, 500_000]
    folder = download_model(NAME, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [asked for _, asked in server.seen] == [None, "bytes=700000-", "bytes=700000-", "bytes=1200000-"]
    assert {path for path, _ in server.seen} == {f"/gicinpaint/{NAME}/resolve/main/model.safetensors"}
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "config.json", "model.safetensors", "model.safetensors.sha256"]
    )
    own, expected = load_generator(folder).state_dict(), load_generator(ROOT / "weights" / NAME).state_dict()
    assert all(torch.equal(own[key], value) for key, value in expected.items())


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Hub, tmp_path: Path) -> None:
    server.breaks = [300_000, 0, 0, 0, 0]
    with pytest.raises(JobError, match=r"it ends after 300,000 of 1,818,324 bytes; run the same command again"):
        download_model(NAME, tmp_path)
    assert not (tmp_path / NAME / "model.safetensors").exists()
    assert (tmp_path / NAME / UNFINISHED_FILE).read_bytes() == WEIGHTS[:300_000]
    assert (download_model(NAME, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert server.seen[-1][1] == "bytes=300000-"
    count = len(server.seen)
    download_model(NAME, tmp_path)
    assert len(server.seen) == count  # what is there and right is not asked for again


def test_a_server_without_ranges_and_one_that_fails_for_a_while_are_asked_again(server: Hub, tmp_path: Path) -> None:
    server.breaks, server.ranges, server.status = [700_000], False, [503]
    assert (download_model(NAME, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert [asked for _, asked in server.seen] == [None, None, "bytes=700000-"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), "expected the SHA-256 c9cd054a8f35..., got "),
        (lambda body: body + b"more", "expected the SHA-256"),
    ],
    ids=["one bit", "longer"],
)
def test_other_bytes_never_get_the_files_name(
    server: Hub, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    server.body = spoil(WEIGHTS)
    with pytest.raises(JobError, match=re.escape(message)):
        download_model(NAME, tmp_path)
    assert list((tmp_path / NAME).iterdir()) == []
    server.body = WEIGHTS
    assert (download_model(NAME, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_model_that_is_not_published_is_one_line(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = [404]
    assert main(["download", NAME, f"folder={tmp_path}"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "404 Not Found; is the model published there? HF_ENDPOINT names another" in line
    assert len(server.seen) == 1


def test_without_a_network_it_is_one_line(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert main(["download", NAME, f"folder={tmp_path}"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "refused" in line
    assert "run the same command again to continue" in line


def test_a_downloaded_model_is_found_by_its_name(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in an installed package: the table, cards and settings are there, no weights of this model."""
    packaged = tmp_path / "shipped"
    for name in (NAME, "faces_128"):
        (packaged / name).mkdir(parents=True)
        for file in ("config.json", "README.md", "model.safetensors.sha256"):
            (packaged / name / file).write_bytes((ROOT / "weights" / name / file).read_bytes())
    (packaged / "models.yaml").write_bytes((ROOT / "weights" / "models.yaml").read_bytes())
    monkeypatch.setattr(hub, "REPOSITORY_FOLDER", tmp_path / "no repository")
    monkeypatch.setattr(hub, "PACKAGED_FOLDER", packaged)
    monkeypatch.chdir(tmp_path)
    for opened in (load_generator, Inpainter.from_pretrained):
        with pytest.raises(
            ValueError, match=f"the model {NAME} is not on this machine; run: gicinpaint download {NAME}"
        ):
            opened(NAME)
    assert main(["models"]) == 0
    before = capsys.readouterr().out
    assert re.search(rf"^{NAME} +1\.8  hub ", before, re.MULTILINE)
    assert main(["download", NAME]) == 0
    assert capsys.readouterr().out == f"{NAME}: {tmp_path / 'home' / 'hub' / 'gicinpaint' / NAME}\n"
    assert (
        Inpainter.from_pretrained(NAME, device="cpu").generator.settings["width"]
        == json.loads((ROOT / "weights" / NAME / "config.json").read_text(encoding="utf-8"))["width"]
    )
    assert main(["models"]) == 0
    assert re.search(rf"^{NAME} +1\.8  here ", capsys.readouterr().out, re.MULTILINE)


def test_wrong_words_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["download"], "missing a required argument: 'name'; write: gicinpaint download NAME... [folder=FOLDER]"),
        (["models", "x"], "too many positional arguments; write: gicinpaint models"),
        (["download", NAME, "to=here"], "write: gicinpaint download"),
        (["download", "faces_65"], "faces_65: no such model; did you mean faces_64?"),
    ):
        assert main(words) in (1, 2)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert expected in line
