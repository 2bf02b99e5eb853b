"""Models as files: every kind comes back with the same outputs; `test_weights_refused.py` has what is none."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from safetensors.torch import load_file
from torch import nn

import golden
from gicinpaint import ContextualAttention, Generator, Inpainter
from gicinpaint.attention import ReferenceAttention
from gicinpaint.models.generator import CoarseGenerator
from gicinpaint.models.stored import DIGEST_FILE
from gicinpaint.training.resume import check_fit
from gicinpaint.training.train import build_module
from gicinpaint.weights import load_weights, swap_image_channels
from gicinpaint.weights.pretrained import ENVIRONMENT, find_default, load_generator, save_generator
from models import checkpoint, outputs

NETWORKS = {
    "full": lambda: Generator(4, ContextualAttention(patch_size=5, softmax_scale=4.0, propagate=False), "mirror"),
    "strided": lambda: Generator(4, ContextualAttention(stride=2)),
    "baseline": lambda: Generator(6, attention=None),
    "coarse": lambda: CoarseGenerator(2),
    "residual": lambda: Generator(4, residual=True),
    "residual coarse": lambda: CoarseGenerator(2, residual=True),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_folder_gives_the_network_back(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    generator = build()
    save_generator(generator, tmp_path / "model")
    files = ["config.json", "model.safetensors", "model.safetensors.sha256"]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == files
    again = load_generator(tmp_path / "model")
    assert torch.equal(outputs(again), outputs(generator))
    assert not again.training
    assert again.settings == generator.settings
    assert torch.equal(outputs(load_generator(tmp_path / "model" / "model.safetensors")), outputs(generator))


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_weights_in_half_precision_are_stored_so_and_opened_in_full(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    generator = build()
    exact = {name: value.half().float() for name, value in generator.state_dict().items()}  # rounded by hand
    save_generator(copy.deepcopy(generator).half(), tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    again = load_generator(tmp_path)
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    assert all(torch.equal(value, exact[name]) for name, value in again.state_dict().items())
    assert outputs(again).dtype == torch.float32
    torch.testing.assert_close(outputs(again), outputs(generator), atol=0.05, rtol=0)
    assert torch.equal(outputs(type(again).from_pretrained(tmp_path)), outputs(again))


def test_the_digest_beside_the_weights_is_theirs_and_follows_them(tmp_path: Path) -> None:
    for network in ("full", "coarse"):
        save_generator(NETWORKS[network](), tmp_path)
        digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
        assert (tmp_path / DIGEST_FILE).read_text() == f"{digest}  model.safetensors\n"  # as sha256sum writes it
        load_generator(tmp_path)
    (tmp_path / DIGEST_FILE).write_text(digest.upper())  # as other tools do
    load_generator(tmp_path)
    (tmp_path / DIGEST_FILE).unlink()
    load_generator(tmp_path)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model=coarse_only",),
        ("model=baseline",),
        ("attention=reference", "+attention.softmax_scale=5", "attention.stride=2"),
        ("model.generator.residual=true",),
    ],
)
def test_a_training_checkpoint_gives_its_generator(overrides: tuple[str, ...], tmp_path: Path) -> None:
    generator = checkpoint(tmp_path / "last.ckpt", *overrides)
    assert torch.allclose(outputs(load_generator(tmp_path / "last.ckpt")), outputs(generator), atol=1e-5)


def test_a_checkpoint_of_the_version_before_gives_the_same_image(tmp_path: Path) -> None:
    folder = golden.unpack_old_run(tmp_path)
    expected = torch.from_numpy(np.load(folder / "completed.npy"))  # of that version
    generator = load_generator(folder / "last.ckpt")
    torch.testing.assert_close(outputs(generator), expected, atol=1e-6, rtol=0)
    assert expected.std() > 0.01


def test_a_run_of_the_version_before_goes_on(tmp_path: Path) -> None:
    critics = ("model.critics.global.width=1", "model.critics.local.width=1")
    sizes = ("dataset=folder", "dataset.image_size=32", "mask.box=[16,16]", "mask.inset=[2,2]")
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        config = compose("train", overrides=["model=tiny", "model.generator.width=2", *critics, *sizes])
    module = build_module(config)
    path = golden.unpack_old_run(tmp_path) / "last.ckpt"
    assert check_fit(path, module, module.config)["counters"]["generator_updates"] == 2
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])


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


def test_push_to_hub_sends_settings_weights_and_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    sent: list[str] = []
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id})())
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, folder_path, **_: sent.extend(os.listdir(folder_path)))
    NETWORKS["coarse"]().push_to_hub("someone/inpainting")
    assert {"config.json", "model.safetensors", DIGEST_FILE} <= set(sent)


def test_without_the_hub_package_everything_else_works() -> None:
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from gicinpaint import Generator\n"
        "generator = Generator(2)\n"
        "for call in (generator.save_pretrained, Generator.from_pretrained, generator.push_to_hub):\n"
        "    try: call('x')\n"
        "    except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["this needs the package huggingface_hub; pip install 'gicinpaint[hub]'"] * 3


def test_generators_are_still_copied_and_pickled_as_modules() -> None:
    generator = NETWORKS["full"]()
    assert torch.equal(outputs(copy.deepcopy(generator)), outputs(generator))
    assert torch.equal(outputs(pickle.loads(pickle.dumps(generator))), outputs(generator))


def test_the_default_model_is_the_named_one_or_the_repositorys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr("gicinpaint.weights.hub.REPOSITORY_FOLDER", tmp_path / "weights")
    with pytest.raises(ValueError, match=rf"there is no model in .*weights; train one .*convert.*{ENVIRONMENT}"):
        Inpainter.default()
    save_generator(NETWORKS["full"](), tmp_path / "weights" / "places")
    save_generator(NETWORKS["coarse"]().half(), tmp_path / "weights" / "faces")
    (tmp_path / "weights" / "faces" / "README.md").write_text("# A model\n")
    (tmp_path / "weights" / "README.md").write_text("# Models\n")
    assert find_default() == tmp_path / "weights" / "faces"
    assert isinstance(Inpainter.default(device="cpu").generator, CoarseGenerator)
    keys = ("hub: x/places", "bytes: 1", "sha256: ''", "licence: none", "scores: none")
    (tmp_path / "weights" / "models.yaml").write_text("places:\n" + "".join(f"  {key}\n" for key in keys))
    assert find_default() == tmp_path / "weights" / "places"
    save_generator(NETWORKS["baseline"](), tmp_path / "weights")
    assert find_default() == tmp_path / "weights"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "weights" / "places"))
    assert isinstance(Inpainter.default(device="cpu").generator, Generator)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"must name a model's file or folder, got .*gone"):
        find_default()


def test_a_model_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gicinpaint.weights.hub.REPOSITORY_FOLDER", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    faces = NETWORKS["coarse"]()
    save_generator(NETWORKS["full"](), tmp_path / "weights" / "places")
    save_generator(faces, tmp_path / "weights" / "faces")
    for inpainter in (Inpainter.from_checkpoint("faces", "cpu"), Inpainter.from_pretrained("faces", device="cpu")):
        assert torch.equal(outputs(inpainter.generator), outputs(faces))
    with pytest.raises(ValueError, match=r"face must be .*; or take one by its name: faces, places"):
        load_generator("face")
    nearer = NETWORKS["baseline"]()
    save_generator(nearer, tmp_path / "faces")  # a folder of this name goes before
    assert torch.equal(outputs(load_generator("faces")), outputs(nearer))


def test_the_stored_backend_does_not_matter(tmp_path: Path) -> None:
    generator = Generator(2, ContextualAttention(backend=ReferenceAttention()))
    save_generator(generator, tmp_path)
    assert torch.allclose(outputs(load_generator(tmp_path)), outputs(generator), atol=1e-5)
