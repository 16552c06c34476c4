"""Which axes of a model's tensors carry the same channels, and so can only be permuted together."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..nn.base import SparseLayer

ADD = (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__)
FLATTEN = (torch.flatten, torch.Tensor.flatten)
MEAN = (torch.mean, torch.Tensor.mean)
SAME = (
    F.relu, F.leaky_relu, F.elu, F.gelu, F.silu, F.dropout, F.dropout2d, F.max_pool2d, F.avg_pool2d,
    F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.relu, torch.Tensor.relu, torch.Tensor.contiguous,
)  # fmt: skip  functions that treat every channel alike and leave the channel axis where it is


@dataclass(eq=False)
class Space:
    """Channels that are permuted together.

    Attributes:
        size: how many.
        axes: `{(tensor's name in the state dict, axis): entries of that axis for each channel, side by side}`.
        fixed: whether something depends on their order.
    """

    size: int
    axes: dict[tuple[str, int], int] = field(default_factory=dict)
    fixed: bool = False


def channel_spaces(model: nn.Module, input_size: Sequence[int]) -> list[Space]:
    """The channels of a dense model that can be permuted without a change in what it computes.

    Seen in one forward pass in `eval()`: convolutions and linear layers make channels and take them, sums (residual
    connections) need the same channels on both sides, batch norm, activations and pooling treat each alike. Whatever
    else meets channels fixes them where they are, as do the model's input and output, and grouped convolutions.

    Args:
        input_size: shape of one sample, `(C, H, W)`.

    Raises:
        ValueError: the model has sparse layers.
    """
    if any(isinstance(module, SparseLayer) for module in model.modules()):
        raise ValueError("expected a dense model, got one with sparse layers; use densify(model)")
    model = copy.deepcopy(model).eval()
    example, tracer = next(model.parameters()), _Tracer(model)
    with torch.no_grad(), tracer:
        output = model(torch.zeros(2, *input_size, dtype=example.dtype, device=example.device))
    tracer.fix(output)
    return [space for space in dict.fromkeys(tracer.at.values()) if not space.fixed and space.size > 1]


class _Tracer(TorchFunctionMode):
    """Follows channels, axis 1 of activations, from function to function."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.names: dict[int, list[str]] = {}
        for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
            self.names.setdefault(id(tensor), []).append(name)  # a shared weight has several
        self.at: dict[tuple[str, int], Space] = {}
        self.seen: dict[int, tuple[Tensor, Space, int]] = {}  # holds the tensors, so that no id comes twice

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear):
            self._weighted(out, *args, **(kwargs or {}))
        elif func is F.batch_norm:
            self._normed(out, **inspect.signature(func).bind(*args, **(kwargs or {})).arguments)
        elif func in ADD and all(id(a) in self.seen for a in args[:2]):
            self._summed(out, *args[:2])
        elif out is None or any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):  # not .shape, .dim(), ...
            self._passed(func, out, args, kwargs or {})
        return out

    def fix(self, value: Any) -> None:
        """Whatever channels are in `value` stay where they are."""
        for tensor in tree_leaves(value):
            if id(tensor) in self.seen:
                self.seen[id(tensor)][1].fixed = True

    def _weighted(
        self, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> None:
        if id(weight) not in self.names or groups != 1 or (weight.dim() == 2 and input.dim() != 2):
            return self.fix(input)
        if id(input) in self.seen:
            _, space, repeat = self.seen[id(input)]
            self._attach(weight, 1, space, repeat)
        made = Space(weight.shape[0])
        self.seen[id(out)] = out, made, 1
        for tensor in (weight, bias):
            self._attach(tensor, 0, made, 1)

    def _normed(self, out: Tensor, input: Tensor, **arguments: Any) -> None:
        if id(input) not in self.seen:
            return
        _, space, repeat = self.seen[id(input)]
        self.seen[id(out)] = out, space, repeat
        for name in ("running_mean", "running_var", "weight", "bias"):
            self._attach(arguments.get(name), 0, space, repeat)

    def _summed(self, out: Tensor, a: Tensor, b: Tensor) -> None:
        (_, left, repeat), (_, right, other) = self.seen[id(a)], self.seen[id(b)]
        if a.shape != b.shape or repeat != other:
            return self.fix([a, b])
        self._join(left, right)
        self.seen[id(out)] = out, left, repeat

    def _passed(self, func: Callable, out: Any, args: Any, kwargs: Any) -> None:
        x = args[0] if args else None
        if id(x) not in self.seen or not isinstance(out, Tensor) or not _each_alike(func, x, out, *args[1:], **kwargs):
            return self.fix([args, kwargs])
        _, space, repeat = self.seen[id(x)]
        self.seen[id(out)] = out, space, repeat * (out.shape[1] // x.shape[1])

    def _attach(self, tensor: Tensor | None, axis: int, space: Space, repeat: int) -> None:
        if tensor is None:
            return
        if id(tensor) not in self.names:
            space.fixed = True
        for name in self.names.get(id(tensor), []):
            if (other := self.at.get((name, axis))) is not None:
                self._join(space, other)
            space.axes[name, axis] = repeat
            self.at[name, axis] = space

    def _join(self, into: Space, other: Space) -> None:
        """Both are one from now on."""
        if into is other:
            return
        into.axes |= other.axes
        into.fixed |= other.fixed or into.size != other.size
        self.at |= dict.fromkeys(other.axes, into)
        self.seen = {key: (t, into if s is other else s, r) for key, (t, s, r) in self.seen.items()}


def _each_alike(func: Callable, x: Tensor, out: Tensor, *args: Any, **kwargs: Any) -> bool:
    """Whether `func` does to each channel what it does to any other, and leaves them in axis 1 in their order."""
    if func in MEAN:
        dims = args[0] if args else kwargs.get("dim")
        return dims is not None and all(d % x.dim() > 1 for d in ([dims] if isinstance(dims, int) else dims))
    if func in FLATTEN:
        return out.dim() == 2 and out.shape[0] == x.shape[0]
    return func in SAME and out.shape[:2] == x.shape[:2]
