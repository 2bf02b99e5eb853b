"""The training algorithm: critics on every batch, the generator on every few, by manual optimization."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection

from gicinpaint.data import Batch
from gicinpaint.data.order import derive_seed
from gicinpaint.losses import InpaintingLoss, Terms, gradient_norm
from gicinpaint.metrics import hole_metrics
from gicinpaint.models.compositing import composite, fill_with_mean, mask_out
from gicinpaint.models.critics import LocalCritic
from gicinpaint.models.generator import Completion
from gicinpaint.training.gradients import GradientGuard, MicroBatch, average, freeze_parts, set_clock, split
from gicinpaint.training.rebuild import StoredModule, describe_parts

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler]
Completed = tuple[Completion, Tensor]  # and the completed images


class InpaintingModule(StoredModule):
    """Networks, losses and optimizers of the paper, joined by its training algorithm.

    Every batch updates the critics; every `critic_steps`-th also updates the generator, whose output serves both.
    On the other batches the generator runs without gradients. Without an adversary, and during the warm-up, every
    batch updates the generator and the critics rest. The second paper's code has separate batches and a joint clock.

    The trainer's `global_step`, and so `max_steps`, counts generator updates; so do schedules, plots and stopping. A
    step whose gradients are not finite is skipped and not counted, by the decision of `GradientGuard.admit`.

    Loaders yield a `Batch`, a mapping with `image` and `mask`, or a pair of both; see `Batch.of`. `Trainer.predict`
    returns completed images.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        critics: Critics by name, such as global, local and patch; None leaves one out.
        loss: The losses and their weights.
        generator_optimizer: Makes the optimizer of the generator's parameters.
        critic_optimizer: Makes the optimizer of the critics' parameters.
        generator_schedule: Makes the schedule of the generator's learning rate, in generator updates; None keeps it.
        critic_steps: Critic updates per generator update.
        separate_batches: Whether the generator's update has a batch of its own, on which the critics rest.
        joint_clock: Whether both optimizers, then Adam, correct their bias by the number of all updates of both.
        warmup_steps: Generator updates on reconstruction alone, before the critics start.
        grad_clip_norm: Largest norm of a network's gradient; None: no clipping.
        micro_batches: Parts of a batch whose gradients are accumulated, for less memory and more time. Losses are means
            over images and no layer mixes images, so gradients add up to the batch's, the penalty's included.
        metrics: What validation measures in the hole, for the mean colour, the coarse and the completed image.
        freeze: Parts of the generator that keep their weights, such as coarse_network: the others are trained alone.
        seed: The run's seed; the places of the gradient penalty depend on it and on the batch's number alone.

    Attributes:
        batches_seen, generator_updates: Training batches and generator updates so far.
        config, run_settings: Plain data that this module is built from and its batches depend on; in every checkpoint.

    Raises:
        ValueError: If the loss has an adversary but there is no critic, a count is out of range, or a frozen part is
            absent or leaves nothing to train.

    Source:
        Yu et al. 2018, algorithm 1; counts and optimizers as in the released configuration.
    """

    def __init__(
        self,
        generator: nn.Module,
        critics: Mapping[str, nn.Module | None] | None = None,
        loss: InpaintingLoss = InpaintingLoss(),  # noqa: B008  (no state: safe to share)
        generator_optimizer: OptimizerFactory = partial(Adam, lr=1e-4, betas=(0.5, 0.9), fused=True),  # noqa: B008
        critic_optimizer: OptimizerFactory = partial(Adam, lr=1e-4, betas=(0.5, 0.9), fused=True),  # noqa: B008
        generator_schedule: ScheduleFactory | None = None,
        critic_steps: int = 5,
        separate_batches: bool = False,
        joint_clock: bool = False,
        warmup_steps: int = 0,
        grad_clip_norm: float | None = None,
        micro_batches: int = 1,
        metrics: MetricCollection | None = None,
        freeze: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = describe_parts(locals())  # the arguments
        _check_counts(critic_steps, warmup_steps, micro_batches)
        self.automatic_optimization = False
        self.generator = generator
        freeze_parts(generator, freeze)
        self.critics = nn.ModuleDict()
        if loss.adversary is not None:
            self.critics.update({name: critic for name, critic in (critics or {}).items() if critic is not None})
            if not self.critics:
                raise ValueError("an adversarial loss needs a critic, got none; pass one, or a loss without adversary")
        self.loss = loss
        self.generator_optimizer = generator_optimizer
        self.critic_optimizer = critic_optimizer
        self.generator_schedule = generator_schedule
        self.critic_steps = critic_steps
        self.separate_batches = separate_batches
        self.joint_clock = joint_clock
        self.warmup_steps = warmup_steps
        self.guard = GradientGuard(grad_clip_norm)
        self.micro_batches = micro_batches
        columns = hole_metrics() if metrics is None else metrics
        rows = ("mean_colour", "coarse", "completed")
        self.validation_metrics = nn.ModuleDict({r: columns.clone(prefix=f"validation/{r}/hole/") for r in rows})
        self.seed = seed

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [-1, 1] with the hole of (B, 1, H, W) masks filled."""
        return composite(image, self.generator(mask_out(image, mask), mask).prediction, mask)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Return the generator's optimizer and, where there are critics, theirs; and the generator's schedule."""
        optimizers = [self.generator_optimizer(p for p in self.generator.parameters() if p.requires_grad)]
        if self.critics:
            optimizers.append(self.critic_optimizer(self.critics.parameters()))
        if self.joint_clock:
            for name in (type(optimizer).__name__ for optimizer in optimizers if not isinstance(optimizer, Adam)):
                raise TypeError(f"joint_clock needs Adam for both networks, got {name}; set model.joint_clock=false")
        return optimizers, [] if self.generator_schedule is None else [self.generator_schedule(optimizers[0])]

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Return what a loader yielded as a batch; boxes that it lacks have the size that the local critic sees."""
        sizes = [critic.image_size for critic in self.critics.values() if isinstance(critic, LocalCritic)]
        return Batch.of(batch, sizes[0] if sizes else None)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the critics, the generator or both from one batch."""
        self.log_again()
        micro_batches = split(batch, self.micro_batches)
        completion = None  # of a whole batch, for both updates; a micro-batch is completed again, to save memory
        if len(micro_batches) == 1:
            with torch.set_grad_enabled(self.updates_generator):
                completion = self._complete(batch)
        if self.updates_critics:
            self._update_critics(micro_batches, completion, self._penalty_places(batch.image))
        if self.updates_generator:
            self._update_generator(micro_batches, completion)
        self.batches_seen += 1
        self.log("step", float(self.generator_updates))  # the loggers' axis

    @property
    def adversarial(self) -> bool:
        """Whether the critics take part: there are some, and the warm-up is over."""
        return bool(self.critics) and self.generator_updates >= self.warmup_steps

    @property
    def updates_critics(self) -> bool:
        """Whether the next batch updates the critics."""
        return self.adversarial and not (self.separate_batches and self.updates_generator)

    @property
    def updates_generator(self) -> bool:
        """Whether the next batch updates the generator."""
        return not self.adversarial or (self.batches_seen + 1) % (self.critic_steps + self.separate_batches) == 0

    def critic_terms(self, batch: Batch, completed: Tensor, places: Tensor | None = None) -> Terms:
        """Return the critics' losses on a batch and its completed images, (B, 3, H, W).

        The penalty's places between real and completed, (critics, B, 1, 1, 1), are by default those of a whole batch.
        """
        terms: Terms = {"total": completed.new_zeros(())}
        places = self._penalty_places(completed) if places is None else places
        for (name, critic), alpha in zip(self._named_critics(), places, strict=True):
            image, fake, mask = (critic.view(x, batch.box) for x in (batch.image, completed, batch.mask))
            real_scores, completed_scores = critic(torch.cat([image, fake]), torch.cat([mask, mask])).chunk(2)
            loss, norm = self.loss.of_critic(name), None
            if loss is not None and loss.penalty_weight:
                scored = critic if hasattr(critic, "input_gradient") else partial(critic, mask=mask)
                norm = gradient_norm(scored, image, fake, mask, alpha)
            found = self.loss.critic(name, real_scores, completed_scores, norm)
            terms = {**terms, **found, "total": terms["total"] + found["total"]}
        return terms

    def generator_terms(self, batch: Batch, completion: Completion, completed: Tensor) -> Terms:
        """Return the generator's losses on a batch from its completion; after the warm-up the critics take part."""
        scores = {}
        if self.adversarial:
            for name, critic in self._named_critics():
                scores[name] = critic(critic.view(completed, batch.box), critic.view(batch.mask, batch.box))
        return self.loss.generator(completion.coarse, completion.refined, batch.image, batch.mask, batch.box, scores)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the coarse and the completed image in the hole, and the mean colour beside them."""
        completion, completed = self._complete(batch)
        coarse = composite(batch.image, completion.coarse, batch.mask)
        rows = {"mean_colour": fill_with_mean(batch.image, batch.mask), "coarse": coarse, "completed": completed}
        for name, prediction in rows.items():
            cast(MetricCollection, self.validation_metrics[name]).update(prediction, batch.image, batch.mask)

    def on_validation_epoch_end(self, stage: str = "validation") -> None:
        """Log the averages over the images."""
        for metrics in cast(Iterable[MetricCollection], self.validation_metrics.values()):
            self.log_dict({name.replace("validation", stage, 1): value for name, value in metrics.compute().items()})
            metrics.reset()
        self.log("step", float(self.generator_updates))

    test_step = validation_step  # the columns are called test/...

    def on_test_epoch_end(self) -> None:
        """Log the averages over the images."""
        self.on_validation_epoch_end("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the completed images, (B, 3, H, W) in [-1, 1]."""
        return self._complete(batch)[1]

    def _complete(self, batch: Batch) -> Completed:
        completion = self.generator(mask_out(batch.image, batch.mask), batch.mask)
        return completion, composite(batch.image, completion.prediction, batch.mask)

    def _update_critics(self, micro_batches: list[MicroBatch], completion: Completed | None, places: Tensor) -> None:
        optimizer, terms = self._optimizers()[1], []
        optimizer.zero_grad()
        for micro_batch in micro_batches:
            with torch.no_grad():
                _, completed = completion or self._complete(micro_batch.batch)
            found = self.critic_terms(micro_batch.batch, completed.detach(), places[:, micro_batch.images])
            self.manual_backward(self.guard.mark(micro_batch.share * found["total"]))
            terms.append({name: term.detach() for name, term in found.items()})
        self._step("critics", optimizer, average(micro_batches, terms))

    def _update_generator(self, micro_batches: list[MicroBatch], completion: Completed | None) -> None:
        optimizer, terms = self._optimizers()[0], []
        optimizer.zero_grad()
        self.critics.requires_grad_(False)  # the generator's loss passes through them and must not reach them
        for micro_batch in micro_batches:
            found = self.generator_terms(micro_batch.batch, *(completion or self._complete(micro_batch.batch)))
            self.manual_backward(self.guard.mark(micro_batch.share * found["total"]))
            terms.append({name: term.detach() for name, term in found.items()})
        self.critics.requires_grad_(True)
        if self._step("generator", optimizer, average(micro_batches, terms)):
            if self.generator_schedule is not None:
                self.lr_schedulers().step()  # type: ignore[union-attr]
            self.generator_updates += 1

    def _step(self, network: str, optimizer: Any, terms: dict[str, Tensor]) -> bool:
        """Log the losses, and take the step unless gradients are not finite; return whether it was taken."""
        kind = f"train/{network.removesuffix('s')}"
        self.log_and_keep({f"{kind}/{name}": term for name, term in terms.items()})
        where = f"batch {self.batches_seen} (generator update {self.generator_updates})"
        scaler = getattr(getattr(self.trainer, "precision_plugin", None), "scaler", None)  # of float16; Fabric has none
        scale = None if scaler is None else scaler.get_scale()
        norm = self.guard.admit(network, getattr(self, network), terms, where, scale=scale)
        if norm is None:
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)  # finds the overflow, so that the scale is lowered
                scaler.update()
            optimizer.zero_grad()
            return False
        self.log_and_keep({f"{kind}/gradient_norm": norm})
        if self.joint_clock:
            set_clock(optimizer, self._optimizers())
        if network == "critics" and isinstance(optimizer, LightningOptimizer):  # its own step would count in max_steps
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        else:
            optimizer.step()
        return True

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _named_critics(self) -> Iterable[tuple[str, Any]]:
        return self.critics.items()

    def _penalty_places(self, images: Tensor) -> Tensor:
        """This process's part of the joint batch's places, (critics, B, 1, 1, 1): the same for any process count."""
        b = images.shape[0]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.batches_seen, "penalty"))
        places = torch.rand(len(self.critics), self.trainer.world_size * b, 1, 1, 1, generator=generator)
        return places[:, self.global_rank * b :][:, :b].to(images.device)


def inpainting(module: LightningModule) -> InpaintingModule:
    """Return a module that is an InpaintingModule, or raise a TypeError."""
    if not isinstance(module, InpaintingModule):
        raise TypeError(f"expected an InpaintingModule, got {type(module).__name__}; these callbacks count its updates")
    return module


def _check_counts(critic_steps: int, warmup_steps: int, micro_batches: int) -> None:
    if micro_batches < 1:
        raise ValueError(f"micro_batches must be at least 1, got {micro_batches}; 1 takes each batch as a whole")
    if critic_steps < 1:
        raise ValueError(f"critic_steps must be at least 1, got {critic_steps}; the paper's is 5")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}; 0 switches the warm-up off")
