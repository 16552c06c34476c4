"""Tables of Markdown. An accuracy is a mean with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Seeds = Mapping[int, Mapping[str, Any]]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracies(names: Sequence[str], seeds: Seeds) -> str:
    """A row for each network: its accuracy for each seed, over all seeds, and the difference to the first."""
    rows = []
    for name in names:
        each = [percent(results[name]) if name in results else "" for results in seeds.values()]
        rows.append((name, *each, mean_accuracy(name, seeds), difference(name, names[0], seeds)))
    return markdown(("network", *(f"seed {seed}" for seed in seeds), "all tasks", f"minus {names[0]}"), rows)


def percent(result: Mapping[str, float]) -> str:
    return f"{result['accuracy']:.2f} ± {result['interval']:.2f}"


def mean_accuracy(name: str, seeds: Seeds) -> str:
    """Mean over the tasks of all seeds; the interval is over tasks, and the spread over seeds beside it."""
    found = [results[name] for results in seeds.values() if name in results]
    if not found:
        return ""
    mean = sum(r["accuracy"] for r in found) / len(found)
    interval = math.sqrt(sum(r["interval"] ** 2 for r in found)) / len(found)
    spread = f" ({min(r['accuracy'] for r in found):.2f} to {max(r['accuracy'] for r in found):.2f})" * (len(found) > 1)
    return f"{mean:.2f} ± {interval:.2f}{spread}"


def difference(name: str, base: str, seeds: Seeds) -> str:
    """Mean difference to `base` over the seeds that have both, and the range where there are several."""
    both = [r[name]["accuracy"] - r[base]["accuracy"] for r in seeds.values() if name in r and base in r]
    if not both or name == base:
        return ""
    spread = f" ({min(both):+.2f} to {max(both):+.2f})" if len(both) > 1 else ""
    return f"{sum(both) / len(both):+.2f}{spread}"


def ratios(values: Sequence[float]) -> str:
    """Mean in percent, and the range where there are several."""
    spread = f" ({min(values):.1%} to {max(values):.1%})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.1%}{spread}"
