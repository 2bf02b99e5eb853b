"""Gradients: frozen parts, gradient accumulation over micro-batches, gradient clipping, skipped steps, Adam clock."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import all_gather_object, get_world_size, is_available, is_initialized
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from gicinpaint.data import Batch
from gicinpaint.models.compositing import Box

ALLOWED = 3  # skipped steps of one network in a row that end the run

_log = logging.getLogger(__name__)


class MicroBatch(NamedTuple):
    """Consecutive images of a batch, where they lie in it, and their share of it.

    Losses are means over images, so the weighted losses of the micro-batches add up to the batch's loss.
    """

    batch: Batch
    images: slice
    share: float


def split(batch: Batch, count: int) -> list[MicroBatch]:
    """Split a batch into `count` micro-batches of as equal size as possible, but no more than it has images."""
    b = len(batch.image)
    edges = [b * part // min(count, b) for part in range(min(count, b) + 1)]
    micro_batches = []
    for images in map(slice, edges, edges[1:]):
        box = Box(batch.box.top[images], batch.box.left[images], batch.box.height, batch.box.width)
        share = (images.stop - images.start) / b
        micro_batches.append(MicroBatch(Batch(batch.image[images], batch.mask[images], box), images, share))
    return micro_batches


def average(micro_batches: Sequence[MicroBatch], terms: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the batch's losses from those of its micro-batches."""
    if len(terms) == 1:
        return terms[0]
    batch: dict[str, Tensor] = {}
    for micro_batch, named in zip(micro_batches, terms, strict=True):
        for name, term in named.items():
            batch[name] = batch.get(name, torch.zeros_like(term)) + micro_batch.share * term
    return batch


def freeze_parts(generator: nn.Module, parts: Sequence[str]) -> None:
    """Let parts of a generator keep their weights; one that is absent, or nothing left to train, is an error."""
    if isinstance(parts, str):
        raise TypeError(f"freeze must be a list of parts, got {parts!r}; write [{parts}]")
    names = [name for name, part in generator.named_modules() if name and any(True for _ in part.parameters())]
    for part in parts:
        if part not in names:
            offered = ", ".join(name for name in names if "." not in name)
            raise ValueError(f"freeze must name parts of the generator, such as {offered}, got {part!r}")
        generator.get_submodule(part).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in generator.parameters()):
        raise ValueError(f"freeze must leave something to train, got {', '.join(parts)}; leave a part out")


class NonFiniteError(ValueError):
    """Losses or gradients that stay NaN or infinite; the weights are those from before the first of them."""


class GradientGuard:
    """Look at a network's gradients between the backward pass and the step.

    Under DDP the gradients are averages over all processes by then, so all of them see the same norm and skip alike.
    A norm of the whole gradient above `grad_clip_norm` is scaled down to it.
    """

    def __init__(self, grad_clip_norm: float | None = None) -> None:
        if grad_clip_norm is not None and not grad_clip_norm > 0:
            raise ValueError(f"grad_clip_norm must be positive, got {grad_clip_norm}; use e.g. 10, or null")
        self.grad_clip_norm = grad_clip_norm
        self._skipped: Counter[str] = Counter()  # of each network, in a row

    def mark(self, loss: Tensor) -> Tensor:
        """Return the loss, times NaN if it is not finite: an infinite loss may have finite gradients."""
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

    def admit(
        self, name: str, network: nn.Module, terms: Mapping[str, Tensor], where: str, *, scale: float | None = None
    ) -> Tensor | None:
        """Clip the gradients and return their norm before that, or return None if the step must be skipped.

        The losses by name, and where they arose, are for messages. The scale is float16's, still in the gradients: they
        overflow on purpose while it is looked for, so with finite losses they neither count nor are worth a message.
        The third step of a network in a row that must be skipped is a NonFiniteError.
        """
        parameters = [weight for weight in network.parameters() if weight.grad is not None]
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        norm = get_total_norm(gradients)
        if norm.isfinite():
            self._skipped[name] = 0
            if self.grad_clip_norm is not None:
                clip_grads_with_norm_(parameters, self.grad_clip_norm * (scale or 1), norm)
            return norm / (scale or 1)
        losses = _not_finite_anywhere(terms)
        cause = _list(losses or _not_finite_gradients(network))
        if scale is not None and not losses:
            return None
        self._skipped[name] += 1
        _log.warning("skipped a step of the %s at %s: %s not finite", name, where, cause)
        if self._skipped[name] >= ALLOWED:
            raise NonFiniteError(
                f"{ALLOWED} steps of the {name} in a row were skipped, the last at {where}: {cause} not finite; the "
                "weights are those from before; lower optimizer.lr, set model.grad_clip_norm, or resume from an older"
                " checkpoint"
            )
        return None


def _not_finite_anywhere(terms: Mapping[str, Tensor]) -> list[str]:
    """Return which losses, of any process, are not finite; all processes are here: they share the gradients' norm."""
    found = [name for name, term in terms.items() if not term.isfinite().all()]
    if is_available() and is_initialized() and get_world_size() > 1:
        everywhere: list[list[str]] = [[] for _ in range(get_world_size())]
        all_gather_object(everywhere, found)
        found = [f"{name} (process {rank})" for rank, names in enumerate(everywhere) for name in names]
    return found


def _not_finite_gradients(network: nn.Module) -> list[str]:
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    return [f"gradient of {name}" for name, grad in gradients.items() if grad is not None and not grad.isfinite().all()]


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return shown and f"{shown} {'is' if len(names) == 1 else 'are'}"


def set_clock(optimizer: Any, optimizers: Sequence[Any]) -> None:
    """Let the next step of an optimizer count as the update after all that were made by any of several.

    Adam's bias correction depends on that count, which the optimizers' states keep. Epsilon becomes TensorFlow's, which
    is added before the correction, not after it.

    Args:
        optimizer: Is about to step; Adam, or Lightning's wrapper of it.
        optimizers: All that share the clock, itself among them.

    Source:
        Released code of Yu et al. 2019: both networks have one Adam object, whose powers of beta advance with each
        update of either.
    """
    done = max((float(state["step"]) for one in optimizers for state in one.state.values()), default=0.0)
    for group in optimizer.param_groups:
        group.setdefault("released_eps", group["eps"])
        group["eps"] = group["released_eps"] / (1 - group["betas"][1] ** (done + 1)) ** 0.5
        for weight in (weight for weight in group["params"] if weight.grad is not None):
            state = optimizer.state[weight]
            if not state:
                device = weight.device if group["fused"] or group["capturable"] else "cpu"  # where Adam keeps its count
                state["step"] = torch.zeros((), device=device)
                for moment in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])):
                    state[moment] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            state["step"].fill_(done)
