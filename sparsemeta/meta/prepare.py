"""From a recipe to what trains and is judged: model, samplers, and what the checkpoint says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.image_classes import Splits, Statistics
from ..data.sampler import TaskSampler
from ..data.sources import decoding, load
from ..nn import sparsify
from ..ticket import Ticket
from .config import TrainConfig
from .evaluate import Evaluation, evaluate
from .maml import MAML
from .recipe import DataRecipe, Recipe, TestRecipe
from .seeds import seeded
from .trained import build_model


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recipe with everything in its place.

    Attributes:
        model: with weights from the seed, sparse where the recipe names a ticket.
        train, validation: samplers; both begin with the seed of the configuration.
        splits: the images.
        about: for ``train``, so that the checkpoint needs nothing beside it.
    """

    model: nn.Module
    train: TaskSampler
    validation: TaskSampler
    splits: Splits
    about: Mapping[str, Any]


def prepare(recipe: Recipe, device: str | torch.device = "cpu") -> Prepared:
    """Load the images, build the model and make the samplers of ``recipe``, on ``device``.

    Raises:
        FileNotFoundError, ValueError: no such data, model or ticket; nothing has been written then.
    """
    splits = load_splits(recipe.data, recipe.data.name, recipe.data.root, device)
    channels, *size = splits.train.image_shape
    arguments = {"ways": recipe.train.ways, "in_channels": channels, "image_size": size, **recipe.model.options}
    with seeded(recipe.train.seed, torch.device("cpu")):
        model = build_model(recipe.model.name, arguments)
    if recipe.model.ticket:
        model = sparsify(model, Ticket.load(recipe.model.ticket))
    statistics = splits.train.statistics() if recipe.data.normalise else None
    samplers = [tasks(part, recipe.train, recipe.train.seed, statistics) for part in (splits.train, splits.val)]
    about = {
        "model": {"name": recipe.model.name, "arguments": arguments},
        "data": {"name": recipe.data.name, "options": dict(recipe.data.options)},
        "images": asdict(decoding(recipe.data.name, splits, recipe.data.options)),
        "normalise": statistics,
        "test": asdict(recipe.test),
    }
    return Prepared(model.to(device), *samplers, splits, about)


def load_splits(data: DataRecipe, name: str, root: str | Path | None, device: str | torch.device) -> Splits:
    """The images that ``data`` describes, of the data set ``name`` in ``root``."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in data.options.items()}
    return load(name, None if root is None else Path(root), device=device, **options)


def tasks(images: Any, config: TrainConfig, seed: int, statistics: Statistics | None) -> TaskSampler:
    """Tasks of the shape that ``config`` says."""
    return TaskSampler(images, config.ways, config.shots, config.queries, seed, normalise=statistics)


def judge(
    learner: MAML | nn.Module, images: Any, config: TrainConfig, test: TestRecipe, statistics: Any, ranks: Any = None
) -> Evaluation:
    """Accuracy on the tasks that ``test`` describes, the same for every model."""
    config = replace(config, queries=test.queries)
    return evaluate(learner, tasks(images, config, test.seed, statistics), config, test.tasks, ranks)
