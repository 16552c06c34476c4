"""The plan of adaptation-aware pruning: how much its rounds prune, by what, and how long they train."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .anp_round import Operation
from .search import Search


@dataclass(frozen=True)
class Plan:
    """What the rounds do. See `anp`."""

    pretrain: int
    retrain: int
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
        if others["pretrain"] < 0 or others["retrain"] < 1 or not 0 < others["fraction"] < 1:
            raise ValueError(f"expected pretrain >= 0, retrain >= 1 and 0 < fraction < 1, got {others}")
        parts = fractions(search.sparsity, others.pop("fraction"))
        return cls(**others, fractions=parts, operation=Operation(**own))


def fractions(sparsity: float, fraction: float) -> tuple[float, ...]:
    """What each round prunes of a layer's weights: `fraction` again and again, and in the last round what is left."""
    whole = int(sparsity / fraction + 1e-9)
    left = round(sparsity - whole * fraction, 9)
    return (fraction,) * whole + ((left,) if left > 0 else ())
