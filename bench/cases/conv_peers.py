"""Other ways to run a masked convolution, each only where it is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Candidate
from .conv_candidates import Problem, Results, dense


def compiled(problem: Problem) -> list[Candidate]:
    """Dense PyTorch through `torch.compile`, channels last: one more dense layout."""
    torch.compiler.reset()  # otherwise, after some shapes, it would go on without compiling
    return [dense(problem, "channels_last", "compiled", torch.compile(problem.conv, dynamic=False))]


def torch_sparse(problem: Problem) -> list[Candidate]:
    """A CSR weight times the unfolded input."""
    shape, pattern = problem.shape, problem.pattern
    columns = pattern.numel // shape.out_channels
    order = pattern.index.argsort()  # CSR is row-major
    row, column = pattern.index[order] // columns, pattern.index[order] % columns
    starts = F.pad(row.bincount(minlength=shape.out_channels).cumsum(0), (1, 0))

    def conv(x: Tensor, values: Tensor) -> Tensor:
        weight = torch.sparse_csr_tensor(starts, column, values, (shape.out_channels, columns), check_invariants=False)
        patches = F.unfold(x, shape.kernel, padding=shape.padding, stride=shape.stride)
        y = weight @ patches.transpose(0, 1).reshape(columns, -1)
        return y.view(-1, len(x), *problem.grad.shape[2:]).transpose(0, 1).contiguous()

    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
    return [_in_row_major(problem, "torch.sparse", conv)]


def sparseprop(problem: Problem) -> list[Candidate]:
    """SparseProp's two kernels: vectorised over the images of a batch, and over the width of the output."""
    from sparseprop.modules import SparseConv2d
    from sparseprop.modules.functions import SparseConvFunction

    shape = problem.shape
    index = SparseConv2d(problem.weight).W_idx

    def conv(over_width: bool) -> Callable[[Tensor, Tensor], Tensor]:
        rest = None, shape.out_channels, shape.kernel, shape.padding, shape.stride, over_width, over_width
        return lambda x, values: SparseConvFunction.apply(x, values, index, *rest)

    names = {"sparseprop images": False, "sparseprop width": True}
    return [_in_row_major(problem, name, conv(over_width)) for name, over_width in names.items()]


PEERS = {"compiled": compiled, "torch.sparse": torch_sparse, "sparseprop": sparseprop}


def check_installed(peers: Sequence[str]) -> None:
    """Raise `ValueError` for a peer that is not installed."""
    if "sparseprop" in peers and not find_spec("sparseprop"):
        raise ValueError("expected the package sparseprop for that peer, got none; install it (it needs g++ and AVX2)")


def _in_row_major(problem: Problem, name: str, conv: Callable[[Tensor, Tensor], Tensor]) -> Candidate:
    """A peer whose values are in row-major order, whatever the blocks are."""
    order = problem.pattern.index.argsort()

    def error(results: Results) -> float:
        if len(results) > 1:
            results = *results[:-1], torch.empty_like(results[-1]).index_copy(0, order, results[-1])
        return problem.error(results)

    values = problem.pattern.compress(problem.weight)[order]
    return Candidate(name, "peer", problem.runner(conv, problem.x, values, problem.grad), error)
