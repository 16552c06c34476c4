"""A model from its checkpoint alone: the file says how it is built, what is pruned and how it adapts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..keys import check_keys
from ..nn import sparsify
from ..nn.state import BITS, SIZES, unpack_state
from ..ticket import Ticket
from ..ticket_layers import weight_name
from .checkpoint import CheckpointError, load_checkpoint
from .config import TrainConfig
from .maml import MAML
from .meta_step import make_learner
from .run import model_mismatches

MODELS = {"conv4": models.Conv4, "film_conv4": models.FiLMConv4, "resnet12": models.ResNet12}


@dataclass(frozen=True, eq=False)
class Trained:
    """A learner ready to adapt, the configuration that it was trained with, and what its checkpoint says of itself."""

    learner: MAML
    config: TrainConfig
    about: Mapping[str, Any]

    @property
    def model(self) -> nn.Module:
        return self.learner.module


def build_model(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The backbone of that name. Raises ``ValueError`` for an unknown name or argument."""
    check_keys([name], MODELS, "a model")
    check_keys(arguments, inspect.signature(MODELS[name]).parameters, f"an argument of the model {name}")
    return MODELS[name](**arguments)


def load_trained(checkpoint: str | Path, device: str | torch.device = "cpu") -> Trained:
    """The learner in a checkpoint that ``sparsemeta train`` wrote, or ``train`` with ``about={"model": ...}``.

    Raises:
        CheckpointError: it cannot be read, or does not say how its model is built.
    """
    state = load_checkpoint(checkpoint)
    if not isinstance(state, Mapping) or "model" not in state.get("about", {}):
        raise CheckpointError(
            f"expected a checkpoint that says how its model is built at {checkpoint}; this one does not. "
            'Write it with `sparsemeta train`, or with train(..., about={"model": {"name": ..., "arguments": ...}})'
        )
    try:
        return _restored(state, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"expected a model and what was trained of it in {checkpoint}; they do not fit "
            f"({type(error).__name__}: {error}). Take another checkpoint"
        ) from error


def load_weights(model: nn.Module, checkpoint: str | Path, name: str) -> None:
    """Into ``model``, a dense ``name``, the weights of a checkpoint of ``sparsemeta train`` of the same network.

    Raises:
        CheckpointError: it cannot be read.
        ValueError: it is of another network; ``model`` is as it was.
    """
    state = load_trained(checkpoint).model.state_dict()
    if wrong := model_mismatches(model, state):
        raise ValueError(f"expected a checkpoint of a dense {name} in {checkpoint}, got another: {'; '.join(wrong)}")
    model.load_state_dict(state)


def _restored(state: Mapping[str, Any], device: str | torch.device) -> Trained:
    config, about = TrainConfig(**state["config"]), state["about"]
    model = build_model(about["model"]["name"], about["model"]["arguments"])
    if patterns := _patterns(state["model"]):
        model = sparsify(model, Ticket(patterns))
    model.load_state_dict(state["model"])
    learner = make_learner(model.to(device), config)
    missing = {name for name in learner.state_dict() if not name.startswith("module.")} ^ state["learner"].keys()
    if missing:
        raise ValueError(f"only one of learner and checkpoint has {sorted(missing)}")
    learner.load_state_dict(state["learner"], strict=False)  # the model's part is loaded
    return Trained(learner.to(device), config, about)


def _patterns(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The ticket in a state dict: patterns by the name that the weight has in the dense model."""
    layers = [name.removesuffix(BITS) for name in state if name.endswith(BITS)]
    return {weight_name(name[:-1]): unpack_state(state[name + BITS], state[name + SIZES]) for name in layers}
