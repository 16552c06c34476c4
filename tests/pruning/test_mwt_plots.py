"""The plots of a light search, as `save_found` leaves them beside the ticket."""

from __future__ import annotations

import re

from few_shot_toys import QUERIES, SHOTS, WAYS, NoisyClasses, conv_net

from sparsemeta.meta import TrainConfig
from sparsemeta.pruning import MetaRun, find_ticket
from sparsemeta.pruning.mwt_plots import search_trace
from sparsemeta.pruning.trace import save_found


def record(step: int, over: str, moved: float | None) -> dict:
    return {"step": step, "over": over, "inter": moved, "intra": moved, "accuracy": 50.0, "fractions": {"a": 0.5}}


def test_the_plot_shows_thresholds_and_every_layer():
    text = search_trace([record(2, "", None), record(4, "", 0.1), record(6, "cap", 0.01)], 0.02, 0.1)
    for shown in ("threshold 0.02", "threshold 0.1", "inter-layer distance", ">a<", "query accuracy"):
        assert shown in re.sub(r"<!-- (.*?) -->", r">\1<", text)


def test_a_found_ticket_leaves_its_trace(tmp_path):
    config = TrainConfig(WAYS, SHOTS, QUERIES, inner_lr=0.1, meta_batch=2, steps=20)
    run, short = MetaRun(NoisyClasses(), config), {"every": 2, "cap": 4, "inter": 0.07, "progress": False}
    files = save_found(find_ticket("mwt", conv_net(), run=run, sparsity=0.5, **short), tmp_path / "t.safetensors")
    trace = next(file for file in files if file.name == "t.trace.svg")
    assert "threshold 0.07" in trace.read_text()
