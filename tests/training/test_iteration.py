from __future__ import annotations

import pytest
import torch

import golden
from gicinpaint.attention import ContextualAttention, ReferenceAttention, UnfoldAttention
from gicinpaint.data import Batch
from gicinpaint.losses import Terms
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
        local_size = (box.height, box.width)
        critics = {"global": GlobalCritic(width, image.shape[-2:]), "local": LocalCritic(width, local_size)}
        weights = convert(golden.tensorflow_variables(values))
        generator.load_state_dict(weights["generator"])
        for part, critic in critics.items():
            critic.load_state_dict(weights[f"{part}_critic"])
        self.module = InpaintingModule(generator, critics)
        places = torch.stack([values[f"alpha_{part}"].reshape(b, 1, 1, 1) for part in PARTS])
        monkeypatch.setattr(self.module, "_penalty_places", lambda images: places)
        masked = mask_out(image, self.batch.mask)
        self.completion = generator(masked, self.batch.mask)
        self.completed = composite(image, self.completion.prediction, self.batch.mask)

    def assert_equal(self, terms: Terms, names: dict[str, str]) -> None:
        for name, ours in names.items():
            actual = terms[ours]
            torch.testing.assert_close(actual, self.values[name], rtol=1e-4, atol=0)


@pytest.fixture(params=BACKENDS)
def iteration(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iteration:
    return Iteration(request.param, monkeypatch)


def test_the_critics_side_of_an_iteration_equals_the_golden_one(iteration: Iteration) -> None:
    terms = iteration.module.critic_terms(iteration.batch, iteration.completed.detach())
    names = {"d_loss": "total"}
    for part in PARTS:
        names |= {f"d_loss_{part}": f"{part}_critic", f"penalty_{part}": f"{part}_penalty"}
    iteration.assert_equal(terms, names)
    terms["total"].backward()
    expected = convert(golden.tensorflow_gradients(iteration.values, "d_loss"))
    for part in PARTS:
        actual = {name: weight.grad for name, weight in iteration.module.critics[part].named_parameters()}
        golden.assert_gradients_equal(actual, expected[f"{part}_critic"])
    assert all(weight.grad is None for weight in iteration.module.generator.parameters())


def test_the_generators_side_of_an_iteration_equals_the_golden_one(iteration: Iteration) -> None:
    terms = iteration.module.generator_terms(iteration.batch, iteration.completion, iteration.completed)
    names = {"l1_loss": "reconstruction", "ae_loss": "known", "g_loss": "total"}
    iteration.assert_equal(terms, names | {f"g_loss_{part}": f"{part}_adversarial" for part in PARTS})
    terms["total"].backward()
    expected = convert(golden.tensorflow_gradients(iteration.values, "g_loss"))["generator"]
    actual = {name: weight.grad for name, weight in iteration.module.generator.named_parameters()}
    golden.assert_gradients_equal(actual, expected)
