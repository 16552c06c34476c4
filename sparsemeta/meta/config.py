"""What a meta-training run is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .batch_norm import BN_MODES
from .second_order import SECOND_ORDERS

COUNTS = (
    "ways", "shots", "queries", "inner_steps", "eval_inner_steps", "meta_batch", "steps", "checkpoint_every",
    "decay_every", "validate_every", "patience",
)  # fmt: skip  one name a line would fill the page
RATES = ("inner_lr", "meta_lr", "clip_norm", "decay")
ENGINES = ("auto", "chain", "autograd")  # the compiled chain where it can run, always, never
CHOICES = {
    "bn_mode": BN_MODES,
    "memory_format": ("contiguous", "channels_last"),
    "engine": ENGINES,
    "graph": ("auto", "off", "on"),
    "second_order": SECOND_ORDERS,
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine", "step"),
    "precision": ("float32", "bf16"),
}
OPTIONAL = ("eval_inner_steps", "clip_norm", "validate_every", "patience")


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
        meta_lr: rate of the outer optimiser, before its schedule.
        clip_norm: largest norm of the meta-gradient; None for no limit.
        steps: meta-steps of the whole run.
        seed: of everything random but the tasks, whose seed is the sampler's.
        memory_format: ``"contiguous"`` or ``"channels_last"``, for images and weights.
        checkpoint_every: meta-steps between two checkpoints.
        algorithm, algorithm_options: the meta-learner by name, and what it alone is asked for.
        engine: who differentiates: ``"auto"``, ``"chain"`` (compiled) or ``"autograd"``.
        graph: whether meta-steps on a GPU are captured in a CUDA graph: ``"auto"``, when the same shapes come again and
            it is possible, ``"off"``, or ``"on"``, which raises with the reasons where it is not.
        second_order: how the exact meta-gradient is computed: ``"unrolled"``, or ``"stepwise"`` in constant memory.
        optimizer: the outer one: ``"adam"``, ``"adamw"`` or ``"sgd"`` (with momentum 0.9).
        schedule: of ``meta_lr``: ``"constant"``, ``"cosine"`` down to 0 at ``steps``, or ``"step"``: times ``decay``
            after every ``decay_every`` steps.
        validate_every: meta-steps between two validations, where there are validation tasks; None for never.
        validate_tasks: tasks of a validation, the same each time.
        patience: validations without a better accuracy after which the run stops; None for no early stop.
        precision: ``"float32"``, or ``"bf16"``: forward and backward passes in bfloat16 by autocast; weights, inner
            updates and optimiser stay in float32.

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
    algorithm: str = "maml"
    algorithm_options: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "auto"
    second_order: str = "unrolled"
    optimizer: str = "adam"
    schedule: str = "constant"
    decay: float = 0.5
    decay_every: int = 1000
    validate_every: int | None = None
    validate_tasks: int = 200
    patience: int | None = None
    precision: str = "float32"
    graph: str = "auto"

    def __post_init__(self) -> None:
        for name in COUNTS:
            self._check(name, "an integer of at least 1", lambda n: is_count(n, 1))
        self._check("validate_tasks", "an integer of at least 2, for an interval", lambda n: is_count(n, 2))
        self._check("seed", "an integer of at least 0", lambda n: is_count(n, 0))
        for name in RATES:
            self._check(name, "a finite number above 0", is_rate)
        for name, choices in CHOICES.items():
            self._check(name, f"one of {', '.join(map(repr, choices))}", choices.__contains__)
        self._check("first_order", "true or false", lambda value: isinstance(value, bool))
        self._check("algorithm_options", "a table of options", lambda value: isinstance(value, Mapping))

    def _check(self, name: str, expected: str, holds: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if not holds(value) and not (value is None and name in OPTIONAL):
            raise ValueError(f"expected {name} to be {expected}; got {value!r}")

    @property
    def torch_memory_format(self) -> torch.memory_format:
        """``memory_format`` as torch names it."""
        return getattr(torch, "contiguous_format" if self.memory_format == "contiguous" else self.memory_format)

    def lr_factor(self, step: int) -> float:
        """What the schedule makes of the outer rate in meta-step ``step``, from 1. A function of the step alone."""
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * (step - 1) / self.steps)) / 2
        if self.schedule == "step":
            return self.decay ** ((step - 1) // self.decay_every)
        return 1.0


def is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
