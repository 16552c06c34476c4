"""Lottery tickets for few-shot learning that pay in seconds: compiled masked convolutions for PyTorch."""

from . import backends
from .ops import masked_conv2d, masked_linear
from .pattern import Pattern

__version__ = "0.1.0"
__all__ = ["Pattern", "backends", "masked_conv2d", "masked_linear"]
