"""What a meta-training run is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .batch_norm import BN_MODES

COUNTS = ("ways", "shots", "queries", "inner_steps", "eval_inner_steps", "meta_batch", "steps", "checkpoint_every")
RATES = ("inner_lr", "meta_lr", "clip_norm")
CHOICES = {"bn_mode": BN_MODES, "memory_format": ("contiguous", "channels_last")}
OPTIONAL = ("eval_inner_steps", "clip_norm")


@dataclass(frozen=True)
class TrainConfig:
    """Every choice of a meta-training run. The defaults are MAML's for Omniglot, 5-way 1-shot (arXiv 1703.03400, A.1).

    Attributes:
        ways, shots, queries: classes of a task, support and query images of each class.
        inner_steps, inner_lr: steps of the inner loop in training, and their rate.
        eval_inner_steps: steps in evaluation; None for as many as in training.
        first_order: leave out the second-order terms of the meta-gradient.
        bn_mode: see ``BatchNormMode``.
        meta_batch: tasks of a meta-step.
        meta_lr: rate of Adam, the outer optimiser.
        clip_norm: largest norm of the meta-gradient; None for no limit.
        steps: meta-steps of the whole run.
        seed: of everything random but the tasks, whose seed is the sampler's.
        memory_format: ``"contiguous"`` or ``"channels_last"``, for images and weights.
        checkpoint_every: meta-steps between two checkpoints.

    Raises:
        ValueError: a value out of range.
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15
    inner_steps: int = 1
    inner_lr: float = 0.4
    eval_inner_steps: int | None = None
    first_order: bool = False
    bn_mode: str = "transductive"
    meta_batch: int = 32
    meta_lr: float = 1e-3
    clip_norm: float | None = None
    steps: int = 1000
    seed: int = 0
    memory_format: str = "contiguous"
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name in COUNTS:
            self._check(name, "an integer of at least 1", lambda n: isinstance(n, int) and n >= 1)
        for name in RATES:
            self._check(name, "a finite number above 0", lambda r: isinstance(r, (int, float)) and 0 < r < math.inf)
        for name, choices in CHOICES.items():
            self._check(name, f"one of {', '.join(map(repr, choices))}", choices.__contains__)

    def _check(self, name: str, expected: str, holds: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if not holds(value) and not (value is None and name in OPTIONAL):
            raise ValueError(f"expected {name} to be {expected}; got {value!r}")

    @property
    def torch_memory_format(self) -> torch.memory_format:
        """``memory_format`` as torch names it."""
        return getattr(torch, "contiguous_format" if self.memory_format == "contiguous" else self.memory_format)
