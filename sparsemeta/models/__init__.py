"""The field's two standard few-shot backbones, as plain PyTorch modules, and Conv-4 with context parameters."""

from sparsemeta.models.conv4 import Conv4
from sparsemeta.models.film import FiLM, FiLMConv4
from sparsemeta.models.resnet12 import ResNet12

__all__ = ["Conv4", "FiLM", "FiLMConv4", "ResNet12"]
