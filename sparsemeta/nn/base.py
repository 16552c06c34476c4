"""What the sparse layers have in common."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .. import backends
from ..pattern import Pattern
from ..ticket_layers import current_weight, weight_parameter
from .state import PatternState


class SparseLayer(PatternState):
    """A layer that has only the kept entries of its weight, so that a pruned one cannot come back.

    Attributes:
        values: parameter `[nnz]`, in the order of `pattern.index`.
        bias: parameter `[O]`, or `None`.
        pattern: the kept positions.
        backend: who computes; may be changed at any time.
    """

    dense_type: ClassVar[type[nn.Module]]
    arguments: ClassVar[tuple[str, ...]]  # of the dense type's constructor, and attributes of both layers

    def __init__(self, dense: nn.Module, pattern: Pattern, backend: str | None):
        check_backend(backend)
        super().__init__()
        self.pattern, self.backend, self.training = pattern, backend, dense.training
        for name in self.arguments:
            setattr(self, name, getattr(dense, name))
        trained = weight_parameter(dense)
        self.values = _parameter(pattern.compress(current_weight(dense)), trained is None or trained.requires_grad)
        self.register_parameter("bias", _copied(dense.bias))

    @classmethod
    def from_dense(cls, dense: nn.Module, pattern: Pattern, backend: str | None = "auto") -> SparseLayer:
        """Sparse layer with copies of the kept weights and the bias of `dense`; its mode and `requires_grad` too.

        Raises:
            TypeError: `dense` is not of this layer's kind.
            ValueError: the pattern has another shape than the weight, or there is no such backend.
            RuntimeError: the named backend cannot run here; the reasons are listed.
        """
        if not isinstance(dense, cls.dense_type):
            expected, got = cls.dense_type.__name__, type(dense).__name__
            raise TypeError(f"expected a {expected}, got {got}; use the sparse layer of its kind")
        check_pattern(pattern, dense.weight.dim())
        layer = cls.__new__(cls)
        SparseLayer.__init__(layer, dense, pattern, backend)
        return layer

    def to_dense(self) -> nn.Module:
        """The ordinary layer with zeros where pruned: the inverse of `from_dense`."""
        dense = self._new_dense("meta")  # has no data, so nothing is drawn from the random generator
        dense.weight = _parameter(self.weight, self.values.requires_grad)
        dense.bias = _copied(self.bias)
        return dense.train(self.training)

    @property
    def weight(self) -> Tensor:
        """Dense weight with zeros where pruned, differentiable: `pattern.expand(values)`, made anew at every read.

        For code that asks for its shape, type or device, or computes with it. To change weights, change `values`.
        """
        return self.pattern.expand(self.values)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new values, as the dense layer draws its weight and bias."""
        dense = self._new_dense(self.values.device)
        self.values.copy_(self.pattern.compress(dense.weight))
        if self.bias is not None:
            self.bias.copy_(dense.bias)

    def extra_repr(self) -> str:
        """Arguments of the dense layer, then those of the pattern."""
        shown = {name: getattr(self, name) for name in self.arguments} | {"bias": self.bias is not None}
        shown |= {"block": self.pattern.block, "nnz": self.pattern.nnz, "backend": self.backend}
        return ", ".join(f"{name}={value}" for name, value in shown.items()) + f", sparsity={self.pattern.sparsity:.3f}"

    def _new_dense(self, device: torch.device | str) -> nn.Module:
        same = {name: getattr(self, name) for name in self.arguments}
        return self.dense_type(**same, bias=self.bias is not None, device=device, dtype=self.values.dtype)


def check_backend(name: str | None) -> None:
    """Raise unless `name` is a backend that this installation can run, `"auto"` or `None`."""
    backends.check_name(name)
    if reasons := backends.available().get(name):
        raise RuntimeError(f'backend {name!r} cannot run here: {"; ".join(reasons)}; or use backend="auto"')


def check_pattern(pattern: Pattern, rank: int) -> None:
    """Raise `ValueError` unless `pattern` is that of a weight with `rank` axes."""
    if not isinstance(pattern, Pattern) or len(pattern.shape) != rank:
        raise ValueError(
            f"expected a Pattern of the layer's weight, with {rank} axes, got {pattern!r}; use Pattern.from_mask(mask)"
        )


def _copied(bias: nn.Parameter | None) -> nn.Parameter | None:
    return None if bias is None else _parameter(bias, bias.requires_grad)


def _parameter(tensor: Tensor, requires_grad: bool) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad)
