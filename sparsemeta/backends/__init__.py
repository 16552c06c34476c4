"""Who can run an operation. A backend answers with the list of reasons why it cannot; an empty list is a yes."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from . import cpu, cuda, dense

_BACKENDS = {"dense": dense, "cpu": cpu, "cuda": cuda}
_PREFERENCE = ("cpu", "dense")  # "cuda" when named: it has not yet run on a GPU


def available() -> dict[str, list[str]]:
    """Every backend by name, with the reasons why this installation cannot run it (none: it can)."""
    return {name: backend.missing() for name, backend in _BACKENDS.items()}


def select(name: str | None, *tensors: Tensor) -> str:
    """Name of the backend to use: the named one, or with `None` or `"auto"` the fastest that can run these operands.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: the named backend cannot run here, or not on these operands; the reasons are listed.
    """
    check_name(name)
    if name in (None, "auto"):
        return next(n for n in _PREFERENCE if not _BACKENDS[n].reasons(*tensors))
    if reasons := _BACKENDS[name].reasons(*tensors):
        raise RuntimeError(f'backend {name!r} cannot run this: {"; ".join(reasons)}; or use backend="auto"')
    return name


def check_name(name: str | None) -> None:
    """Raise `ValueError` unless `name` is a backend, `"auto"` or `None`."""
    if name not in (None, "auto", *_BACKENDS):
        names = ", ".join(repr(n) for n in ("auto", *_BACKENDS))
        raise ValueError(f"expected backend to be one of {names}, got {name!r}")


def kernels(name: str) -> ModuleType:
    """Module of the backend's kernels."""
    return _BACKENDS[name]
