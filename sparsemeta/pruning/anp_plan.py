"""The plan of adaptation-aware pruning: how much its rounds prune, by what, and how long they train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..meta.config import is_count
from .anp_round import Operation
from .search import Search


@dataclass(frozen=True)
class Plan:
    """What the rounds do. See `anp`. `retrain` and `fractions` have a value for each round."""

    pretrain: int
    retrain: tuple[int, ...]
    fractions: tuple[float, ...]
    operation: Operation

    @classmethod
    def of(cls, search: Search) -> Plan:
        """Raises `ValueError` for an unknown option, or one out of range."""
        names = {field.name for field in fields(Operation)}
        own = {key: value for key, value in search.options.items() if key in names}
        others = {"pretrain": search.run.steps, "retrain": search.run.steps, "fraction": 0.1}
        if unknown := search.options.keys() - names - others.keys():
            raise ValueError(f"expected options among {sorted(names | others.keys())}, got {sorted(unknown)}")
        others |= {key: value for key, value in search.options.items() if key in others}
        if not is_count(others["pretrain"], 0) or not 0 < others["fraction"] < 1:
            raise ValueError(f"expected pretrain, a whole number >= 0, and 0 < fraction < 1, got {others}")
        parts = fractions(search.sparsity, others["fraction"])
        return cls(others["pretrain"], lengths(others["retrain"], len(parts)), parts, Operation(**own))

    @property
    def steps(self) -> int:
        """Meta-steps of all of it."""
        return self.pretrain + sum(self.retrain)


def lengths(retrain: int | Sequence[int], rounds: int) -> tuple[int, ...]:
    """Meta-steps of each round. Raises `ValueError` where `retrain` is neither one number nor one for each round."""
    each = (retrain,) * rounds if is_count(retrain, 1) else retrain
    if not isinstance(each, Sequence) or len(each) != rounds or not all(is_count(steps, 1) for steps in each):
        raise ValueError(
            f"expected retrain >= 1, a whole number or a list with one for each of the {rounds} rounds, got {retrain!r}"
        )
    return tuple(each)


def fractions(sparsity: float, fraction: float) -> tuple[float, ...]:
    """What each round prunes of a layer's weights: `fraction` again and again, and in the last round what is left."""
    whole = int(sparsity / fraction + 1e-9)
    left = round(sparsity - whole * fraction, 9)
    return (fraction,) * whole + ((left,) if left > 0 else ())
