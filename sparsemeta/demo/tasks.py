"""The demo's images, and the tasks that it draws from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from sparsemeta import data
from sparsemeta.data import ImageClasses, Splits, TaskSampler
from sparsemeta.demo.settings import Settings
from sparsemeta.meta import Evaluation, TrainConfig, evaluate


def load(settings: Settings, root: Path | None) -> Splits:
    """Training, validation and test classes: Omniglot's from ``root``, or glyphs."""
    if settings.data == "omniglot":
        return data.omniglot(root)
    return data.glyphs(sum(settings.glyphs)).split(*settings.glyphs)


def draw(images: ImageClasses, config: TrainConfig) -> TaskSampler:
    """Tasks of the shape and the seed that ``config`` says."""
    return TaskSampler(images, config.ways, config.shots, config.queries, config.seed)


def judge(model: nn.Module, images: ImageClasses, settings: Settings) -> Evaluation:
    """Accuracy on ``settings.eval_tasks`` tasks of ``images``, the same for every model."""
    config = replace(settings.config(), queries=settings.eval_queries)
    return evaluate(model, draw(images, config), config, settings.eval_tasks)
