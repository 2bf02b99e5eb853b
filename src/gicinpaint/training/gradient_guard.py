"""Gradient clipping, and gradients that are not finite: what stands between a loss and an optimizer's step."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed import all_gather_object, get_world_size, is_available, is_initialized
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

ALLOWED = 3  # skipped steps of one network in a row that end the run

_log = logging.getLogger(__name__)


class NonFiniteError(ValueError):
    """Losses or gradients that stay NaN or infinite; the weights are those before the first of them."""


class GradientGuard:
    """Look at a network's gradients between the backward pass and the step.

    Under DDP the gradients are averages over all processes by then, so all of them see the same norm and skip alike.

    Args:
        grad_clip_norm: Largest norm of a network's whole gradient; a larger one is scaled down to it. None: no limit.

    Raises:
        ValueError: If the limit is not positive.
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
        self, name: str, network: nn.Module, terms: Mapping[str, Tensor], where: str, *, scaled: bool = False
    ) -> bool:
        """Clip the gradients and return True, or drop them and return False if they are not finite.

        Args:
            name: What the network is called in messages.
            network: Holds the gradients; without them its optimizer's step changes nothing.
            terms: The losses by name, to find the one that caused it.
            where: The batch, for messages.
            scaled: Whether a scaler of float16 is at work: it overflows on purpose while it looks for its scale, so
                gradients without a loss that is not finite neither count nor are worth a message.

        Raises:
            NonFiniteError: If this is the third time in a row.
        """
        parameters = [weight for weight in network.parameters() if weight.grad is not None]
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        norm = get_total_norm(gradients)
        if norm.isfinite():
            self._skipped[name] = 0
            if self.grad_clip_norm is not None:
                clip_grads_with_norm_(parameters, self.grad_clip_norm, norm)
            return True
        losses = _not_finite_anywhere(terms)
        cause = _list(losses or _not_finite_gradients(network))
        for weight in parameters:
            weight.grad = None
        if scaled and not losses:
            return False
        self._skipped[name] += 1
        _log.warning("skipped a step of the %s at %s: %s not finite", name, where, cause)
        if self._skipped[name] >= ALLOWED:
            raise NonFiniteError(
                f"{ALLOWED} steps of the {name} in a row were skipped, the last at {where}: {cause} not finite; the "
                "weights are those before; lower optimizer.lr, set model.grad_clip_norm, or resume from an older"
                " checkpoint"
            )
        return False


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


def _list(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return shown and f"{shown} {'is' if len(names) == 1 else 'are'}"
