"""Lottery tickets for few-shot learning that pay in seconds: compiled masked convolutions for PyTorch."""

from . import backends, data, meta, models, pruning
from .nn import SparseConv2d, SparseLinear, densify, sparsify, ticket_of
from .ops import inner_update, masked_conv2d, masked_linear, norm_act_pool
from .pattern import Pattern
from .ticket import Ticket, TicketError

__version__ = "0.1.0"
__all__ = [
    "Pattern",
    "SparseConv2d",
    "SparseLinear",
    "Ticket",
    "TicketError",
    "backends",
    "data",
    "densify",
    "inner_update",
    "masked_conv2d",
    "masked_linear",
    "meta",
    "models",
    "norm_act_pool",
    "pruning",
    "sparsify",
    "ticket_of",
]
