"""Supervised training with SGD, as a run that can be repeated from any of its steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from ..meta.checkpoint import load_checkpoint, save_checkpoint
from ..meta.meta_step import DivergenceError
from ..meta.seeds import seeded
from .cost import stopwatch, supervised_passes
from .probe import Probe
from .rewind import Snapshot
from .training import Trained


@dataclass(frozen=True, eq=False)
class SupervisedRun:
    """Classification by SGD with momentum and steps in the learning rate. A step depends on `seed` and its number only.

    Args:
        images: `[M, C, H, W]`, float, or uint8 that is divided by 255; on the model's device.
        labels: int64 `[M]`.
        steps: of the whole run.
        batch: images of a step; the last ones of an epoch that fill no batch are left out.
        lr, momentum, weight_decay: of SGD (defaults: CIFAR's of E-LTH, NeurIPS 2021).
        milestones, gamma: after so many steps the rate is multiplied by `gamma`.
        augment: images `[batch, C, H, W]` to images, drawing from torch's global random numbers.
        seed: of the order of the images, and of everything random in a step.
        checkpoint_every: steps between two checkpoints.

    Raises:
        ValueError: images and labels that do not fit, or fewer than one batch.
    """

    images: Tensor
    labels: Tensor
    steps: int
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: Sequence[int] = ()
    gamma: float = 0.1
    augment: Callable[[Tensor], Tensor] | None = None
    seed: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or not 1 <= self.batch <= len(self.images) or self.steps < 1:
            raise ValueError(
                f"expected as many labels as images, at least one batch of {self.batch}, and steps of at least 1; got "
                f"{len(self.images)} images, {len(self.labels)} labels and {self.steps} steps"
            )

    @property
    def passes(self) -> int:
        """See `TrainingRun`."""
        return supervised_passes(self.batch)

    @property
    def input_size(self) -> tuple[int, ...]:
        """See `TrainingRun`."""
        return tuple(self.images.shape[1:])

    @property
    def facts(self) -> dict[str, Any]:
        """See `TrainingRun`."""
        plain = ("steps", "batch", "lr", "momentum", "weight_decay", "gamma", "seed")
        return {name: getattr(self, name) for name in plain} | {"milestones": list(self.milestones)}

    def run(
        self, model: nn.Module, steps: int, start: Snapshot | None = None, checkpoint: Path | None = None,
        progress: bool = False,
    ) -> Trained:
        """See `TrainingRun`. Raises `DivergenceError` where the loss is not finite."""
        begun = start.step if start else 0
        if checkpoint is not None and checkpoint.exists():
            start = Snapshot(**load_checkpoint(checkpoint))
            model.load_state_dict(dict(start.model))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, self.lr, self.momentum, weight_decay=self.weight_decay)
        if start and start.optimizer:
            optimizer.load_state_dict(start.optimizer)
        history = start.extra["history"].tolist() if start and start.step else []
        model.train()
        with seeded(self.seed, self.images.device):
            for step in track(range(len(history), steps), "training", disable=not progress):
                history.append(self._step(model, optimizer, step))
                if checkpoint is not None and len(history) % self.checkpoint_every == 0:
                    save_checkpoint(checkpoint, vars(_snapshot(model, optimizer, history)))
        end = _snapshot(model, optimizer, history)
        if checkpoint is not None:
            save_checkpoint(checkpoint, vars(end))
        return Trained.of(end, end.extra["history"][begun:])

    def probe(self, batches: int) -> Probe:
        """See `TrainingRun`: the first batches, without augmentation."""
        return Probe.supervised([self._batch(step) for step in range(batches)])

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> list[float]:
        """Step number `step` from 0; its loss, accuracy in percent, seconds and processor seconds."""
        torch.manual_seed(self.seed * 2**32 + step)
        x, y = self._batch(step)
        x = self.augment(x) if self.augment else x
        elapsed = stopwatch()
        for group in optimizer.param_groups:
            group["lr"] = self.lr * self.gamma ** sum(step >= milestone for milestone in self.milestones)
        optimizer.zero_grad()
        logits = model(x.to(next(model.parameters())))
        loss = F.cross_entropy(logits, y)
        if not math.isfinite(value := loss.item()):
            raise DivergenceError(f"step {step + 1}: expected a finite loss, got {value}; lower lr")
        loss.backward()
        optimizer.step()
        right, cost = (logits.argmax(1) == y).float().mean().item(), elapsed()
        return [value, 100 * right, cost.seconds, cost.processor_seconds]

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(step, len(self.images) // self.batch)
        generator = torch.Generator().manual_seed(self.seed * 2**32 + 2**31 + epoch)  # no step's own numbers
        order = torch.randperm(len(self.images), generator=generator)
        at = order[position * self.batch : (position + 1) * self.batch].to(self.images.device)
        images = self.images[at]
        return images.float() / 255 if images.dtype == torch.uint8 else images, self.labels[at]


def _snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, history: Sequence[Sequence[float]]) -> Snapshot:
    table = torch.tensor(history, dtype=torch.float64)
    return Snapshot(len(history), *copy.deepcopy((model.state_dict(), optimizer.state_dict())), {"history": table})
