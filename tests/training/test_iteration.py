from __future__ import annotations

import pytest
import torch
from torch import Tensor

import golden
from gicinpaint.attention import ContextualAttention, ReferenceAttention, UnfoldAttention
from gicinpaint.data import Batch
from gicinpaint.models.compositing import Box, composite, mask_out
from gicinpaint.models.critics import GlobalCritic, LocalCritic
from gicinpaint.models.generator import Generator
from gicinpaint.training.module import InpaintingModule
from gicinpaint.weights import convert

BACKENDS = {"default": None, "unfold": UnfoldAttention(), "reference": ReferenceAttention()}
PARTS = ("global", "local")


class Iteration:
    """The golden file's batch, and a module with its weights and its places of the penalty."""

    def __init__(self, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values = values = golden.load("e2e_64x64_box32.npz")
        image, meta = values["batch_data"] / 127.5 - 1, values["meta"]
        top, left, height, width = values["bbox_tlhw"].tolist()
        b = len(image)
        box = Box(torch.full((b,), top), torch.full((b,), left), height, width)
        self.batch = Batch(image, values["mask"].expand(b, -1, -1, -1), box)
        generator = Generator(meta["cnum_generator"], ContextualAttention(backend=BACKENDS[backend]))
        width = meta["cnum_critics"]
        critics = GlobalCritic(width, image.shape[-2:]), LocalCritic(width, (box.height, box.width))
        weights = convert(golden.tensorflow_variables(values))
        for part, network in zip(("generator", "global_critic", "local_critic"), (generator, *critics), strict=True):
            network.load_state_dict(weights[part])
        self.module = InpaintingModule(generator, *critics)
        places = torch.stack([values[f"alpha_{part}"].reshape(b, 1, 1, 1) for part in PARTS])
        monkeypatch.setattr(self.module, "_penalty_places", lambda images: places)
        masked = mask_out(image, self.batch.mask)
        self.completion = generator(masked, self.batch.mask)
        self.completed = composite(image, self.completion.prediction, self.batch.mask)

    def assert_equal(self, terms: dict[str, Tensor | None]) -> None:
        for name, actual in terms.items():
            assert actual is not None
            torch.testing.assert_close(actual, self.values[name], rtol=1e-4, atol=0)


@pytest.fixture(params=BACKENDS)
def iteration(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iteration:
    return Iteration(request.param, monkeypatch)


def test_the_critics_side_of_an_iteration_equals_the_golden_one(iteration: Iteration) -> None:
    terms = iteration.module.critic_terms(iteration.batch, iteration.completed.detach())
    parts = {"d_loss_global": terms.global_critic, "d_loss_local": terms.local_critic, "d_loss": terms.total}
    iteration.assert_equal(parts | {"penalty_global": terms.global_penalty, "penalty_local": terms.local_penalty})
    terms.total.backward()
    expected = convert(golden.tensorflow_gradients(iteration.values, "d_loss"))
    for part in PARTS:
        actual = {name: weight.grad for name, weight in iteration.module.critics[part].named_parameters()}
        golden.assert_gradients_equal(actual, expected[f"{part}_critic"])
    assert all(weight.grad is None for weight in iteration.module.generator.parameters())


def test_the_generators_side_of_an_iteration_equals_the_golden_one(iteration: Iteration) -> None:
    terms = iteration.module.generator_terms(iteration.batch, iteration.completion, iteration.completed)
    parts = {"l1_loss": terms.reconstruction, "ae_loss": terms.known, "g_loss": terms.total}
    iteration.assert_equal(parts | {"g_loss_global": terms.global_adversarial, "g_loss_local": terms.local_adversarial})
    terms.total.backward()
    expected = convert(golden.tensorflow_gradients(iteration.values, "g_loss"))["generator"]
    actual = {name: weight.grad for name, weight in iteration.module.generator.named_parameters()}
    golden.assert_gradients_equal(actual, expected)
