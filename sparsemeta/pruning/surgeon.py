"""The layer-wise optimal brain surgeon: which weights of one layer go, and how the others make up for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

DAMPING = 1e-6  # of the Hessian's diagonal, so that it can be inverted
SOFTENING = 1e-5  # of the inverse's diagonal, in score and update alike
ORDERS = ("aligned", "published")
UPDATES = ("published", "exact")


@dataclass(frozen=True)
class Surgeon:
    """Second-order pruning of one layer after the published code of ANP (Gao et al., CIKM 2021).

    With W `[units, rows]`, one row of weights and bias for each output unit, and H the Hessian of the layer's squared
    output error, mean x x^T and what it is damped by, shared by all units:
    - the score of a weight is `w[j, q]^2 / ([H^-1]_qq + 1e-5)`;
    - removing it does `W[j] -= w[j, q] / ([H^-1]_qq + 1e-5) * [H^-1]_q`, one removal after another in the order of the
      scores, with w as the removals before have left it and H^-1 as it was; then pruned weights are set to zero.

    H^-1 as it was lets weights that are gone make up for others, more so with every removal. The exact update solves
    for what is left, S of a unit: `(w' - w)^T H (w' - w)` is least where `H_SS w'_S = (H w)_S`. For one removal the two
    are the same, but for the 1e-5.

    Args:
        hessian: H `[groups, rows, rows]`, or of a diagonal H `[groups, rows]`: then nothing makes up for a removal.
        order: `"aligned"` flattens a unit's weights `(C, kh, kw)`, as its patches; `"published"` `(kh, kw, C)`, which
            pairs weights with other rows of H than theirs: as the published code appears to do, for comparison.
        fisher: `[units]`, of each unit's output, see `layer_factors`: multiplies the unit's scores. With it the Hessian
            is that of the loss, H times the diagonal of K-FAC's second factor; what a removal updates stays the same.
        update: `"published"` or `"exact"`.
    """

    hessian: Tensor
    order: str = "aligned"
    fisher: Tensor | None = None
    update: str = "published"

    def __post_init__(self) -> None:
        if self.order not in ORDERS or self.update not in UPDATES:
            raise ValueError(
                f"expected order to be one of {ORDERS} and update one of {UPDATES}, got {self.order!r} and "
                f"{self.update!r}"
            )

    @classmethod
    def of_factors(
        cls, hessian: Tensor, bias: bool, fisher: Tensor | None = None, damping: float = 0.0, order: str = "aligned",
        update: str = "published",
    ) -> Surgeon:
        """Surgeon of what `layer_factors` gives; the row of the bias goes where a layer has none.

        To the Hessian's diagonal come 1e-6, as published, and `damping` times its mean.
        """
        added = DAMPING + damping * diagonals(hessian).mean(1, keepdim=True)
        if not bias:
            hessian = hessian[:, :-1] if hessian.dim() == 2 else hessian[:, :-1, :-1]
        damped = hessian.clone()
        diagonals(damped).add_(added)
        return cls(damped, order, fisher, update)

    @cached_property
    def inverse(self) -> Tensor:
        """H^-1, of H's shape."""
        if self.hessian.dim() == 2:
            return 1 / self.hessian
        return torch.cholesky_inverse(torch.linalg.cholesky(self.hessian))

    def scores(self, weight: Tensor) -> Tensor:
        """Of each weight, float64 of the weight's shape `(O, I / groups, kh, kw)` or `(O, I)`; higher = keep."""
        rows = self._rows(weight)
        scores = rows.square() / self._softened(len(rows))[:, : rows.shape[1]]
        return self._weight(scores if self.fisher is None else scores * self.fisher[:, None], weight.shape)

    def prune(
        self, weight: Tensor, bias: Tensor | None, mask: Tensor, count: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Remove the `count` weights of lowest score among those that `mask` keeps, and update the others.

        Args:
            weight, bias: of the layer; they stay as they are.
            mask: bool, of the weight's shape, `True` where kept.
            count: fewer than `mask` keeps.

        Returns:
            New weight and bias, of the types they had, and the new mask.
        """
        if not 0 <= count < int(mask.sum()):
            raise ValueError(f"expected to remove fewer weights than the {int(mask.sum())} that are kept, got {count}")
        scores, kept = self._rows(self.scores(weight)), self._rows(mask)
        lowest = scores.masked_fill(~kept, torch.inf).flatten().sort(stable=True).indices[:count]
        after = kept.flatten().index_fill(0, lowest, False).view_as(kept)
        rows = self._rows(weight * mask)
        if bias is not None:
            rows = torch.cat([rows, bias.detach().double()[:, None]], 1)
        if self.hessian.dim() == 3:
            exact = self.update == "exact"
            rows = self._solved(rows, after) if exact else self._removed(rows, lowest, kept.shape[1])
        new = self._weight(rows[:, : kept.shape[1]] * after, weight.shape).to(weight)
        return new, None if bias is None else rows[:, -1].to(bias), self._weight(after, mask.shape)

    def _removed(self, rows: Tensor, removals: Tensor, width: int) -> Tensor:
        """`rows` after the removals, positions in `[units, width]`, in their order.

        Units do not touch each other, so that the t-th removals of all units are made together.
        """
        rows, softened = rows.clone(), self._softened(len(rows))
        units, columns = removals // width, removals % width
        groups = units // (len(rows) // len(self.inverse))
        for at in by_turn(units):
            j, q = units[at], columns[at]
            rows[j] -= (rows[j, q] / softened[j, q])[:, None] * self.inverse[groups[at], q]
        return rows

    def _solved(self, rows: Tensor, kept: Tensor) -> Tensor:
        """Of all `rows` with zeros where `kept` `[units, width]` has them, those of least squared output error.

        The row of a bias, beyond that width, is kept.
        """
        solved, of_group = torch.zeros_like(rows), len(rows) // len(self.hessian)
        stays = F.pad(kept, (0, rows.shape[1] - kept.shape[1]), value=True)
        for unit, row in enumerate(rows):
            hessian, left = self.hessian[unit // of_group], stays[unit].nonzero().flatten()
            factor = torch.linalg.cholesky(hessian[left[:, None], left])
            solved[unit, left] = torch.cholesky_solve((hessian[left] @ row)[:, None], factor).flatten()
        return solved

    def _softened(self, units: int) -> Tensor:
        """`[H^-1]_qq + 1e-5` for each unit, `[units, rows]`."""
        return (diagonals(self.inverse) + SOFTENING).repeat_interleave(units // len(self.inverse), 0)

    def _rows(self, weight: Tensor) -> Tensor:
        """`[O, ...] -> [O, entries]` in the order of H's rows; float64 unless boolean."""
        weight = weight.detach() if weight.dtype == torch.bool else weight.detach().double()
        return (weight.movedim(1, -1) if self.order == "published" else weight).flatten(1)

    def _weight(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `_rows`."""
        if self.order == "aligned":
            return rows.reshape(shape)
        return rows.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


def diagonals(matrices: Tensor) -> Tensor:
    """View of those of `[groups, rows, rows]`, `[groups, rows]`; diagonals are their own."""
    return matrices if matrices.dim() == 2 else matrices.diagonal(dim1=1, dim2=2)


def by_turn(units: Tensor) -> Sequence[Tensor]:
    """Positions in `units`, `[n]`: of the first occurrence of each unit, of the second, and so on."""
    ordered, order = units.sort(stable=True)
    turns = torch.arange(len(units), device=units.device) - torch.searchsorted(ordered, ordered)
    return order[turns.sort(stable=True).indices].split(torch.bincount(turns).tolist())
