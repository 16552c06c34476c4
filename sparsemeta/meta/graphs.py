"""CUDA graphs: work on tasks of the same shapes is captured once and then replayed, all its launches in one.

The kernels of a few-shot network are shorter than their launches. A captured function reads buffers of its own, into
which each call copies its inputs, and the parameters where they lie; its results are overwritten by the next call.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .maml import MAML

GRAPHS = ("auto", "off", "on")
KEPT = 4  # captured functions of a model: each keeps the memory of its intermediate results
WARM_UPS = 3  # build tables, compile kernels and choose algorithms, none of which can be captured

Results = Sequence[Tensor | None]
_kept: WeakKeyDictionary[nn.Module, OrderedDict[Hashable, _Entry]] = WeakKeyDictionary()


class CudaCapture:
    """What `function` does on `device`, captured on a stream of its own; a replay fills `results` again."""

    def __init__(self, function: Callable[[], Results], device: torch.device):
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):  # with another as the current one, nothing that it does would be captured
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    function()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(self.graph):
                self.results = function()

    @staticmethod
    def reasons(device: torch.device) -> list[str]:
        """Why nothing can be captured on `device`."""
        return [] if device.type == "cuda" else [f"the model is on {device}, not on a GPU"]

    def replay(self) -> None:
        """Do it again."""
        self.graph.replay()


class _Entry:
    """What is known of one key: seen once, captured, or not to be captured."""

    def __init__(self) -> None:
        self.buffers: list[Tensor] = []
        self.capture: CudaCapture | None = None
        self.failed: str | None = None

    def take(self, function: Callable[..., Results], inputs: Sequence[Tensor], buffers: Iterable[Tensor]) -> None:
        self.buffers = list(buffers)
        self._fill(inputs)
        try:
            self.capture = CudaCapture(lambda: function(*self.buffers), self.buffers[0].device)
        except Exception as error:  # whatever the model does that a graph cannot hold
            self.failed = f"it could not be captured ({type(error).__name__}: {str(error).partition(chr(10))[0]})"

    def replayed(self, inputs: Sequence[Tensor]) -> Results:
        self._fill(inputs)
        self.capture.replay()
        return self.capture.results

    def _fill(self, inputs: Sequence[Tensor]) -> None:
        for buffer, given in zip(self.buffers, inputs, strict=True):
            buffer.copy_(given, non_blocking=True)


def run(
    learner: MAML, mode: str, facts: Hashable, function: Callable[..., Results], inputs: Sequence[Tensor],
    layout: torch.memory_format = torch.contiguous_format, reasons: Sequence[str] = (),
) -> Results:
    """`function(*inputs)`, replayed where it has been captured.

    Args:
        learner: whose parameters it uses.
        mode: `"auto"` captures what comes a second time, where that is possible; `"on"` at once, or raises; `"off"`.
        facts: what the function depends on besides inputs, learner and surroundings.
        function: without side effects but on gradients; the results of a replay hold until the next.
        inputs: tensors, anywhere; images, `[T, N, C, H, W]` in floating point, are converted as for the learner.
        layout: of the images in the buffers.
        reasons: why it cannot be captured.

    Raises:
        ValueError: `"on"`, and it cannot be captured; the reasons are listed.
    """
    like = next(learner.module.parameters())
    reasons = [*reasons, *CudaCapture.reasons(like.device), *objections(learner)] if mode != "off" else ["off"]
    if not reasons:
        entries = _kept.setdefault(learner.module, OrderedDict())
        entry, new = _entry(entries, (facts, _shapes(inputs), state(learner)))
        if entry.capture is None and entry.failed is None and (mode == "on" or not new):
            entry.take(function, inputs, (_buffer(x, like, layout) for x in inputs))
            if entry.failed and mode == "auto":
                warnings.warn(f"{entry.failed}; it runs without a CUDA graph", stacklevel=2)
        if entry.capture is not None:
            return entry.replayed(inputs)
        reasons = [entry.failed] if entry.failed else []
    if mode == "on":
        raise ValueError(f'expected what a CUDA graph can hold for graph="on"; {"; ".join(reasons)}. Use graph="auto"')
    return function(*inputs)


def objections(learner: MAML) -> list[str]:
    """Why what `learner` does is not the same at every step."""
    found = []
    if type(learner).advance is not MAML.advance:
        found.append(f"the schedule of a {type(learner).__name__} changes what a step does")
    if learner.second_order == "stepwise" and not learner.first_order:
        found.append('second_order="stepwise" restores random numbers in backward')
    return found


def state(learner: MAML) -> Hashable:
    """What a captured function has taken from `learner` and its surroundings; with another it is captured anew."""
    tensors = [(t.data_ptr(), t.requires_grad) for t in (*learner.parameters(), *learner.buffers())]
    modes = [module.training for module in learner.modules()]
    rates = [rate.data_ptr() if isinstance(rate, Tensor) else rate for rate in _rates(learner.lr)]
    options = type(learner), learner.first_order, learner.bn_mode, learner.allow_unused
    autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    return tuple(tensors), tuple(modes), tuple(rates), options, autocast


def _rates(lr: object) -> list:
    return list(lr.values()) if hasattr(lr, "values") and not isinstance(lr, Tensor) else [lr]


def _shapes(inputs: Sequence[Tensor]) -> Hashable:
    return tuple((t.shape, t.dtype) for t in inputs)


def _entry(entries: OrderedDict[Hashable, _Entry], key: Hashable) -> tuple[_Entry, bool]:
    """That of `key`, as the youngest, and whether it is new; the oldest go."""
    new = key not in entries
    entries[key] = entries.pop(key, None) or _Entry()
    while len(entries) > KEPT:
        entries.popitem(last=False)
    return entries[key], new


def _buffer(x: Tensor, like: Tensor, layout: torch.memory_format) -> Tensor:
    dtype = like.dtype if x.is_floating_point() else x.dtype
    if layout is torch.channels_last and x.dim() == 5:
        return torch.empty(x.movedim(-3, -1).shape, dtype=dtype, device=like.device).movedim(-1, -3)
    return torch.empty(x.shape, dtype=dtype, device=like.device)
