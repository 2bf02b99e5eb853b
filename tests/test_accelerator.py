"""Whether an accelerator would do, on a machine without one.

PyTorch's fake tensors carry shapes, types and a device, but no numbers: an operation that mixes devices raises, and so
does everything that would copy a number to the host and wait for it, such as `item()`, a comparison in an `if`, or a
boolean index. The device is one by name alone, without a driver: "lazy", because autograd asks those of "cuda" for a
stream.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from gicinpaint import (
    ContextualAttention,
    GatedGenerator,
    Generator,
    GlobalCritic,
    InpaintingModule,
    LocalCritic,
    PatchCritic,
)
from gicinpaint.attention import FactorizedAttention, ReferenceAttention, TiledAttention, UnfoldAttention
from gicinpaint.data import Batch
from gicinpaint.losses import Hinge, InpaintingLoss
from gicinpaint.metrics import FID, LPIPS, PatchDistance, evaluation_metrics
from gicinpaint.models import Box
from models import TinyInception, save_alex, save_inception

DEVICE = torch.device("lazy", 0)
BACKENDS = [ReferenceAttention(), UnfoldAttention(), FactorizedAttention(), TiledAttention()]


class NoDoubles(TorchDispatchMode):
    """Refuses results in float64 off the processor: Apple's GPUs have none, and others are slow at it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.device.type != "cpu" and x.dtype == torch.float64:
                raise AssertionError(f"{func} makes float64 on {x.device}")
        return result


@contextmanager
def only_fake_tensors() -> Iterator[None]:
    """Enter the fake world. Networks are made before: their initialisation looks at numbers, on the host."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True), NoDoubles():
        patch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it knows devices with a driver alone
        yield


def _image(batch: int = 2, size: int = 64) -> Tensor:
    return torch.empty(batch, 3, size, size, device=DEVICE)


def _mask(batch: int = 2, size: int = 64) -> Tensor:
    return torch.empty(batch, 1, size, size, device=DEVICE)


def _batch() -> Batch:
    top, left = torch.zeros(2, 2, dtype=torch.int64, device=DEVICE)
    return Batch(_image(), _mask(), Box(top, left, 32, 32))


def _on_device(*found: Tensor) -> bool:
    return all(x.device == DEVICE for x in found)


def test_the_fake_device_notices_what_it_is_here_for() -> None:
    with only_fake_tensors():
        with pytest.raises(Exception, match="same device"):
            _image() + torch.empty(2, 3, 64, 64)
        with pytest.raises(Exception, match="_local_scalar_dense"):
            _image().sum().item()
        with pytest.raises(AssertionError, match="float64"):
            _image().double()


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: type(backend).__name__)
@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradient_stay_on_the_device(backend: object, rate: int, masked: bool) -> None:
    layer = ContextualAttention(rate=rate, backend=backend)  # type: ignore[arg-type]
    with only_fake_tensors():
        foreground = torch.empty(2, 8, 16, 16, device=DEVICE, requires_grad=True)
        background = torch.empty(2, 8, 24, 16, device=DEVICE, requires_grad=True)
        mask = torch.empty(2, 1, 24, 16, device=DEVICE) if masked else None
        output, offset = layer(foreground, background, mask, return_offset=True)
        output.sum().backward()
        assert output.shape == (2, 8, 16, 16)
        assert _on_device(output, offset, *(x.grad for x in (foreground, background)))  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Generator, GatedGenerator])
def test_a_generator_and_its_gradient_stay_on_the_device(kind: type) -> None:
    generator = kind(8)
    with only_fake_tensors():
        generator = generator.to(DEVICE)
        completion = generator(_image(), _mask())
        (completion.coarse.mean() + completion.refined.mean()).backward()
        assert _on_device(completion.coarse, completion.refined)
        assert _on_device(*(p.grad for p in generator.parameters() if p.grad is not None))


@pytest.mark.parametrize("metric", evaluation_metrics().values(), ids=lambda metric: type(metric).__name__)
def test_a_metric_holds_no_float64_on_the_device_and_all_of_it_back_on_the_cpu(metric: Metric) -> None:
    metric = metric.clone()
    with only_fake_tensors():
        metric.to(DEVICE)
        metric.reset()
        if not isinstance(metric, PatchDistance):  # its bounding boxes are read on the host
            metric.update(_image(), _image(), _mask())
        assert _on_device(metric.compute(), *metric.metric_state.values())
        assert {x.dtype for x in metric.metric_state.values()} <= {torch.float32, torch.int64}
        metric.to("cpu")
        assert {x.dtype for x in metric.metric_state.values()} <= {torch.float64, torch.int64}


def test_perceptual_metrics_hold_no_float64_on_the_device(tmp_path: Path) -> None:
    lpips, fid = LPIPS(*save_alex(tmp_path)), FID(save_inception(tmp_path))
    with only_fake_tensors():
        lpips.to(DEVICE).update(_image(), _image(), _mask())
        assert _on_device(lpips.compute(), *lpips.metric_state.values())
        fid.inception.network = TinyInception()  # TorchScript takes no fake tensors
        fid.to(DEVICE).update(_image(), _image(), _mask())
        assert fid.device == DEVICE
        assert {x.device.type for x in fid.metric_state.values()} == {"cpu"}  # in float64, as covariances need
        fid.merge_state({name: x.to("cpu") for name, x in fid.metric_state.items()})


@pytest.mark.parametrize(
    ("critics", "loss"),
    [
        ({"global": lambda: GlobalCritic(8, (64, 64)), "local": lambda: LocalCritic(8, (32, 32))}, InpaintingLoss()),
        ({"patch": lambda: PatchCritic(8)}, InpaintingLoss(Hinge(), penalty_weight=0)),
    ],
    ids=["global and local", "patch"],
)
def test_a_step_of_both_networks_copies_nothing_to_the_host(critics, loss) -> None:  # type: ignore[no-untyped-def]
    module = InpaintingModule(Generator(8), {name: make() for name, make in critics.items()}, loss, Adam, Adam)
    with only_fake_tensors():
        module.generator.to(DEVICE)
        module.critics.to(DEVICE)
        batch = _batch()
        optimizers, _ = module.configure_optimizers()
        completion, completed = module._complete(batch)
        alpha = torch.empty(len(critics), 2, 1, 1, 1, device=DEVICE)
        module.critic_terms(batch, completed.detach(), alpha)["total"].backward()
        module.generator_terms(batch, completion, completed)["total"].backward()
        for optimizer in optimizers:
            optimizer.step()
        assert all(_on_device(p, p.grad) for p in module.generator.parameters() if p.grad is not None)
        assert all(_on_device(p, p.grad) for p in module.critics.parameters() if p.grad is not None)
