"""`sparsemeta ticket compare|stretch|squeeze|shuffle|export`, and the plots of `show`."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.utils import prune
from typer.testing import CliRunner

import sparsemeta as sm
from sparsemeta.cli.ticket import app
from sparsemeta.models import ResNetCifar

SMALL = {"widths": (4, 4, 4), "image_size": 8, "classes": 3}


@pytest.fixture
def model():
    return ResNetCifar(20, **SMALL).eval()


@pytest.fixture
def ticket(model):
    return sm.Ticket.magnitude(model, 0.5)


@pytest.fixture
def folder(tmp_path, model, ticket):
    ticket.save(tmp_path / "a.ticket", {"seed": 7})
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_show_draws(folder):
    result = run("show", folder / "a.ticket", "--plots", folder / "plots")
    assert result.exit_code == 0
    for name in ("kept", "masks"):
        text = (folder / "plots" / f"{name}.svg").read_text()
        assert text.startswith("<?xml") and "stages.2.2.conv2.conv.weight" in text
        assert f"{name}.svg" in result.output


def test_shuffle_then_compare(folder, ticket):
    assert run("shuffle", folder / "a.ticket", folder / "b.ticket", "--seed", 5).exit_code == 0
    other = sm.Ticket.load(folder / "b.ticket")
    assert other.kept == ticket.kept and other != ticket
    assert other.provenance == {**ticket.provenance, "seed": 7, "shuffled": 5}
    facts = json.loads(run("compare", folder / "a.ticket", folder / "b.ticket", "--json").output)
    shared = sum(int((ticket[n].mask() & other[n].mask()).sum()) for n in ticket)
    assert facts["shared"] == pytest.approx(shared / ticket.nnz)
    assert facts["shared_by_chance"] == pytest.approx(0.5, abs=0.01) and facts["layers"].keys() == ticket.keys()
    same = run("compare", folder / "a.ticket", folder / "a.ticket").output
    assert "head.weight" in same and "all: 100.00 % (50" in same and "Jaccard 1.0000" in same


def test_stretch_ticket_and_weights_and_back(folder, model, ticket):
    where = folder / "deep.ticket", folder / "deep.safetensors"
    result = run(
        "stretch", folder / "a.ticket", where[0], "--to", 5, "--order", "interpolate",
        "--weights", folder / "weights.safetensors", "--weights-out", where[1],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    deep, state = sm.Ticket.load(where[0]), load_file(where[1])
    assert deep == sm.pruning.stretch(ticket, 5, order="interpolate")
    assert deep.provenance["seed"] == 7 and deep.provenance["elastic"][0]["mapping"] == "0:0;1:1,2;2:3,4"
    target = ResNetCifar(32, **SMALL)
    target.load_state_dict(state)
    assert torch.equal(target.stages[1][2].conv1.conv.weight, model.stages[1][1].conv1.conv.weight)
    assert run("squeeze", where[0], folder / "back.ticket", "--mapping", "0:0;1:1;3:2").exit_code == 0
    assert sm.Ticket.load(folder / "back.ticket") == ticket


def test_stages_and_units_from_the_command_line(folder, ticket):
    units = r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\..+"
    assert run("stretch", folder / "a.ticket", folder / "b", "--to", "3,4,5", "--units", units).exit_code == 0
    assert sm.Ticket.load(folder / "b") == sm.pruning.stretch(ticket, [3, 4, 5])


def test_export_of_masks(folder, ticket):
    assert run("export", folder / "a.ticket", folder / "masks.safetensors").exit_code == 0
    masks = load_file(folder / "masks.safetensors")
    assert masks.keys() == ticket.keys() and all(torch.equal(masks[n], ticket[n].mask()) for n in masks)
    with safe_open(folder / "masks.safetensors", "pt") as file:
        assert json.loads(file.metadata()["provenance"])["seed"] == 7


@pytest.mark.parametrize("form", ["prune", "dense"])
def test_exported_state_dicts_load_into_ordinary_models(folder, model, ticket, form):
    out = folder / "out.safetensors"
    result = run("export", folder / "a.ticket", out, "--format", form, "--weights", folder / "weights.safetensors")
    assert result.exit_code == 0, result.output
    other = ResNetCifar(20, **SMALL).eval()
    if form == "prune":
        for name in ticket:
            prune.identity(other.get_submodule(name.removesuffix(".weight")), "weight")
    other.load_state_dict(load_file(out))
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(other(x), sm.densify(sm.sparsify(model, ticket))(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stretch", "a.ticket", "b", "--to", "many"], "3,4,6,3; got 'many'"),
        (["stretch", "a.ticket", "b"], "expected to, the blocks"),
        (["stretch", "a.ticket", "b", "--to", "5", "--weights", "weights.safetensors"], "give both"),
        (["squeeze", "a.ticket", "b", "--to", "5"], "stretch does the opposite"),
        (["export", "a.ticket", "b", "--format", "onnx"], "masks, prune, dense, got 'onnx'"),
        (["export", "a.ticket", "b", "--format", "dense"], "expected --weights"),
        (["export", "a.ticket", "b", "--format", "dense", "--weights", "junk"], "expected a safetensors file"),
        (["export", "a.ticket", "b", "--format", "dense", "--weights", "small"], "ticket's names and shapes"),
        (["compare", "a.ticket", "deep.ticket"], "tickets of the same weights"),
    ],
)  # fmt: skip  a table
def test_errors_write_nothing(folder, ticket, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    (folder / "junk").write_bytes(b"no tensors")
    save_file({"head.weight": torch.ones(2, 2)}, folder / "small")
    sm.pruning.stretch(ticket, 5).save("deep.ticket")
    error = run(*arguments).exception
    assert isinstance(error, ValueError) and words in str(error)
    assert not (folder / "b").exists()
