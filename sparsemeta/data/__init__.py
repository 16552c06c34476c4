"""Few-shot data: images grouped by class, and the sampler that draws tasks from them."""

from sparsemeta.data.glyphs import glyphs
from sparsemeta.data.image_classes import ImageClasses, Splits
from sparsemeta.data.omniglot import omniglot
from sparsemeta.data.tasks import Task, Tasks, TaskSampler

__all__ = ["ImageClasses", "Splits", "Task", "Tasks", "TaskSampler", "glyphs", "omniglot"]
