"""The few-shot field's standard backbones, and the families that tickets stretch over, as plain PyTorch modules."""

from sparsemeta.models.conv4 import Conv4
from sparsemeta.models.conv_n import ConvN
from sparsemeta.models.film import FiLM, FiLMConv4
from sparsemeta.models.resnet12 import ResNet12
from sparsemeta.models.resnet_cifar import ResNetCifar
from sparsemeta.models.resnet_imagenet import ResNetImageNet
from sparsemeta.models.vgg import VGG

__all__ = ["VGG", "Conv4", "ConvN", "FiLM", "FiLMConv4", "ResNet12", "ResNetCifar", "ResNetImageNet"]
