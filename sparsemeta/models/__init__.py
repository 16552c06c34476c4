"""The field's two standard few-shot backbones, as plain PyTorch modules."""

from sparsemeta.models.conv4 import Conv4
from sparsemeta.models.resnet12 import ResNet12

__all__ = ["Conv4", "ResNet12"]
