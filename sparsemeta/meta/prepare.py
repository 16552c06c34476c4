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
from .trained import Trained, build_model, load_weights


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recipe with everything in its place.

    Attributes:
        model: with weights from the seed or from ``start``, sparse where the recipe names a ticket.
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
    splits = load_splits(recipe.data, device)
    channels, *size = splits.train.image_shape
    arguments = {"ways": recipe.train.ways, "in_channels": channels, "image_size": size, **recipe.model.options}
    with seeded(recipe.train.seed, torch.device("cpu")):
        model = build_model(recipe.model.name, arguments)
    if recipe.model.start:
        load_weights(model, recipe.model.start, recipe.model.name)
    if recipe.model.ticket:
        model = sparsify(model, Ticket.load(recipe.model.ticket))
    statistics = splits.train.statistics() if recipe.data.normalise else None
    samplers = [sampler_of(part, recipe.train, recipe.train.seed, statistics) for part in (splits.train, splits.val)]
    about = {
        "model": {"name": recipe.model.name, "arguments": arguments},
        "data": {"name": recipe.data.name, "options": dict(recipe.data.options)},
        "images": asdict(decoding(recipe.data.name, splits, recipe.data.options)),
        "normalise": statistics,
        "test": asdict(recipe.test),
    }
    return Prepared(model.to(device), *samplers, splits, about)


def load_splits(data: DataRecipe, device: str | torch.device) -> Splits:
    """The images that ``data`` describes."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in data.options.items()}
    return load(data.name, None if data.root is None else Path(data.root), device=device, **options)


def splits_for(trained: Trained, root: str | Path | None, name: str | None, device: str | torch.device) -> Splits:
    """Images in ``root`` for a checkpoint: of the data set ``name``, None for the one that it was trained on.

    Raises ``ValueError`` where they are not of the shape that it was trained on.
    """
    own, images = trained.about["data"], trained.about["images"]
    options = own["options"] if name in (None, own["name"]) else {}
    splits = load_splits(DataRecipe(name or own["name"], root, options=options), device)
    expected, got = (images["channels"], *images["size"]), tuple(splits.train.image_shape)
    if got != expected:
        raise ValueError(f"expected images {expected}, as the checkpoint's; got {got}. Take a data set of that shape")
    return splits


def sampler_of(images: Any, config: TrainConfig, seed: int, statistics: Statistics | None) -> TaskSampler:
    """Tasks of the shape that ``config`` says."""
    return TaskSampler(images, config.ways, config.shots, config.queries, seed, normalise=statistics)


def judge(
    learner: MAML | nn.Module, images: Any, config: TrainConfig, test: TestRecipe, statistics: Any, ranks: Any = None,
    pattern: str | None = None,
) -> Evaluation:  # fmt: skip  one argument a line would be longer than the rest
    """Accuracy on the tasks that ``test`` describes, the same for every model."""
    config = replace(config, queries=test.queries)
    return evaluate(learner, sampler_of(images, config, test.seed, statistics), config, test.tasks, ranks, pattern)
