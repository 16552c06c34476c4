"""Results as a plot: speed-up over sparsity, with the ideal and the break-even."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsemeta.files import replacing

from .measure import Result
from .report import shared, varying

Lines = dict[str, list[tuple[float, float]]]
PANELS = ("pass", "order")  # a label that has a panel for each of its values


def plot(results: Sequence[Result], path: Path) -> None:
    """Write the plot to `path` (.png, .svg, .pdf): a panel for each pass, a line for each way in each case."""
    label = next((name for name in PANELS if name in results[0].labels), None)
    panels = {title: lines(results, label, title) for title in dict.fromkeys(r.labels.get(label) for r in results)}
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    colours = dict(zip(names, itertools.cycle(colormaps["tab20"].colors)))  # noqa: B905  a cycle has no end
    figure = Figure(figsize=(5 * len(panels) + 2, 5.5 + 0.1 * len(names)), layout="constrained")
    figure.suptitle(shared(results), fontsize="medium")
    drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, panel) in zip(drawn, panels.items(), strict=True):
        _draw(axes, panel, colours)
        axes.set_title(title if label is None else f"{label}: {title}")
        axes.label_outer()
    handles = {name: line for axes in drawn for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def lines(results: Sequence[Result], label: str | None = None, value: object = None) -> Lines:
    """`(sparsity in percent, speed-up)` of each way in each case where `label` is `value`, named by what varies."""
    told = [name for name in varying(results) if name not in ("sparsity", label)]
    found: Lines = {}
    for result in (r for r in results if r.labels.get(label) == value):
        for sample in (s for s in result.samples if s.role != "dense"):
            name = ", ".join([*(_told(t, result.labels[t]) for t in told), sample.name])
            found.setdefault(name, []).append((100 * result.labels["sparsity"], result.ratio(sample)))
    return {name: sorted(points) for name, points in found.items()}


def _told(name: str, value: object) -> str:
    return value if isinstance(value, str) else f"{name} {value}"


def _draw(axes: Axes, panel: Lines, colours: dict[str, Any]) -> None:
    sparsities = [sparsity for points in panel.values() for sparsity, _ in points]
    x = np.linspace(max(0.0, min(sparsities) - 2), max(sparsities) + (100 - max(sparsities)) / 5)
    axes.plot(x, 100 / (100 - x), "k--", label="ideal (FLOP ratio)")
    axes.axhline(1, color="gray", linestyle=":", label="break-even")
    for name, points in panel.items():
        axes.plot(*zip(*points, strict=True), "o-", color=colours[name], markersize=4, label=name)
    axes.set(xlabel="sparsity (%)", ylabel="times faster than the best dense layout")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}x")
