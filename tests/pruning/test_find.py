"""`find_ticket`: scores as methods, provenance, errors at the door."""

from __future__ import annotations

import json

import pytest
import torch

import sparsemeta as sm
from sparsemeta.pruning import METHODS, SCORES, Found, Probe, Search, find_ticket, method, ticket_from_scores
from sparsemeta.pruning.trace import save_found


@pytest.mark.parametrize("name", [name for name in SCORES if name != "synflow"])
def test_a_score_is_a_method(net, probe, name):
    found = find_ticket(name, net, probe=probe, sparsity=0.7, seed=4, exclude="6", progress=False)
    scores = SCORES[name](net, probe, "6", **({"seed": 4} if name == "random" else {}))
    assert found.ticket == ticket_from_scores(scores, sparsity=0.7)
    assert found.cost.flops == 0 and found.rewind is None and len(found.trace) == 1


def narrow() -> torch.nn.Module:
    """A layer with tiny weights, which one round of a global ranking would take away."""
    layers = [torch.nn.Linear(20, 20, bias=False) for _ in range(6)]
    torch.nn.init.uniform_(layers[2].weight, -1e-4, 1e-4)
    return torch.nn.Sequential(*layers)


def test_synflow_collapses_no_layer():
    probe = Probe([torch.zeros(1, 20)], [lambda _: None])
    found = find_ticket("synflow", narrow(), probe=probe, sparsity=0.95, progress=False)
    assert len(found.trace) == 100 and found.ticket.sparsity == pytest.approx(0.95, abs=1e-3)
    assert min(found.ticket.kept.values()) > 10
    assert find_ticket("magnitude", narrow(), sparsity=0.95, progress=False).ticket.kept["2.weight"] == 1
    dead = sm.pruning.dead_units(narrow(), found.ticket, (20,))
    assert sum(dead.alive.values()) > 0.9 * found.ticket.nnz


def test_rounds_of_a_score(net, probe):
    found = find_ticket("snip", net, probe=probe, sparsity=0.8, schedule="exponential", rounds=3, progress=False)
    assert [r["sparsity"] for r in found.trace] == pytest.approx([1 - 0.2 ** (k / 3) for k in (1, 2, 3)], abs=0.004)


def test_a_sparse_model_gets_sparser(net, probe):
    first = sm.Ticket.magnitude(net, 0.5)
    found = find_ticket("snip", sm.sparsify(net, first), probe=probe, sparsity=0.8, progress=False)
    assert all(not (mask & ~first.masks()[name]).any() for name, mask in found.ticket.masks().items())
    assert find_ticket("synflow", sm.sparsify(net, first), probe=probe, rounds=3, progress=False).ticket.nnz > 0


def test_given_by_layer(net, probe):
    given = {"0.weight": 0.5, "3.weight": 0.25, "6.weight": 0.9}
    found = find_ticket("taylor", net, probe=probe, sparsity=None, distribution=given, progress=False)
    assert {name: round(p.sparsity, 2) for name, p in found.ticket.items()} == given


def test_provenance(net, probe):
    found = find_ticket("obs", net, probe=probe, damping=0.1, seed=7, provenance={"data": "noise"}, progress=False)
    says = found.ticket.provenance
    assert says["method"] == "obs" and says["damping"] == 0.1 and says["seed"] == 7 and says["data"] == "noise"
    assert says["cost"] == vars(found.cost) and found.cost.flops == 0
    assert says["sparsemeta"] == sm.__version__ and says["torch"] == torch.__version__


def test_another_method_registers_itself(net):
    @method("all")
    def everything(model, search: Search) -> Found:
        return Found(sm.Ticket.magnitude(model, 0.0))

    try:
        assert find_ticket("all", net).ticket.sparsity == 0
    finally:
        del METHODS["all"]


def test_files_beside_the_ticket(net, probe, tmp_path):
    found = find_ticket("snip", net, probe=probe, schedule="gradual", rounds=2, progress=False)
    files = save_found(found, tmp_path / "new" / "t.safetensors")
    names = ["t.safetensors", "t.json", "t.kept.svg", "t.masks.svg", "t.trace.svg"]
    assert [file.name for file in files] == names
    assert sorted(files) == sorted((tmp_path / "new").iterdir())
    assert sm.Ticket.load(files[0]) == found.ticket and sm.Ticket.load(files[0]).provenance == found.ticket.provenance
    says = json.loads(files[1].read_text())
    assert says["kept"] == found.ticket.nnz and says["trace"] == found.trace and says["cost"] == vars(found.cost)
    for file in files[2:]:
        text = file.read_text()
        assert text.startswith("<?xml") and ("0.weight" in text or file.name == "t.trace.svg")


BAD = {
    "method": (("magic",), {}, r"expected method to be one of (?!.*anp.*anp)imp, .*magnitude.*got 'magic'"),
    "sparsity": (("random",), {"sparsity": 80}, "got 80"),
    "probe": (("snip",), {}, "expected a probe for the score 'snip'"),
    "exclude": (("random",), {"exclude": "haed"}, "got 'haed'"),
    "kind": (("random",), {"kind": "3x3"}, "'0.weight': expected a block"),
    "option": (("random",), {"damping": 1}, r"expected options among \['seed'\] for 'random', got \['damping'\]"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(net, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        find_ticket(*arguments, net, progress=False, **options)
