"""What the demo runs: a recipe chosen by accuracy on validation classes, never on those that judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsemeta.meta import TrainConfig

KEPT_DENSE = ("head",)  # its 5 units are few weights and take no time

@dataclass(frozen=True)
class Settings:
    """Everything that decides the demo's accuracies. 5-way 1-shot, Conv4, second-order MAML with one inner step.

    Attributes:
        data: ``"glyphs"`` or ``"omniglot"``.
        seed: of the initial weights and of all tasks.
        steps: meta-steps that the dense network gets, and the ticket.
        sparsity: fraction of the convolutions' weights that the ticket prunes.
        hidden: filters of each convolution.
        glyphs: classes to draw for training, validation and test, where data is ``"glyphs"``.
        meta_batch, queries: tasks of a meta-step, query images of each class.
        inner_lr, meta_lr: rates of the inner loop and of Adam.
        eval_tasks, eval_queries: test tasks, and their query images of each class.
        rounds: meta-steps of each kind that are timed.

    Raises:
        ValueError: a value out of range.
    """

    data: str = "glyphs"
    seed: int = 0
    steps: int = 1200
    sparsity: float = 0.8
    hidden: int = 64
    glyphs: tuple[int, int, int] = (1000, 100, 100)
    meta_batch: int = 4
    queries: int = 5
    inner_lr: float = 0.2
    meta_lr: float = 1e-3
    eval_tasks: int = 600
    eval_queries: int = 15
    rounds: int = 40

    def __post_init__(self) -> None:
        if self.data not in ("glyphs", "omniglot"):
            raise ValueError(f"expected data to be 'glyphs' or 'omniglot'; got {self.data!r}")
        if self.steps < 2:
            raise ValueError(f"expected at least 2 steps, one to rewind to and one to go on with; got {self.steps}")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"expected sparsity, the fraction to prune, from 0 to below 1; got {self.sparsity}")
        if self.seed < 0:
            raise ValueError(f"expected a seed of at least 0; got {self.seed}")

    @classmethod
    def quick(cls, **chosen: Any) -> Settings:
        """Sizes that show in seconds that everything works, with accuracies that mean nothing."""
        small = {"steps": 20, "hidden": 8, "glyphs": (20, 10, 10), "eval_tasks": 20, "eval_queries": 5, "rounds": 3}
        return cls(**{**small, **chosen})

    @property
    def rewind(self) -> int:
        """The step whose weights the ticket starts from: 5 % of the run (Frankle et al. 2020, arXiv 1912.05671)."""
        return max(1, self.steps // 20)

    def config(self, memory_format: str = "contiguous") -> TrainConfig:
        """The whole run of the dense network."""
        return TrainConfig(
            ways=5,
            shots=1,
            queries=self.queries,
            inner_steps=1,
            inner_lr=self.inner_lr,
            meta_batch=self.meta_batch,
            meta_lr=self.meta_lr,
            steps=self.steps,
            seed=self.seed,
            memory_format=memory_format,
        )
