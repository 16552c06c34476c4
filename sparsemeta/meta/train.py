"""The meta-training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

from .config import TrainConfig
from .meta_step import DivergenceError, meta_step
from .progress import step_bar
from .run import Run, StepRecord
from .seeds import seeded


@dataclass(frozen=True)
class TrainResult:
    """What a training run has to tell; the model itself is trained in place.

    Attributes:
        history: every meta-step, those before a resume included.
        seconds_per_step: median.
        checkpoint: the file that holds the end of the run; None if none was asked for.
    """

    history: list[StepRecord]
    seconds_per_step: float
    checkpoint: Path | None


def train(
    model: nn.Module,
    sampler: Any,
    config: TrainConfig,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    on_step: Callable[[StepRecord], None] | None = None,
) -> TrainResult:
    """Meta-train ``model`` in place: ``config.steps`` meta-steps of MAML with Adam (arXiv 1703.03400, algorithm 2).

    A run that is stopped and resumed, with model and sampler made as before, gives the same numbers as one that is not.

    Args:
        model: trained in ``train()`` mode, on the device where it is.
        sampler: gives the tasks: ``sample(n)``, ``state_dict()``, ``load_state_dict(state)``.
        config: every choice of the run.
        checkpoint: file to write every ``config.checkpoint_every`` steps and at the end, atomically; None for none.
        resume: go on from ``checkpoint``. ``steps`` may be larger than it was then, nothing else may differ.
        progress: show a bar with rate, loss, accuracy and remaining time.
        on_step: called after each step, and after its checkpoint.

    Raises:
        CheckpointError: ``resume`` from a file that is missing, damaged or of another run.
        DivergenceError: the loss is not finite; the last checkpoint is from before.
        ValueError: ``resume`` without ``checkpoint``; tasks or model that do not fit ``config``.
    """
    if resume and checkpoint is None:
        raise ValueError("expected checkpoint to name a file to resume from; got None")
    run = Run(model, sampler, config)
    with seeded(config.seed, run.device):
        if resume:
            run.load(checkpoint)
        model.train()
        with step_bar(config.steps, len(run.history), progress) as advance:
            while len(run.history) < config.steps:
                record = next_step(run, checkpoint)
                advance(record.loss, record.accuracy)
                if on_step is not None:
                    on_step(record)
    seconds = median(record.seconds for record in run.history)
    return TrainResult(run.history, seconds, None if checkpoint is None else Path(checkpoint))


def next_step(run: Run, checkpoint: str | Path | None) -> StepRecord:
    """One meta-step of ``run``, and its checkpoint when one is due."""
    config, step = run.config, len(run.history) + 1
    tasks = run.sampler.sample(config.meta_batch)
    begin = time.perf_counter()
    try:
        loss, accuracy = meta_step(run.learner, tasks, run.optimizer, config)
    except DivergenceError as error:
        kept = "no checkpoint was asked for" if checkpoint is None else f"{checkpoint} holds the last checkpoint"
        raise DivergenceError(f"meta-step {step}: {error}; {kept}") from error
    run.history.append(StepRecord(step, loss, accuracy, time.perf_counter() - begin))
    if checkpoint is not None and (step % config.checkpoint_every == 0 or step == config.steps):
        run.save(checkpoint)
    return run.history[-1]
