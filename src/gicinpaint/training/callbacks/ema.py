"""The running average of the generator's weights."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from gicinpaint.training.module import inpainting

KEY = "generator_average"  # where a checkpoint holds it: a state dict of the generator


class GeneratorEMA(Callback):
    """Average the generator over its updates; validation and pictures use the average, training does not.

    After update n, counted from 0, every weight of the average moves towards the generator's by the share 1 - d with
    d = min(decay, (1 + n) / (10 + n)): the first averages follow quickly and do not hold on to the initial weights.
    The critics are not averaged, and a batch that updates them alone changes nothing.

    A checkpoint holds the average as `generator_average`, a plain state dict of the generator, beside the weights
    that training continues with. A run resumed from one without it averages from there on.

    Args:
        decay: Share of the old average that an update keeps, e.g. 0.999; None switches the average off.

    Raises:
        ValueError: If the decay lies outside [0, 1).

    Source:
        Polyak and Juditsky 1992; the growing decay is TensorFlow's `ExponentialMovingAverage(num_updates=...)`. Neither
        in the paper nor in the released code.
    """

    def __init__(self, decay: float | None = None) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}; use e.g. 0.999, or null for no average")
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.updates = 0
        self._seen = 0  # generator updates that the average knows of
        self._trained: dict[str, Tensor] = {}  # the training weights, while the average stands in

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the average at the generator's weights unless a checkpoint brought one."""
        if self.decay is None:
            return
        module = inpainting(module)
        weights = module.generator.state_dict()
        if self.average:
            self.average = {name: value.to(weights[name].device) for name, value in self.average.items()}
        else:
            self.average, self.updates = _copy(weights), 0
        self._seen = module.generator_updates

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Follow the generator if it was updated."""
        module = inpainting(module)
        if self.average and module.generator_updates != self._seen:
            self._seen = module.generator_updates
            self._follow(module.generator.state_dict())

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Put the average in the generator's place."""
        if self.average and not self._trained:
            self._trained = _copy(inpainting(module).generator.state_dict())
            inpainting(module).generator.load_state_dict(self.average)

    def on_validation_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Give the generator its own weights back, after an error in validation too."""
        if self._trained:
            inpainting(module).generator.load_state_dict(self._trained)
            self._trained = {}

    on_test_start = on_predict_start = on_validation_start  # type: ignore[assignment]
    on_test_end = on_predict_end = on_exception = on_validation_end  # type: ignore[assignment]

    def state_dict(self) -> dict[str, Any]:
        """Return how many updates the average knows."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the average; during validation, put the training weights where the average stands."""
        if self.average:
            checkpoint[KEY] = dict(self.average)
        checkpoint["state_dict"].update({f"generator.{name}": value for name, value in self._trained.items()})

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average from a checkpoint that has one."""
        if self.decay is not None:
            self.average = _copy(checkpoint.get(KEY, {}))

    @torch.no_grad()
    def _follow(self, weights: dict[str, Tensor]) -> None:
        assert self.decay is not None
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, average in self.average.items():
            if average.is_floating_point():
                average.lerp_(weights[name], 1 - decay)
            else:
                average.copy_(weights[name])
        self.updates += 1


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
