"""What the cases of every kind have in common to choose from, checked before anything is made."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sparsemeta import backends


def check_names(what: str, names: Sequence[str], known: Collection[str]) -> None:
    """Raise `ValueError` unless all are known."""
    if wrong := [name for name in names if name not in known]:
        raise ValueError(f"expected each {what} to be one of {', '.join(known)}; got {', '.join(wrong)}")


def check_choices(sparsities: Sequence[float], threads: Sequence[int], names: Sequence[str]) -> None:
    """Raise `ValueError` for a sparsity or a number of threads out of range, or a backend that is not here."""
    if wrong := [s for s in sparsities if not 0 <= s < 1]:
        raise ValueError(f"expected sparsities from 0 to below 1, got {wrong}; 0.8 prunes 80 %")
    if wrong := [n for n in threads if n < 1]:
        raise ValueError(f"expected at least one thread, got {wrong}")
    for name in names:
        backends.check_name(name)
        if reasons := backends.available().get(name):
            raise ValueError(f"expected a backend that can run here, got {name}: {'; '.join(reasons)}")
