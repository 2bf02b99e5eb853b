"""Models as files: every kind comes back with the same outputs; what carries code is refused and not run."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from torch import nn

import golden
from gicinpaint import ContextualAttention, Generator, Inpainter
from gicinpaint.attention import ReferenceAttention
from gicinpaint.generator import CoarseGenerator
from gicinpaint.official import load_weights, swap_image_channels
from gicinpaint.run import build_module
from gicinpaint.weights import ENVIRONMENT, find_default, load_generator, save_generator

NETWORKS = {
    "full": lambda: Generator(4, ContextualAttention(patch_size=5, softmax_scale=4.0, propagate=False), "mirror"),
    "baseline": lambda: Generator(6, attention=None),
    "coarse": lambda: CoarseGenerator(2),
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden.unpack_checkpoint(tmp_path_factory.mktemp("golden"))


def outputs(generator: nn.Module) -> torch.Tensor:
    image = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 1, 32, 40)
    mask[..., 8:20, 10:30] = 1
    with torch.no_grad():
        return generator(image * (1 - mask), mask).prediction


def checkpoint(path: Path, *overrides: str, **extra: Any) -> nn.Module:
    """Write what the train job's checkpoints hold of a generator; return that generator."""
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        module = build_module(compose("train", overrides=["model.generator.width=4", *overrides]))
    torch.save({"state_dict": module.state_dict(), "config": module.config, **extra}, path)
    return module.generator


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_folder_gives_the_network_back(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    generator = build()
    save_generator(generator, tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    again = load_generator(tmp_path / "model")
    assert torch.equal(outputs(again), outputs(generator))
    assert not again.training
    assert again.settings == generator.settings
    assert torch.equal(outputs(load_generator(tmp_path / "model" / "model.safetensors")), outputs(generator))


@pytest.mark.parametrize(
    "overrides",
    [(), ("model=coarse_only",), ("attention=none",), ("attention=reference", "+attention.softmax_scale=5")],
)
def test_a_training_checkpoint_gives_its_generator(overrides: tuple[str, ...], tmp_path: Path) -> None:
    generator = checkpoint(tmp_path / "last.ckpt", *overrides)
    assert torch.allclose(outputs(load_generator(tmp_path / "last.ckpt")), outputs(generator), atol=1e-5)


def test_an_averaged_generator_is_preferred(tmp_path: Path) -> None:
    average = Generator(4)
    checkpoint(tmp_path / "last.ckpt", generator_average=average.state_dict())
    assert torch.equal(outputs(load_generator(tmp_path / "last.ckpt")), outputs(average))


def test_the_released_networks_take_rgb_unless_asked_for_raw(released: Path) -> None:
    values = golden.load("ckpt_c8_expected.npz")
    image, mask = values["x"] * (1 - values["mask"]), values["mask"]
    with torch.no_grad():
        raw = load_generator(released, raw=True)(image, mask)
        swapped = load_generator(released)(image.flip(1), mask)
    for name, expected in (("coarse", values["x_stage1"]), ("refined", values["x_stage2"])):
        torch.testing.assert_close(getattr(raw, name), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(getattr(swapped, name).flip(1), expected, atol=1e-4, rtol=0)


def test_swapping_twice_gives_the_weights_back_and_touches_five_layers(released: Path) -> None:
    state = load_weights(released)["generator"]
    swapped = swap_image_channels(state)
    changed = {name.rpartition(".")[0] for name in state if not torch.equal(state[name], swapped[name])}
    assert len(changed) == 5
    assert all(torch.equal(value, state[name]) for name, value in swap_image_channels(swapped).items())


def test_huggingface_mixin_saves_and_loads_locally(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    generator = NETWORKS["full"]()
    assert isinstance(generator, hub.ModelHubMixin)
    generator.save_pretrained(tmp_path / "generator")
    assert torch.equal(outputs(Generator.from_pretrained(tmp_path / "generator")), outputs(generator))
    inpainter = Inpainter(generator, device="cpu")
    inpainter.save_pretrained(tmp_path / "inpainter")
    again = Inpainter.from_pretrained(str(tmp_path / "inpainter"), device="cpu", max_memory=2.0)
    assert torch.equal(outputs(again.generator), outputs(generator))
    assert again.engine.most_pixels < inpainter.engine.most_pixels
    with pytest.raises(ValueError, match="must hold a CoarseGenerator, got 'Generator'"):
        CoarseGenerator.from_pretrained(tmp_path / "generator")


def test_a_repository_in_the_cache_is_read_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    generator, commit = NETWORKS["baseline"](), "0123456789" * 4
    cached = tmp_path / "models--someone--inpainting"
    save_generator(generator, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    for cls in (Generator, Inpainter):
        again = cls.from_pretrained("someone/inpainting", cache_dir=tmp_path, local_files_only=True)
        network = again if cls is Generator else again.generator.cpu()
        assert torch.equal(outputs(network), outputs(generator))


def test_push_to_hub_sends_the_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    sent: list[str] = []
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id})())
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, folder_path, **_: sent.extend(os.listdir(folder_path)))
    NETWORKS["coarse"]().push_to_hub("someone/inpainting")
    assert {"config.json", "model.safetensors"} <= set(sent)


def test_without_the_hub_package_everything_else_works() -> None:
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from gicinpaint import Generator\n"
        "generator = Generator(2)\n"
        "for call in (generator.save_pretrained, Generator.from_pretrained, generator.push_to_hub):\n"
        "    try: call('x')\n"
        "    except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.splitlines() == ["this needs the package huggingface_hub; pip install 'gicinpaint[hub]'"] * 3


def test_generators_are_still_copied_and_pickled_as_modules() -> None:
    generator = NETWORKS["full"]()
    assert torch.equal(outputs(copy.deepcopy(generator)), outputs(generator))
    assert torch.equal(outputs(pickle.loads(pickle.dumps(generator))), outputs(generator))


def test_the_default_model_is_the_named_one_or_the_repositorys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr("gicinpaint.weights.REPOSITORY_FOLDER", tmp_path / "weights")
    with pytest.raises(ValueError, match=rf"there is no model in .*weights; train one .*convert.*{ENVIRONMENT}"):
        Inpainter.default()
    save_generator(NETWORKS["full"](), tmp_path / "weights" / "places")
    save_generator(NETWORKS["coarse"](), tmp_path / "weights" / "faces")
    assert find_default() == tmp_path / "weights" / "faces"
    save_generator(NETWORKS["baseline"](), tmp_path / "weights")
    assert find_default() == tmp_path / "weights"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "weights" / "places"))
    assert isinstance(Inpainter.default(device="cpu").generator, Generator)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"must name a model's file or folder, got .*gone"):
        find_default()


