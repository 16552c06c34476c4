"""Results as data: the JSON of a run, and which labels tell its rows apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparsemeta.files import write_atomically

from .measure import Result

SCHEMA = 1  # of the JSON; bench/README.md describes it


def as_json(results: Sequence[Result], machine: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that a run has found, with times in seconds."""
    return {"schema": SCHEMA, "machine": machine, "settings": settings, "results": [_row(r) for r in results]}


def _row(result: Result) -> dict[str, Any]:
    samples = [
        {**asdict(sample), "ratio": result.ratio(sample), "efficiency": result.efficiency(sample)}
        for sample in result.samples
    ]
    return {
        "labels": result.labels,
        "ideal": result.ideal,
        "best_dense": result.dense.name,
        "samples": samples,
        "wrong": result.wrong,
        "load": result.load,
    }


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write it whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def varying(results: Sequence[Result]) -> list[str]:
    """Labels that do not have the same value in all results, and the sparsity."""
    return [name for name in results[0].labels if name == "sparsity" or len({r.labels[name] for r in results}) > 1]


def shared(results: Sequence[Result]) -> str:
    """The other labels, in one line."""
    told = varying(results)
    return ", ".join(f"{name} {value}" for name, value in results[0].labels.items() if name not in told)
