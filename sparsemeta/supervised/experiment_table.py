"""The results of an experiment as a table in Markdown, repetitions together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from .records import Record

FAMILY = (
    "ResNet", "ticket", "sparsity", "seeds", "accuracy, %", "search, TFLOP", "search, processor s", "training, TFLOP",
    "processor s",
)  # fmt: skip  a line of the table
BLOCKS = (
    "blocks", "asked", "sparsity", "kept magnitude", "seeds", "accuracy, %", "to dense, points", "s a meta-step",
    "ratio", "FLOP ratio", "efficiency",
)  # fmt: skip  a line of the table


def as_markdown(records: Iterable[Record]) -> str:
    """One table for each part that has records."""
    records = list(records)
    parts = (("family", FAMILY, _family), ("blocks", BLOCKS, _blocks))
    return "\n".join(_table(header, rows([r for r in records if r["part"] == part])) for part, header, rows in parts
                     if any(r["part"] == part for r in records))  # fmt: skip  a table each


def _family(records: Sequence[Record]) -> list[tuple[str, ...]]:
    groups = _grouped(records, lambda r: (r["depth"], r["kind"]))
    return [
        (
            f"{depth}", kind, f"{100 * _mean(group, 'sparsity'):.2f} %", f"{len(group)}", _accuracy(group),
            f"{_mean(group, 'search_flops') / 1e12:.3g}", f"{_mean(group, 'search_processor_seconds'):.0f}",
            f"{_mean(group, 'training_flops') / 1e12:.3g}", f"{_mean(group, 'training_processor_seconds'):.0f}",
        )
        for (depth, kind), group in groups.items()
    ]  # fmt: skip  a line of the table


def _blocks(records: Sequence[Record]) -> list[tuple[str, ...]]:
    groups = _grouped(records, lambda r: r["kind"])
    dense = groups.pop("dense", [])
    lines = [("dense", "", "", "", f"{len(dense)}", _accuracy(dense), "", "", "", "", "")] if dense else []
    for group in groups.values():
        first = group[0]
        lost = _mean(group, "accuracy") - _mean(dense, "accuracy")
        seconds = fmean(r["seconds_per_meta_step"]["sparse"]["median"] for r in group)
        lines.append((
            first["shape"] + " permuted" * first["permuted"], f"{100 * first['asked']:g} %",
            f"{100 * _mean(group, 'sparsity'):.2f} %", f"{100 * _mean(group, 'magnitude'):.1f} %", f"{len(group)}",
            _accuracy(group), f"{lost:+.2f}", f"{seconds:.3g}", f"{_mean(group, 'ratio'):.2f}",
            f"{_mean(group, 'flop_ratio'):.2f}", f"{_mean(group, 'efficiency'):.2f}",
        ))  # fmt: skip  a line of the table
    return lines


def _accuracy(group: Sequence[Record]) -> str:
    """Mean and half its 95 % interval over the tasks or images of all repetitions, and the range of these."""
    values = [record["accuracy"] for record in group]
    half = math.hypot(*map(_half, group)) / len(group)
    spread = f" ({min(values):.2f} to {max(values):.2f})" * (len(values) > 1)
    return f"{fmean(values):.2f} ± {half:.2f}{spread}"


def _half(record: Record) -> float:
    """Half of the 95 % interval of one accuracy: over its tasks, or of a share of its images."""
    p = record["accuracy"] / 100
    return record["interval"] if "interval" in record else 196 * math.sqrt(p * (1 - p) / record["test_images"])


def _mean(group: Sequence[Record], key: str) -> float:
    return fmean(record[key] for record in group)


def _grouped(records: Sequence[Record], key) -> dict:
    groups: dict = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
