"""Few-shot data: images grouped by class, and the sampler that draws tasks from them."""

from sparsemeta.data.cifar_fs import cifar_fs
from sparsemeta.data.glyphs import glyphs
from sparsemeta.data.image_classes import ImageClasses, Splits
from sparsemeta.data.image_folder import image_folder, split_folders
from sparsemeta.data.mini_imagenet import mini_imagenet
from sparsemeta.data.omniglot import omniglot
from sparsemeta.data.sampler import TaskSampler
from sparsemeta.data.tasks import Task, Tasks

__all__ = [
    "ImageClasses",
    "Splits",
    "Task",
    "TaskSampler",
    "Tasks",
    "cifar_fs",
    "glyphs",
    "image_folder",
    "mini_imagenet",
    "omniglot",
    "split_folders",
]
