"""Every figure of the demo as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sparsemeta.demo.machine import describe
from sparsemeta.demo.settings import Settings
from sparsemeta.demo.timing import DENSE, UNPRUNED
from sparsemeta.meta import Evaluation, StepRecord
from sparsemeta.ticket import Ticket
from sparsemeta.ticket_flops import Flops

VERSION = 1


def speed(seconds: dict[str, dict[str, float]], flops: Flops) -> dict[str, Any]:
    """The ratio of the best dense layout to sparse, beside the ratio of multiply-adds, which is what pruning can give.

    Fusing gives the rest: the ratio to the same engine with every weight kept shows how much.
    """
    best = min(DENSE, key=lambda layout: seconds[layout]["median"])
    ratio = seconds[best]["median"] / seconds["sparse"]["median"]
    return {
        "seconds_per_meta_step": seconds,
        "best_dense": best,
        "ratio": ratio,
        "ratio_of_fusing_alone": seconds[best]["median"] / seconds[UNPRUNED]["median"],
        "flop_ratio": flops.ratio,
        "efficiency": ratio / flops.ratio,
    }


def accuracy(dense: Evaluation, ticket: Evaluation) -> dict[str, Any]:
    """Percent, with the half width of the 95 % interval; both judged on the same tasks."""
    return {"dense": asdict(dense), "ticket": asdict(ticket), "difference": ticket.accuracy - dense.accuracy}


def layers(ticket: Ticket) -> dict[str, Any]:
    """What the ticket keeps, by layer."""
    return {
        name: {"shape": list(p.shape), "kept": p.nnz, "numel": p.numel, "fraction": p.nnz / p.numel}
        for name, p in ticket.items()
    }


def curve(history: Sequence[StepRecord], after: int = 0) -> dict[str, list]:
    """Query loss and accuracy on the training tasks, step by step; ``after`` steps were made before."""
    return {
        "step": [after + record.step for record in history],
        "loss": [record.loss for record in history],
        "accuracy": [record.accuracy for record in history],
        "seconds": [record.seconds for record in history],
    }


def assemble(settings: Settings, ticket: Ticket, **parts: Any) -> dict[str, Any]:
    """The whole object; ``parts`` are what the functions above return."""
    return {
        "format": "sparsemeta.demo",
        "version": VERSION,
        "configuration": configuration(settings),
        "machine": describe(),
        "ticket": {"sparsity": ticket.sparsity, "kept": ticket.nnz, "numel": ticket.numel, "layers": layers(ticket)},
        **parts,
    }


def configuration(settings: Settings) -> dict[str, Any]:
    """The exact configuration, as JSON holds it."""
    training = asdict(settings.config())
    return {**asdict(settings), "glyphs": list(settings.glyphs), "rewind": settings.rewind, "training": training}
