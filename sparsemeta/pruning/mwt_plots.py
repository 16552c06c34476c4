"""The course of a light search, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..demo.plots import STYLE, svg

Records = Sequence[Mapping[str, Any]]


def search_trace(records: Records, inter: float, intra: float) -> str:
    """Kept fraction by layer, both distances with their thresholds, and query accuracy, over the meta-steps.

    A vertical line is the end of a level: solid where the pattern was stable, dotted where the cap was reached.

    Args:
        records: the trace of `find_ticket("mwt", ...)`.
        inter, intra: the thresholds of its `Detector`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((9, 7.5), layout="constrained")
        fractions, among, inside, accuracy = figure.subplots(4, 1, sharex=True)
        for name in records[0]["fractions"]:
            fractions.plot(steps(records), [record["fractions"][name] for record in records], label=name, lw=1)
        fractions.set(ylabel="kept", title="fraction that the level would keep, by layer")
        fractions.legend(frameon=False, fontsize=7, ncols=3)
        distance(among, records, "inter", inter, "inter-layer distance")
        distance(inside, records, "intra", intra, "intra-layer distance")
        accuracy.plot(steps(records), [record["accuracy"] for record in records], color="#5b6770")
        accuracy.set(ylabel="%", xlabel="meta-step", title="query accuracy, training tasks")
        for axes in (fractions, among, inside, accuracy):
            level_ends(axes, records)
        return svg(figure)


def steps(records: Records) -> list[int]:
    return [record["step"] for record in records]


def distance(axes: Axes, records: Records, key: str, threshold: float, title: str) -> None:
    """One distance, with gaps where a level begins, and its threshold."""
    values = [float("nan") if record[key] is None else record[key] for record in records]
    axes.plot(steps(records), values, color="#d1495b", marker=".")
    axes.axhline(threshold, color="#5b6770", ls="--", lw=0.8)
    axes.set(ylim=(0, None), title=f"{title}; dashed: threshold {threshold:g}")


def level_ends(axes: Axes, records: Records) -> None:
    for record in records:
        if record["over"]:
            axes.axvline(record["step"], color="0.6", lw=0.8, ls="-" if record["over"] == "stable" else ":")
