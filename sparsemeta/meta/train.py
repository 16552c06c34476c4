"""The meta-training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from .checkpoint import best_path
from .config import TrainConfig
from .distributed import Ranks
from .evaluate import evaluate
from .log import Log, logs
from .maml import MAML
from .meta_step import DivergenceError, meta_step
from .optimizers import set_rate
from .precision import forward_in
from .progress import step_bar
from .records import StepRecord, ValidationRecord, best
from .run import Run
from .seeds import seeded


@dataclass(frozen=True)
class TrainResult:
    """What a training run has to tell; the model itself is trained in place.

    Attributes:
        learner: the model with what was learned beside it, such as rates; for ``evaluate``.
        history: every meta-step, those before a resume included.
        seconds_per_step: median.
        checkpoint: the file that holds the end of the run; None if none was asked for.
        validations: every validation.
        best: the best of them; its weights are in ``best_path(checkpoint)``. None without validation.
        best_checkpoint: that file.
    """

    learner: MAML
    history: list[StepRecord]
    seconds_per_step: float
    checkpoint: Path | None
    validations: list[ValidationRecord]
    best: ValidationRecord | None
    best_checkpoint: Path | None


def train(
    model: nn.Module,
    sampler: Any,
    config: TrainConfig,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    on_step: Callable[[StepRecord], None] | None = None,
    validation: Any = None,
    log: str | Path | None = None,
    tensorboard: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Meta-train ``model`` in place: ``config.steps`` outer steps (MAML: arXiv 1703.03400, algorithm 2).

    A run that is stopped and resumed, with model and samplers made as before, gives the same numbers as one that is
    not: bit for bit with one thread. In a default process group of ``torch.distributed`` the tasks of each meta-batch
    are shared out and the meta-gradient is summed once; the model is never wrapped. Every process is called alike, sees
    the same files, and only the first writes them.

    Args:
        model: trained in ``train()`` mode, on the device where it is.
        sampler: gives the tasks: ``sample(n)``, ``state_dict()``, ``load_state_dict(state)``.
        config: every choice of the run.
        checkpoint: file to write every ``config.checkpoint_every`` steps and at the end, atomically; None for none.
        resume: go on from ``checkpoint``. ``steps``, but for a cosine schedule, and ``patience`` may be others than
            they were then, nothing else may differ.
        progress: show a bar with rate, loss, accuracy and remaining time.
        on_step: called after each step, and after its checkpoint.
        validation: sampler of the validation tasks, the same ones each time, every ``config.validate_every`` steps.
        log: file for one JSON line a step; on ``resume`` cut back to the checkpoint.
        tensorboard: folder for TensorBoard's files.
        about: what else the checkpoint shall say of itself, such as how the model is built.

    Raises:
        CheckpointError: ``resume`` from a file that is missing, damaged or of another run.
        DivergenceError: the loss is not finite; the last checkpoint is from before.
        RankError: another process of the run is gone or differs.
        ValueError: ``resume`` without ``checkpoint``; tasks or model that do not fit ``config``.
    """
    if resume and checkpoint is None:
        raise ValueError("expected checkpoint to name a file to resume from; got None")
    if (validation is None) and (config.validate_every or config.patience):
        raise ValueError("expected validation tasks with validate_every or patience; got None. Pass validation=sampler")
    ranks = Ranks.current()
    if config.meta_batch < ranks.world:
        raise ValueError(f"expected a task for each of {ranks.world} processes; got meta_batch={config.meta_batch}")
    run = Run(model, sampler, config, about)
    with seeded(config.seed, run.device), forward_in(model, config.precision):
        if resume:
            run.load(checkpoint)
        if ranks.world > 1:
            ranks.check_same(run.fingerprint(), "the same weights, steps and tasks")
        model.train()
        log, tensorboard = (log, tensorboard) if ranks.first else (None, None)
        bar = step_bar(config.steps, len(run.history), progress and ranks.first)
        with bar as advance, logs(log, tensorboard, len(run.history)) as written:
            while not run.done:
                record = next_step(run, ranks, checkpoint, validation, written)
                advance(record, best(run.validations))
                if on_step is not None:
                    on_step(record)
        ranks.sum(torch.zeros(1, device=run.device))  # nobody goes on to read a file that is still being written
    return result_of(run, checkpoint)


def next_step(run: Run, ranks: Ranks, checkpoint: str | Path | None, validation: Any, written: list[Log]) -> StepRecord:
    """One meta-step of ``run``, and its validation and checkpoint when they are due."""
    config, step = run.config, len(run.history) + 1
    tasks = ranks.share(run.sampler.sample(config.meta_batch))
    set_rate(run.optimizer, config.lr_factor(step))
    begin = time.perf_counter(), time.process_time()
    try:
        loss, accuracy = meta_step(run.learner, tasks, run.optimizer, config, ranks.reduce)
    except DivergenceError as error:
        kept = "no checkpoint was asked for" if checkpoint is None else f"{checkpoint} holds the last checkpoint"
        raise DivergenceError(f"meta-step {step}: {error}; {kept}") from error
    record = StepRecord(step, loss, accuracy, time.perf_counter() - begin[0], time.process_time() - begin[1])
    run.history.append(record)
    tell(written, "train", record, meta_lr=config.meta_lr * config.lr_factor(step))
    if config.validate_every and step % config.validate_every == 0:
        validate(run, ranks, validation)
        tell(written, "validation", run.validations[-1])
    if checkpoint is not None and ranks.first:
        run.save_due(Path(checkpoint))
    return record


def validate(run: Run, ranks: Ranks, validation: Any) -> None:
    """Judge the present weights on the validation tasks."""
    score = evaluate(run.learner, validation, run.config, run.config.validate_tasks, ranks)
    run.validations.append(ValidationRecord(len(run.history), score.accuracy, score.interval, score.loss))


def tell(written: list[Log], kind: str, record: StepRecord | ValidationRecord, **more: float) -> None:
    figures = asdict(record) | more
    step = figures.pop("step")
    for log in written:
        log.write(kind, step, figures)


def result_of(run: Run, checkpoint: str | Path | None) -> TrainResult:
    top = best(run.validations)
    kept = best_path(checkpoint) if top and checkpoint is not None else None
    seconds = median(record.seconds for record in run.history)
    end = None if checkpoint is None else Path(checkpoint)
    return TrainResult(run.learner, run.history, seconds, end, run.validations, top, kept)
