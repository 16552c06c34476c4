"""Sparse layers, and the exchange of a model's layers for them."""

from .layers import SparseConv2d, SparseLinear
from .sparsify import densify, sparsify, ticket_of

__all__ = ["SparseConv2d", "SparseLinear", "densify", "sparsify", "ticket_of"]
