"""Ticket: an immutable mapping, its figures, its round trip with torch.nn.utils.prune, and multiply-adds."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from sparsemeta.pattern import Pattern
from sparsemeta.ticket import Ticket, TicketError


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, groups=2),
        nn.Flatten(), nn.Linear(6 * 3 * 3, 5),
    )


NAMES = ["0.weight", "3.weight", "5.weight"]


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.rand_like(model.get_parameter(name)) < 0.5 for name in NAMES}


def test_masks_round_trip():
    masks = masks_of(network())
    ticket = Ticket.from_masks(masks)
    assert list(ticket) == list(ticket.patterns) == NAMES
    assert all(torch.equal(mask, masks[name]) for name, mask in ticket.masks().items())
    assert ticket["0.weight"] == Pattern.from_mask(masks["0.weight"])
    assert ticket.kept == {name: int(mask.sum()) for name, mask in masks.items()}
    assert ticket.nnz == sum(ticket.kept.values()) and ticket.numel == 72 + 108 + 270
    assert ticket.sparsity == 1 - ticket.nnz / 450


def test_blocks_for_all_or_by_name():
    ones = {"conv": torch.ones(4, 4, 3, 3, dtype=torch.bool), "head": torch.ones(4, 8, dtype=torch.bool)}
    assert {p.block for p in Ticket.from_masks(ones, block=(2, 2)).values()} == {(2, 2, 1, 1), (2, 2)}
    by_name = Ticket.from_masks(ones, block={"conv": (1, 4, 3, 3)})
    assert by_name["conv"].block == (1, 4, 3, 3) and by_name["head"].block == (1, 1)


def test_equality_is_of_patterns():
    masks = masks_of(network())
    ticket, same = Ticket.from_masks(masks), Ticket.from_masks(dict(reversed(masks.items())), provenance={"seed": 1})
    assert ticket == same and hash(ticket) == hash(same)
    assert ticket != Ticket.from_masks(masks | {"5.weight": ~masks["5.weight"]})
    assert ticket != Ticket.from_masks({name: masks[name] for name in NAMES[:2]})
    assert copy.deepcopy(ticket) is ticket
    restored = pickle.loads(pickle.dumps(same))
    assert restored == same and restored.provenance == {"seed": 1}


def test_immutable():
    ticket = Ticket.from_masks(masks_of(network()), provenance={"seed": 1, "rounds": (1, 2)})
    with pytest.raises(TypeError):
        ticket.patterns["0.weight"] = None
    ticket.provenance["seed"] = 2
    assert ticket.provenance == {"seed": 1, "rounds": [1, 2]}


def test_summary_names_every_layer_and_the_total():
    ticket = Ticket.from_masks({f"a.rather.long.name.of.layer.{i}": torch.eye(4) > 0 for i in range(3)})
    lines = ticket.summary().splitlines()
    assert sum("a.rather.long.name" in line and " 4 of 16 " in line and "75.00 %" in line for line in lines) == 3
    assert "[bold]" in Ticket.from_masks({"[bold]": torch.eye(4) > 0}).summary()
    assert any("all" in line and "12 of 48" in line for line in lines)


BAD_MASKS = {
    "float": (torch.ones(4, 4), TypeError),
    "meta": (torch.ones(4, 4, dtype=torch.bool, device="meta"), ValueError),
    "rank": (torch.ones(4, dtype=torch.bool), ValueError),
    "partly": (torch.eye(4, dtype=torch.bool), ValueError),
}


@pytest.mark.parametrize(("mask", "error"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_mask_is_named(mask, error):
    with pytest.raises(error, match="'1.weight': expected"):
        Ticket.from_masks({"0.weight": torch.ones(4, 4, dtype=torch.bool), "1.weight": mask}, block=(2, 2))


def test_only_patterns_and_json():
    with pytest.raises(TypeError, match="Ticket.from_masks"):
        Ticket({"0.weight": torch.ones(2, 2)})
    with pytest.raises(TicketError, match="provenance that JSON can hold"):
        Ticket({}, provenance={"model": object()})


def test_prune_round_trip():
    model, ticket = network(), Ticket.from_masks(masks_of(network()), block={"5.weight": (1, 1)})
    assert ticket.to_prune(model) is model
    assert Ticket.from_prune(model) == ticket
    for name, mask in ticket.masks().items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        assert prune.is_pruned(layer) and torch.equal(layer.weight_mask, mask.float())
    model(torch.randn(1, 2, 8, 8)).sum().backward()
    assert torch.equal(model[0].weight, model[0].weight_orig * ticket["0.weight"].mask())


def test_prune_round_trip_in_blocks():
    model = network()
    masks = {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in NAMES[:2]}
    for mask in masks.values():
        mask[:2, :2] = True
    ticket = Ticket.from_masks(masks, block=(2, 2))
    assert Ticket.from_prune(ticket.to_prune(model), block=(2, 2)) == ticket


def test_from_prune_reads_what_prune_made():
    model = network()
    prune.global_unstructured([(model[0], "weight"), (model[5], "weight")], prune.L1Unstructured, amount=0.7)
    prune.l1_unstructured(model[0], "weight", amount=10)  # a second method on top: a PruningContainer
    ticket = Ticket.from_prune(model)
    assert list(ticket) == ["0.weight", "5.weight"]
    assert torch.equal(ticket.masks()["0.weight"], model[0].weight_mask.bool())


def test_from_prune_refuses_what_a_ticket_cannot_hold():
    with pytest.raises(ValueError, match="without any weight_mask"):
        Ticket.from_prune(network())
    model = prune.l1_unstructured(network()[0], "bias", amount=1)
    with pytest.raises(ValueError, match="'bias'"):
        Ticket.from_prune(model)
    model = nn.Sequential(prune.l1_unstructured(nn.Conv1d(2, 2, 3), "weight", amount=1))
    with pytest.raises(ValueError, match="Conv1d"):
        Ticket.from_prune(model)
    model = prune.l1_unstructured(nn.Linear(2, 2), "weight", amount=1)
    model.weight_mask.mul_(0.5)
    with pytest.raises(ValueError, match="zeros and ones"):
        Ticket.from_prune(model)


def changed_models() -> dict[str, tuple[nn.Module, str]]:
    wider = network()
    wider[5] = nn.Linear(6 * 3 * 3, 6)
    pruned = network()
    prune.l1_unstructured(pruned[3], "weight", amount=3)
    transposed = network()
    transposed[3] = nn.ConvTranspose2d(6, 2, 3)
    computed = network()
    parametrizations.weight_norm(computed[0])
    return {
        "names": (nn.ModuleDict({"a": network()}), "no such weight"),
        "fewer": (network()[:4], "'5.weight': the model has no such weight"),
        "shape": (wider, r"'5.weight': its shape is \(5, 54\) in the ticket, \(6, 54\) in the model"),
        "pruned": (pruned, "'3.weight': it is pruned already"),
        "kind": (transposed, "'3.weight': it belongs to ConvTranspose2d"),
        "computed": (computed, "'0.weight': it is computed"),
    }


@pytest.mark.parametrize(("model", "message"), changed_models().values(), ids=changed_models())
def test_ticket_of_another_model_changes_nothing(model, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TicketError, match=message):
        Ticket.from_masks(masks_of(network())).to_prune(model)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_flops():
    model, masks = network(), masks_of(network())
    ticket = Ticket.from_masks({name: masks[name] for name in NAMES[1:]})
    state = copy.deepcopy(model.state_dict())
    model.train()
    flops, kept = ticket.flops(model, (2, 8, 8)), ticket.kept
    assert flops.dense == {"0.weight": 64 * 72, "3.weight": 9 * 108, "5.weight": 270}
    assert flops.kept == {"0.weight": 64 * 72, "3.weight": 9 * kept["3.weight"], "5.weight": kept["5.weight"]}
    assert flops.ratio == sum(flops.dense.values()) / sum(flops.kept.values())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_flops_count_every_call_of_a_shared_layer():
    layer = nn.Linear(4, 4)
    flops = Ticket.from_masks({"0.weight": torch.eye(4, dtype=torch.bool)}).flops(nn.Sequential(layer, layer), (3, 4))
    assert (flops.dense, flops.kept) == ({"0.weight": 2 * 3 * 16}, {"0.weight": 2 * 3 * 4})


def test_flops_need_the_tickets_model():
    with pytest.raises(TicketError, match="no such weight"):
        Ticket.from_masks({"9.weight": torch.eye(4, dtype=torch.bool)}).flops(network(), (2, 8, 8))
