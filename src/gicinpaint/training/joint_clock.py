"""One Adam clock for several optimizers, as the second paper's released code has it."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.optim import Adam, Optimizer


def check_clock(optimizers: Iterable[Optimizer]) -> None:
    """Raise unless every optimizer is Adam.

    Raises:
        TypeError: If one is not; the message names it.
    """
    for optimizer in optimizers:
        if not isinstance(optimizer, Adam):
            raise TypeError(
                f"joint_clock needs Adam for generator and critics, got {type(optimizer).__name__}; "
                "set model.joint_clock=false"
            )


def set_clock(optimizer: Any, optimizers: Sequence[Any]) -> None:
    """Let the next step of an optimizer count as the update after all that were made by any of several.

    Adam's bias correction depends on that count. The counts travel with the optimizers' states, so a resumed run goes
    on with them. Epsilon becomes TensorFlow's, which is added before the correction, not after it.

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
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = optimizer.state[weight]
            if not state:
                device = weight.device if group["fused"] or group["capturable"] else "cpu"  # where Adam keeps its count
                state["step"] = torch.zeros((), device=device)
                for moment in ("exp_avg", "exp_avg_sq"):
                    state[moment] = torch.zeros_like(weight, memory_format=torch.preserve_format)
                if group["amsgrad"]:
                    state["max_exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            state["step"].fill_(done)
