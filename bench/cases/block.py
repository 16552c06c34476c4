"""Convolution, batch norm on batch statistics, ReLU and 2x2 max-pool as one: the block of Conv-4, dense and sparse."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import sparsemeta as sm

from ..case import Candidate
from .block_results import Results, compact, error, flat
from .choices import check_choices, check_names, drawn_ticket, tuned
from .conv_candidates import LAYOUTS
from .conv_shapes import ConvShape
from .structures import block_of

PASSES = ("forward", "forward+backward", "second order")
PEERS = ("compiled",)
# In the norm: ReLU and max-pooling decide a few elements another way in float32 than in float64, and in a small image
# one element is a percent of the second derivative. One without its second-order terms is off by more than 1.
TOLERANCE = 5e-2


@dataclass(frozen=True)
class BlockCase:
    """One block. Second order: the gradient of `<dL/dw, w>`, as one step of a meta-gradient needs it."""

    shape: ConvShape
    structure: str
    sparsity: float
    passes: str
    threads: int
    backends: tuple[str, ...]
    peers: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return {
            "block": str(self.shape),
            "pattern": self.structure,
            "pass": self.passes,
            "threads": self.threads,
            "sparsity": self.sparsity,
        }

    @property
    def ideal(self) -> float:
        """Weights over kept weights. Fusing the rest of the block can gain more."""
        pattern = self._ticket()["0.weight"]
        return pattern.numel / pattern.nnz

    def candidates(self) -> list[Candidate]:
        """PyTorch in both layouts, and compiled if asked for; the sparse block with each backend."""
        pattern = self._ticket()["0.weight"]
        dense = sm.densify(sm.sparsify(self._model(), self._ticket(), "dense"))
        exact = compact(self._runner(dense.double(), *(t.double() for t in self._operands()))(), pattern)
        found = [self._dense(layout, pattern, exact) for layout in LAYOUTS]
        if "compiled" in self.peers and self.passes != "second order":  # torch.compile has no double backward
            torch.compiler.reset()  # otherwise, after some shapes, it would go on without compiling
            found.append(self._dense("channels_last", pattern, exact, "compiled"))
        return found + [self._sparse(backend, exact) for backend in self.backends]

    def _dense(self, layout: str, pattern: sm.Pattern, exact: Results, name: str | None = None) -> Candidate:
        model = sm.densify(sm.sparsify(self._model(), self._ticket(), "dense")).to(memory_format=LAYOUTS[layout])
        operands = (t.contiguous(memory_format=LAYOUTS[layout]) for t in self._operands())
        run = self._runner(torch.compile(model, dynamic=False) if name else model, *operands)
        return Candidate(name or layout, "dense", run, lambda got: error(compact(got, pattern), exact))

    def _sparse(self, backend: str, exact: Results) -> Candidate:
        def make(name: str) -> Callable[[], Results]:
            return self._runner(sm.sparsify(self._model(), self._ticket(), name), *self._operands())

        return Candidate(backend, "sparse", tuned(make, backend), lambda got: error(flat(got), exact))

    def _ticket(self) -> sm.Ticket:
        return drawn_ticket(self._model(), self.sparsity, self.structure)

    def _model(self) -> nn.Sequential:
        shape = self.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
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


def cases(
    shapes: Sequence[ConvShape],
    structures: Sequence[str] = ("unstructured",),
    sparsities: Sequence[float] = (0.8, 0.9, 0.95),
    passes: Sequence[str] = PASSES[1:],
    threads: Sequence[int] = (1,),
    backends: Sequence[str] = ("cpu",),
    peers: Sequence[str] = (),
) -> list[BlockCase]:
    """Every combination but blocks that do not divide the weight; raises `ValueError` as those of a convolution do."""
    check_choices(sparsities, threads, backends)
    check_names("pass", passes, PASSES)
    check_names("peer", peers, PEERS)
    found = [
        BlockCase(shape, structure, sparsity, which, count, tuple(backends), tuple(peers))
        for count, which, structure, shape, sparsity in itertools.product(
            threads, passes, structures, shapes, sparsities
        )
        if block_of(structure, shape.weight)
    ]
    if not found:
        weights = [shape.weight for shape in shapes]
        raise ValueError(f"expected a block that divides a weight of {weights}, got {list(structures)}")
    return found
