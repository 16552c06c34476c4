"""Convolutions, batch norm on batch statistics, activation and 2x2 max-pool: the block of Conv-4, and of ResNet-12."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import sparsemeta as sm
from sparsemeta.models.resnet12 import residual_block

from ..case import Candidate
from .block_results import Results, compact, error, flat
from .choices import drawn_ticket, tuned
from .conv_candidates import LAYOUTS
from .conv_shapes import ConvShape
from .layer_case import LayerCase

PASSES = ("forward", "forward+backward", "second order")
PEERS = ("compiled",)
# In the norm: ReLU and max-pooling decide a few elements another way in float32 than in float64, and in a small image
# one element is a percent of the second derivative. One without its second-order terms is off by more than 1.
TOLERANCE = 5e-2
# The blocks of ResNet-12 behind the first, for 25 images of 84x84.
RESIDUAL = (ConvShape(25, 64, 160, 42), ConvShape(25, 160, 320, 21), ConvShape(25, 320, 640, 10))


@dataclass(frozen=True)
class BlockCase(LayerCase):
    """One block. Second order: the gradient of `<dL/dw, w>`, as one step of a meta-gradient needs it.

    The block is that of Conv-4, or `residual` that of ResNet-12 with the channels and the size of the shape.
    """

    residual: bool = False

    kind = "block"
    known_passes, usual_passes = PASSES, PASSES[1:]
    known_peers = PEERS
    tolerance = TOLERANCE

    def __post_init__(self) -> None:
        if self.residual and (self.shape.kernel, self.shape.stride, self.shape.padding) != (3, 1, 1):
            raise ValueError(f"expected a 3x3 convolution of stride 1 for a residual block, got {self.shape}")

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return super().labels | ({"block": f"{self.shape}, residual"} if self.residual else {})

    @property
    def ideal(self) -> float:
        """Weights over kept weights. Fusing the rest of the block can gain more."""
        patterns = self._ticket().values()
        return sum(p.numel for p in patterns) / sum(p.nnz for p in patterns)

    def candidates(self) -> list[Candidate]:
        """PyTorch in both layouts, and compiled if asked for; the sparse block with each backend."""
        dense = sm.densify(sm.sparsify(self._model(), self._ticket(), "dense"))
        run = self._runner(dense.double(), *(t.double() for t in self._operands()))
        exact = compact(run(), dense, self._ticket())
        found = [self._dense(layout, exact) for layout in LAYOUTS]
        if "compiled" in self.peers and self.passes != "second order":  # torch.compile has no double backward
            torch.compiler.reset()  # otherwise, after some shapes, it would go on without compiling
            found.append(self._dense("channels_last", exact, "compiled"))
        return found + [self._sparse(backend, exact) for backend in self.backends]

    def _dense(self, layout: str, exact: Results, name: str | None = None) -> Candidate:
        ticket = self._ticket()
        model = sm.densify(sm.sparsify(self._model(), ticket, "dense")).to(memory_format=LAYOUTS[layout])
        operands = (t.contiguous(memory_format=LAYOUTS[layout]) for t in self._operands())
        run = self._runner(torch.compile(model, dynamic=False) if name else model, *operands)
        return Candidate(name or layout, "dense", run, lambda got: error(compact(got, model, ticket), exact))

    def _sparse(self, backend: str, exact: Results) -> Candidate:
        parameters = len(list(self._model().parameters()))

        def make(name: str) -> Callable[[], Results]:
            return self._runner(sm.sparsify(self._model(), self._ticket(), name), *self._operands())

        return Candidate(backend, "sparse", tuned(make, backend), lambda got: error(flat(got, parameters), exact))

    def _ticket(self) -> sm.Ticket:
        return drawn_ticket(self._model(), self.sparsity, self.structure)

    def _model(self) -> nn.Module:
        shape = self.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.residual:
                return residual_block(shape.in_channels, shape.out_channels, track_running_stats=False)
            conv = nn.Conv2d(shape.in_channels, shape.out_channels, shape.kernel, shape.stride, shape.padding)
        norm = nn.BatchNorm2d(shape.out_channels, track_running_stats=False)
        return nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(2))

    def _operands(self) -> tuple[Tensor, Tensor]:
        """Images, and the gradient of the output: the same in every run."""
        shape, generator = self.shape, torch.Generator().manual_seed(0)
        x = torch.randn(shape.batch, shape.in_channels, shape.size, shape.size, generator=generator)
        size = self._model().to("meta")(x.to("meta")).shape
        return x, torch.randn(size, generator=generator)

    def _runner(self, model: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], Results]:
        """One pass: output; gradients of the images (if wanted) and of every parameter."""
        x = x.detach().requires_grad_(self.shape.input_grad)
        weights = list(model.parameters())
        wanted = [t for t in (x, *weights) if t.requires_grad]
        directions = [w.detach().clone() for w in weights]

        def forward() -> Results:
            with torch.no_grad():
                return (model(x),)

        def forward_backward() -> Results:
            y = model(x)
            return (y.detach(), *torch.autograd.grad(y, wanted, grad))

        def second_order() -> Results:
            y = model(x)
            first = torch.autograd.grad(y, weights, grad, create_graph=True)
            return (y.detach(), *torch.autograd.grad(first, wanted, directions, materialize_grads=True))

        return dict(zip(PASSES, (forward, forward_backward, second_order), strict=True))[self.passes]


cases = BlockCase.every
