"""Sparse layers, the exchange of a model's layers for them, and a residual block that goes with it."""

from .layers import SparseConv2d, SparseLinear
from .residual import Residual
from .sparsify import densify, sparsify, ticket_of

__all__ = ["Residual", "SparseConv2d", "SparseLinear", "densify", "sparsify", "ticket_of"]
