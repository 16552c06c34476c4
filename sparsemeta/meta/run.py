"""A training run as one object: what a checkpoint holds, and what must fit before one is taken up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import CheckpointError, best_path, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .meta_step import make_learner, make_optimizer
from .optimizers import set_rate
from .records import StepRecord, ValidationRecord, best, out_of_patience

MAY_DIFFER = ("steps", "checkpoint_every", "patience", "graph")  # so that a finished run can be carried on
MODEL = "module."  # where a learner keeps the model


class Run:
    """Model, optimiser, sampler, random numbers and history of a training run; ``about`` goes along unread."""

    def __init__(self, model: nn.Module, sampler: Any, config: TrainConfig, about: Mapping[str, Any] | None = None):
        self.model, self.sampler, self.config, self.about = model, sampler, config, dict(about or {})
        self.learner = make_learner(model, config)
        self.optimizer = make_optimizer(self.learner, config)
        set_rate(self.optimizer, 1.0)
        self.history: list[StepRecord] = []
        self.validations: list[ValidationRecord] = []
        self.device = next(model.parameters()).device

    @property
    def done(self) -> bool:
        """Whether all steps are made, or validation brings nothing better any more."""
        return len(self.history) >= self.config.steps or out_of_patience(self.validations, self.config.patience)

    def fingerprint(self) -> Tensor:
        """Numbers that differ where two runs do: sums of the parameters, steps, place in the tasks."""
        values = torch.cat([p.detach().double().flatten() for p in self.model.parameters()])
        place = sum(float(state.double().sum()) for state in self.sampler.state_dict().values())
        return torch.stack([values.sum(), values.abs().sum(), values.new_tensor(place + len(self.history))])

    def save_due(self, path: Path) -> None:
        """The checkpoints that the last step asks for: of the best validation, of every so many steps, of the end."""
        top = best(self.validations)
        if top is not None and top.step == len(self.history):
            self.save(best_path(path))
        if self.done or len(self.history) % self.config.checkpoint_every == 0:
            self.save(path)

    def save(self, path: str | Path) -> None:
        """Write the run to ``path``, atomically."""
        on_gpu = self.device.type == "cuda"
        state = {
            "about": self.about,
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "learner": self._learned(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.device) if on_gpu else None,
            "history": torch.tensor([astuple(r)[1:] for r in self.history], dtype=torch.float64),
            "validations": [astuple(validation) for validation in self.validations],
        }
        save_checkpoint(path, state)

    def _learned(self) -> dict[str, Any]:
        """What the learner has beside the model, such as learned rates."""
        return {name: value for name, value in self.learner.state_dict().items() if not name.startswith(MODEL)}

    def load(self, path: str | Path) -> None:
        """Go on where ``path`` was written.

        Raises:
            CheckpointError: it cannot be read, or is of another config or model; the model is then as it was.
        """
        state = load_checkpoint(path)
        try:
            reasons = self._mismatches(state)
            if not reasons:
                self._restore(state)
        except Exception as error:  # whatever a hostile file breaks
            reasons = [f"it does not hold a run ({type(error).__name__}: {error})"]
        if reasons:
            raise CheckpointError(
                f"expected a checkpoint of this run at {path}; got another: {'; '.join(reasons)}. "
                "Resume with the config and the model it was written with, or start without resume"
            )

    def _mismatches(self, state: dict[str, Any]) -> list[str]:
        """Why ``state`` is not of this run."""
        then, steps = state["config"], len(state["history"])
        fixed = [name for name in asdict(self.config) if name not in MAY_DIFFER]
        fixed += ["steps"] if self.config.schedule == "cosine" else []  # its length is what the schedule ends with
        reasons = [
            f"{name} was {then.get(name)!r} and is {getattr(self.config, name)!r}"
            for name in fixed
            if then.get(name) != getattr(self.config, name)
        ]
        if steps > self.config.steps:
            reasons.append(f"it has made {steps} steps and steps is {self.config.steps}")
        if self._learned().keys() != state["learner"].keys():
            reasons.append(f"only one of the learners has {sorted(self._learned().keys() ^ state['learner'].keys())}")
        return reasons + model_mismatches(self.model, state["model"]) + self._moment_mismatches(state["optimizer"])

    def _moment_mismatches(self, state: dict[str, Any]) -> list[str]:
        shapes = [p.shape for group in self.optimizer.param_groups for p in group["params"]]
        moments = ((i, m) for i, held in state["state"].items() for m in held.values() if m is not None and m.dim())
        wrong = sorted({i for i, moment in moments if moment.shape != shapes[i]})
        return [f"the optimiser's moments do not fit the parameters {wrong}"] if wrong else []

    def _restore(self, state: dict[str, Any]) -> None:
        history = [StepRecord(step, *row) for step, row in enumerate(state["history"].tolist(), 1)]
        validations = [ValidationRecord(*row) for row in state["validations"]]
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_gpu"] is not None:
            torch.cuda.set_rng_state(state["random_gpu"], self.device)
        self.sampler.load_state_dict(state["sampler"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.model.load_state_dict(state["model"])
        self.learner.load_state_dict(state["learner"], strict=False)  # the model's part is loaded
        self.history, self.validations = history, validations


def model_mismatches(model: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Why ``state`` is not of ``model``: names, shapes and types, and values that are no weights, such as patterns."""
    own = model.state_dict()
    if own.keys() != state.keys():
        return [f"only one of the two models has {sorted(own.keys() ^ state.keys())}"]
    weights = {name for named in (model.named_parameters, model.named_buffers) for name, _ in named()}
    wrong = [name for name, value in own.items() if not same_kind(value, state[name], compare=name not in weights)]
    return [f"the models differ in {wrong}"] if wrong else []


def same_kind(a: Any, b: Any, compare: bool) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and (not compare or torch.equal(a.cpu(), b.cpu()))
    return type(a) is type(b) and (not compare or a == b)
