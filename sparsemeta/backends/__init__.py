"""Who can run an operation. A backend answers with the list of reasons why it cannot; an empty list is a yes."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from . import choice, cpu, cuda, dense, triton
from .tune_route import active, gpu_active, tune, tuning

__all__ = ["available", "check_name", "choice", "cpu", "cuda", "dense", "kernels", "select", "triton", "tune", "tuning"]
_BACKENDS = {"dense": dense, "cpu": cpu, "triton": triton, "cuda": cuda}
_PREFERENCE = ("cpu", "dense")  # "triton" and "cuda" when named, or where they have been measured to be faster
_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # PyTorch 2.6 has none


def available() -> dict[str, list[str]]:
    """Every backend by name, with the reasons why this installation cannot run it (none: it can)."""
    return {name: backend.missing() for name, backend in _BACKENDS.items()}


def select(name: str | None, *tensors: Tensor) -> str:
    """Name of the backend to use: the named one, or with `None` or `"auto"` the fastest that can run these operands.

    That is `"auto"` itself where each pass of each convolution makes its own choice (`tuning`), and `"dense"` for a
    program of `torch.export` or `torch.jit.trace`.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: the named backend cannot run here, or not on these operands; the reasons are listed.
    """
    check_name(name)
    if name != "dense" and (program := _program()):
        if name in (None, "auto"):
            return "dense"
        raise _cannot(name, [f"{program} makes a program that outlives the process with its patterns"])
    if name in (None, "auto"):
        best = next(n for n in _PREFERENCE if not _BACKENDS[n].reasons(*tensors))
        return "auto" if (active() if best == "cpu" else gpu_active(tensors[0])) else best
    if reasons := _BACKENDS[name].reasons(*tensors):
        raise _cannot(name, reasons)
    return name


def _program() -> str:
    """Who records a program to be loaded elsewhere, plain PyTorch therefore; empty: nobody."""
    return "torch.export" if _exporting() else "torch.jit.trace" if torch.jit.is_tracing() else ""


def check_conv(conv) -> None:
    """Raise `RuntimeError` with the reasons if the backend of `conv` cannot run a pattern or groups like these."""
    if conv.backend == "triton" and (reasons := triton.conv_reasons(conv)):
        raise _cannot(conv.backend, reasons)


def check_norm(plain: bool) -> None:
    """Raise `RuntimeError` where Triton shall run a `norm_act_pool` with a residual or with given statistics."""
    if not plain:
        raise _cannot("triton", ["its norm_act_pool takes no residual, mean or var"])


def check_has(name: str, operation: str) -> None:
    """Raise `RuntimeError` if the backend has no kernel of that operation."""
    if name != "auto" and not hasattr(_BACKENDS[name], operation):
        raise _cannot(name, [f"it has no {operation}"])


def _cannot(name: str, reasons: list[str]) -> RuntimeError:
    return RuntimeError(f'backend {name!r} cannot run this: {"; ".join(reasons)}; or use backend="auto"')


def check_name(name: str | None) -> None:
    """Raise `ValueError` unless `name` is a backend, `"auto"` or `None`."""
    if name not in (None, "auto", *_BACKENDS):
        names = ", ".join(repr(n) for n in ("auto", *_BACKENDS))
        raise ValueError(f"expected backend to be one of {names}, got {name!r}")


def kernels(name: str) -> ModuleType:
    """Module of the backend's kernels; `"auto"`: the one that chooses between those of the others."""
    return choice if name == "auto" else _BACKENDS[name]
