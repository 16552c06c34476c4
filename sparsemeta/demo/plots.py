"""The report's plots, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsemeta.demo.timing import DENSE as LAYOUTS
from sparsemeta.pattern import Pattern

DENSE, TICKET = "#5b6770", "#d1495b"
STYLE = {"svg.hashsalt": "sparsemeta", "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}


def training_curves(dense: dict[str, Sequence], ticket: dict[str, Sequence]) -> str:
    """Query accuracy on the training tasks, a running mean."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(7, 3.2)
        for name, curve, colour in (("dense", dense, DENSE), ("ticket", ticket, TICKET)):
            mean = running_mean(curve["accuracy"], window := max(1, len(dense["step"]) // 20))
            axes.plot(curve["step"][len(curve["step"]) - len(mean) :], mean, color=colour, label=name)
        axes.set(xlabel="meta-step", ylabel="query accuracy, %", title=f"Training tasks, mean of {window} meta-steps")
        axes.legend(frameon=False)
        return svg(figure)


def kept_fractions(layers: dict[str, dict[str, Any]]) -> str:
    """How much each layer keeps."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(4.4, max(2.6, 0.3 * len(layers)))
        bars = axes.barh(list(layers), [100 * layer["fraction"] for layer in layers.values()], color=TICKET)
        axes.bar_label(bars, [f"{layer['kept']:,} of {layer['numel']:,}" for layer in layers.values()], padding=3)
        axes.set(xlabel="kept, %", xlim=(0, 145), xticks=range(0, 101, 25), title="Weights kept")
        axes.invert_yaxis()
        return svg(figure)


def seconds_bars(seconds: dict[str, dict[str, float]]) -> str:
    """Milliseconds of a meta-step: median, and the quartiles as whiskers."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(4.4, 2.6)
        medians = np.array([1000 * s["median"] for s in seconds.values()])
        ends = np.array([[1000 * s[f"{q}_quartile"] for s in seconds.values()] for q in ("lower", "upper")])
        names = [f"dense,\n{name}" if name in LAYOUTS else name.replace(", ", ",\n") for name in seconds]
        colours = [DENSE if name in LAYOUTS else TICKET for name in seconds]
        axes.bar(names, medians, yerr=abs(ends - medians), color=colours, width=0.6, capsize=4)
        axes.set(ylabel="ms", title="A meta-step: median and quartiles")
        return svg(figure)


def mask_picture(pattern: Pattern, name: str) -> str:
    """The kept weights of a convolution: a row for each output channel, a cell for each kernel, a dot for each tap."""
    o, i, h, w = pattern.shape
    cells = np.full((o, h + 1, i, w + 1), 0.15)
    cells[:, :h, :, :w] = pattern.mask().permute(0, 2, 1, 3).numpy()
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(7, 7)
        axes.imshow(cells.reshape(o * (h + 1), i * (w + 1)), cmap="gray_r", interpolation="none", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[], xlabel=f"{i} input channels", ylabel=f"{o} output channels")
        axes.set_title(f"{name}: kept taps of its {h}x{w} kernels are black")
        return svg(figure)


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    return np.convolve(values, np.ones(window) / window, "valid") if len(values) >= window else np.asarray(values)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Without pyplot: no display is looked for, and nothing global is left behind."""
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
