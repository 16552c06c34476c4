"""`sparsemeta demo` from end to end, in a small size."""

from __future__ import annotations

import platform

import pytest
import torch

from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.models import Conv4
from sparsemeta.ticket import Ticket

pytestmark = pytest.mark.xdist_group("demo")  # one process makes the demo that all look at

DENSE_LAYOUTS = "contiguous", "channels_last"


def test_writes_its_results_and_nothing_else(finished):
    files = {str(path.relative_to(finished.out)) for path in finished.out.rglob("*") if path.is_file()}
    checkpoints = {f"checkpoints/{stage}.safetensors" for stage in ("rewind", "dense", "ticket")}
    assert files == {"configuration.json", "figures.json", "report.html", "ticket.safetensors", *checkpoints}


def test_prints_the_comparison(finished):
    accuracy = finished.figures["accuracy"]
    for name in ("dense", "ticket"):
        assert f"{accuracy[name]['accuracy']:.2f} ± {accuracy[name]['interval']:.2f} %" in finished.output
    assert "FLOP ratio" in finished.output and "efficiency" in finished.output and "(best)" in finished.output


def test_figures_hang_together(finished):
    speed = finished.figures["speed"]
    seconds = {name: timed["median"] for name, timed in speed["seconds_per_meta_step"].items()}
    assert seconds.keys() == {*DENSE_LAYOUTS, "sparse, 0 % pruned", "sparse"} and min(seconds.values()) > 0
    assert (best := seconds[speed["best_dense"]]) == min(seconds[layout] for layout in DENSE_LAYOUTS)
    assert speed["ratio"] == pytest.approx(best / seconds["sparse"])
    assert speed["ratio_of_fusing_alone"] == pytest.approx(best / seconds["sparse, 0 % pruned"])
    assert speed["efficiency"] == pytest.approx(speed["ratio"] / speed["flop_ratio"])
    for timed in speed["seconds_per_meta_step"].values():
        assert timed["lower_quartile"] <= timed["median"] <= timed["upper_quartile"] and timed["rounds"] == 3


def test_accuracies_come_with_their_intervals(finished):
    accuracy = finished.figures["accuracy"]
    for name in ("dense", "ticket"):
        assert 0 <= accuracy[name]["accuracy"] <= 100 and accuracy[name]["interval"] > 0
        assert accuracy[name]["tasks"] == finished.figures["configuration"]["eval_tasks"] == 20
    assert accuracy["difference"] == pytest.approx(accuracy["ticket"]["accuracy"] - accuracy["dense"]["accuracy"])


def test_both_networks_get_the_same_number_of_steps(finished):
    training, rewind = finished.figures["training"], finished.figures["configuration"]["rewind"]
    assert training["dense"]["step"] == [1, 2, 3, 4, 5, 6]
    assert training["ticket"]["step"] == list(range(rewind + 1, 7))
    for curve in training.values():
        assert len(curve["loss"]) == len(curve["accuracy"]) == len(curve["seconds"]) == len(curve["step"])


def test_configuration_and_machine_are_recorded(finished):
    configuration, machine = finished.figures["configuration"], finished.figures["machine"]
    assert configuration["training"]["first_order"] is False and configuration["training"]["meta_batch"] == 4
    assert machine["torch"] == torch.__version__ and machine["threads"] == 1 and machine["processor"]
    assert platform.node() not in (finished.out / "report.html").read_text(encoding="utf-8")


def test_flop_ratio_is_counted_from_the_layers(finished):
    """Conv4 of 8 filters on 28x28, five ways: multiply-adds of a forward pass by hand."""
    layers = finished.figures["ticket"]["layers"]
    pixels = {f"features.{i}.conv.weight": side**2 for i, side in enumerate((28, 14, 7, 3))}
    head = 5 * 8
    dense = head + sum(pixels[name] * layer["numel"] for name, layer in layers.items())
    kept = head + sum(pixels[name] * layer["kept"] for name, layer in layers.items())
    assert layers.keys() == pixels.keys()
    assert finished.figures["speed"]["flop_ratio"] == pytest.approx(dense / kept)


def test_ticket_is_the_dense_networks_largest_weights(finished):
    dense = Conv4(ways=5, in_channels=1, hidden=8, image_size=28)
    dense.load_state_dict(load_checkpoint(finished.out / "checkpoints" / "dense.safetensors")["model"])
    ticket = Ticket.load(finished.out / "ticket.safetensors")
    assert ticket == Ticket.magnitude(dense, 0.8, exclude=("head",))
    assert ticket.sparsity == finished.figures["ticket"]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert ticket.provenance["demo"]["accuracy"] == finished.figures["accuracy"]