class _Code:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def _pickled(path: Path, proof: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": _Code(proof)}))


def _saved(path: Path, proof: Path) -> None:
    torch.save({"state_dict": {"generator.x": _Code(proof)}, "config": {}}, path)


def _module(path: Path, proof: Path) -> None:
    torch.save({"state_dict": Generator(2), "config": {}}, path)


def _target(path: Path, proof: Path) -> None:
    config = {"generator": {"_target_": "os.system", "command": f"touch {proof}"}}
    torch.save({"state_dict": {}, "config": config}, path)


def _attention_target(path: Path, proof: Path) -> None:
    attention = {"_target_": "os.system", "command": f"touch {proof}"}
    config = {"generator": {"_target_": "gicinpaint.generator.Generator", "attention": attention}}
    torch.save({"state_dict": {}, "config": config}, path)


def _numpy_objects(path: Path, proof: Path) -> None:
    torch.save({"state_dict": np.array([_Code(proof)], dtype=object)}, path)


def _own_function(path: Path, proof: Path) -> None:
    path.write_bytes(f"cposix\nsystem\n(S'touch {proof}'\ntR.".encode())


@pytest.mark.parametrize(
    "write", [_pickled, _saved, _module, _target, _attention_target, _numpy_objects, _own_function]
)
def test_files_that_carry_code_are_refused_and_nothing_runs(
    write: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    proof = tmp_path / "it ran".replace(" ", "_")
    write(tmp_path / "bad.ckpt", proof)
    with pytest.raises(
        ValueError, match=r"bad\.ckpt.*(was refused and nothing in it was run|and was not run)"
    ) as caught:
        load_generator(tmp_path / "bad.ckpt")
    assert "\n" not in str(caught.value)
    assert not proof.exists()


def _empty(folder: Path) -> Path:
    (folder / "x.ckpt").write_bytes(b"")
    return folder / "x.ckpt"


def _noise(folder: Path) -> Path:
    (folder / "x.ckpt").write_bytes(np.random.default_rng(0).bytes(4096))
    return folder / "x.ckpt"


def _other_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.ckpt", "w") as archive:
        archive.writestr("a", "b")
    return folder / "x.ckpt"


def _cut_off(folder: Path) -> Path:
    checkpoint(folder / "x.ckpt")
    (folder / "x.ckpt").write_bytes((folder / "x.ckpt").read_bytes()[:20000])
    return folder / "x.ckpt"


def _other_data(folder: Path) -> Path:
    torch.save([1, 2, 3], folder / "x.ckpt")
    return folder / "x.ckpt"


def _other_weights(folder: Path) -> Path:
    save_generator(Generator(4), folder)
    shutil.copy(folder / "model.safetensors", folder / "kept")
    save_generator(Generator(2), folder)
    shutil.move(folder / "kept", folder / "model.safetensors")
    return folder


def _config(**changes: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_generator(Generator(2), folder)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, **changes}))
        return folder

    return write


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_generator(Generator(2), folder)
        (folder / name).write_bytes(content)
        return folder

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "gone", "must be a model's file or folder, got nothing there"),
        (lambda folder: folder, "must be a model's folder, with .* got an empty folder"),
        (_empty, "x.ckpt cannot be read as a checkpoint|x.ckpt was refused"),
        (_noise, "x.ckpt was refused and nothing in it was run: it is damaged"),
        (_other_zip, "x.ckpt cannot be read as a checkpoint|x.ckpt was refused"),
        (_cut_off, "x.ckpt cannot be read as a checkpoint|x.ckpt was refused"),
        (_other_data, "must be a checkpoint of gicinpaint train"),
        (_other_weights, "its weights must be those of its settings"),
        (_config(width=10**9), "its weights must be those of its settings|describe no Generator"),
        (_config(width=3), "width must be a positive even number"),
        (_config(width="wide"), "describe no Generator"),
        (_config(network="Diffusion"), "must name the network Generator or CoarseGenerator"),
        (_config(surprise=1), "describe no Generator"),
        (_file("config.json", b"[" * 100000), "must be a small JSON object"),
        (_file("config.json", b"\xff"), "must be a small JSON object"),
        (_file("config.json", b" " * 2**21), "it is over 1 MB"),
        (_file("model.safetensors", b""), "cannot be read as safetensors"),
        (_file("model.safetensors", b"\xff" * 64), "cannot be read as safetensors"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_generator(write(tmp_path))
    assert "\n" not in str(caught.value)


def test_networks_of_ones_own_cannot_be_described(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a Generator or a CoarseGenerator .* got Identity"):
        save_generator(nn.Identity(), tmp_path)


def test_the_stored_backend_does_not_matter(tmp_path: Path) -> None:
    generator = Generator(2, ContextualAttention(backend=ReferenceAttention()))
    save_generator(generator, tmp_path)
    assert torch.allclose(outputs(load_generator(tmp_path)), outputs(generator), atol=1e-5)
