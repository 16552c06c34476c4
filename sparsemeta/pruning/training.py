"""A training run as an object, so that a search for a ticket need not know whether it is meta-training."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ..meta.checkpoint import load_checkpoint, save_checkpoint
from ..meta.config import TrainConfig
from ..meta.meta_step import make_learner
from ..meta.run import MODEL, StepRecord
from ..meta.train import train
from .cost import Cost, meta_passes
from .probe import Probe
from .rewind import Snapshot


@dataclass(frozen=True)
class Trained:
    """The end of a training run.

    Attributes:
        snapshot: the state it ended in.
        cost: seconds of its steps, those before an interruption included, those before `start` not.
        loss, accuracy: of the last tenth of these steps, on training data; accuracy in percent.
    """

    snapshot: Snapshot
    cost: Cost
    loss: float
    accuracy: float

    @classmethod
    def of(cls, snapshot: Snapshot, history: Tensor) -> Trained:
        """Of the loss, accuracy, seconds and processor seconds of each step, `[steps, 4]`."""
        means = history[-max(1, len(history) // 10) :].mean(0).tolist()
        return cls(snapshot, Cost(0.0, *history[:, 2:].sum(0).tolist()), *means[:2])


class TrainingRun(Protocol):
    """A training run that can be made again and again, from any of its states and with any ticket.

    Attributes:
        steps: of the whole run.
        passes: forward passes of one sample that a step amounts to (`cost`).
        input_size: `(C, H, W)` of one sample.
        facts: its settings, of what JSON can hold; a search is only resumed with the same.
    """

    steps: int
    passes: int
    input_size: tuple[int, ...]
    facts: dict[str, Any]

    def run(
        self, model: nn.Module, steps: int, start: Snapshot | None = None, checkpoint: Path | None = None,
        progress: bool = False,
    ) -> Trained:
        """Train `model` in place up to step `steps` of the whole run.

        Args:
            model: dense or sparse; holds the weights of `start`.
            start: the state to go on from; None is the run's beginning, with the model's own weights.
            checkpoint: file to write now and then; if it is there already, the run goes on from it.
            progress: show a bar.
        """

    def probe(self, batches: int) -> Probe:
        """The run's first `batches` batches or tasks, for scores that need data."""


class MetaRun:
    """Meta-training by `sparsemeta.meta.train`.

    Args:
        sampler: of tasks; the run begins at the place where it is now.
        config: every choice of the run; `config.steps` are those of the whole run.
    """

    def __init__(self, sampler: Any, config: TrainConfig):
        self.sampler, self.config = sampler, config
        self.steps, self.passes, self.facts = config.steps, meta_passes(config), asdict(config)
        self._beginning = sampler.state_dict()
        self.input_size = tuple(self._first(1).support_x.shape[2:])

    def run(
        self, model: nn.Module, steps: int, start: Snapshot | None = None, checkpoint: Path | None = None,
        progress: bool = False,
    ) -> Trained:
        """See `TrainingRun`. Raises what `sparsemeta.meta.train` raises."""
        self.sampler.load_state_dict(self._beginning)
        begun = start.step if start else 0
        with file_or_temporary(checkpoint) as path:
            if begun and not path.exists():
                save_checkpoint(path, {**start.extra, "model": model.state_dict(), "optimizer": start.optimizer})
            self._train(model, steps, path, progress)
            state = load_checkpoint(path)
        model.load_state_dict(state["model"])
        end = Snapshot(len(state["history"]), state.pop("model"), state.pop("optimizer"), state)
        return Trained.of(end, state["history"][begun:])

    def probe(self, batches: int) -> Probe:
        """See `TrainingRun`: tasks, whose loss is the query loss after adaptation."""
        return Probe.meta(self._first(batches), self.config)

    def learned_beside(self, model: nn.Module) -> list[str]:
        """What the run's learner of `model` learns that is not the model's, such as rates."""
        learner = make_learner(copy.deepcopy(model), self.config)
        return [name for name, _ in learner.named_parameters() if not name.startswith(MODEL)]

    def _train(self, model: nn.Module, steps: int, path: Path, progress: bool) -> None:
        """Up to `steps` of the whole run, never a run of so many steps: a schedule must not end there."""
        if path.exists() and len(load_checkpoint(path)["history"]) >= steps:
            return

        def stop(record: StepRecord) -> None:
            if record.step == steps < self.steps:
                raise _ReachedError

        config = replace(self.config, steps=max(steps, self.steps))
        if steps < self.steps:
            config = replace(config, checkpoint_every=steps)  # the one step whose state is asked for
        with suppress(_ReachedError):
            train(model, self.sampler, config, path, path.exists(), progress, on_step=stop)

    @contextmanager
    def sampling(self, after: Snapshot | None = None) -> Iterator[Any]:
        """The sampler where a state of the run has left it (None: at the beginning); afterwards where it was."""
        place = self.sampler.state_dict()
        self.sampler.load_state_dict(after.extra["sampler"] if after and after.step else self._beginning)
        try:
            yield self.sampler
        finally:
            self.sampler.load_state_dict(place)

    def _first(self, tasks: int) -> Any:
        with self.sampling() as sampler:
            return sampler.sample(tasks)


class _ReachedError(Exception):
    """Training has come to the step that was asked for."""


@contextmanager
def file_or_temporary(path: Path | None) -> Iterator[Path]:
    """`path`, or one in a folder that goes when the block ends."""
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "checkpoint.safetensors"
