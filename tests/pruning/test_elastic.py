"""Stretch and squeeze: weights and masks block by block, against copies written by hand."""

from __future__ import annotations

import pytest
import torch

import sparsemeta as sm
from sparsemeta.models import VGG, ConvN, ResNetCifar, ResNetImageNet
from sparsemeta.pruning import squeeze, stretch, transfer
from sparsemeta.ticket import TicketError

SMALL = {"widths": (4, 5, 6), "image_size": 8, "classes": 3}


@pytest.fixture
def trained():
    """ResNet-20 of which every tensor differs from every other, running statistics included."""
    model = ResNetCifar(20, **SMALL)
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.rand(tensor.shape) + 0.5 if ".norm." in name else torch.randn(tensor.shape) / 6)
    return model


@pytest.fixture
def ticket(trained):
    return sm.Ticket.magnitude(trained, sparsity=0.6)


@pytest.mark.parametrize(
    ("how", "sources"),
    [
        ({"to": 5}, [0, 1, 2, 1, 2]), ({"to": 5, "order": "interpolate"}, [0, 1, 1, 2, 2]),
        ({"mapping": "0:0;1:1,3;2:2"}, [0, 1, 2, 1]), ({"to": [5, 5, 5]}, [0, 1, 2, 1, 2]),
    ],
)  # fmt: skip  a table
def test_each_block_is_a_copy_in_weights_and_masks(trained, ticket, how, sources):
    state, before = stretch(trained.state_dict(), **how), trained.state_dict()
    after = stretch(ticket, **how)
    for stage in range(3):
        for block, source in enumerate(sources):
            here, there = f"stages.{stage}.{block}.", f"stages.{stage}.{source}."
            block_names = [name for name in before if name.startswith(there)]
            assert any("running_var" in name for name in block_names)
            for name in block_names:
                assert torch.equal(state[name.replace(there, here)], before[name])
            for name in filter(ticket.__contains__, block_names):
                assert torch.equal(after[name.replace(there, here)].mask(), ticket[name].mask())
    for name in ("stem.conv.weight", "stem.norm.running_mean", "head.weight", "head.bias"):
        assert torch.equal(state[name], before[name])
    depth = {4: 26, 5: 32}[len(sources)]
    assert list(state) == list(ResNetCifar(depth, **SMALL).state_dict())


def test_stages_may_differ():
    model = ResNetImageNet(18, widths=(2, 3, 4, 5), image_size=32)
    state = stretch(model.state_dict(), [3, 4, 6, 3])
    assert list(state) == list(ResNetImageNet(34, widths=(2, 3, 4, 5), image_size=32).state_dict())
    assert torch.equal(state["stages.2.5.conv1.conv.weight"], model.stages[2][1].conv1.conv.weight)
    mapping = "0:0;1:1,2|0:0;1:1,2,3|0:0;1:1,2,3,4,5|0:0;1:1,2"
    assert stretch(model.state_dict(), mapping=mapping).keys() == state.keys()


@pytest.mark.parametrize("there", ["append", "interpolate"])
def test_squeezing_what_was_stretched_gives_it_back(trained, ticket, there):
    back = {"append": "consecutive", "interpolate": "interleaved"}[there]
    assert squeeze(stretch(ticket, 5, order=there), 3, order=back) == ticket
    state = squeeze(stretch(trained.state_dict(), 5, order=there), 3, order=back)
    assert all(torch.equal(state[name], tensor) for name, tensor in trained.state_dict().items())


def test_sparsity_is_what_comes_out(ticket):
    twice = [name for name in ticket if name.split(".")[2:3] in (["1"], ["2"])]  # of 3 blocks to 5: each once more
    assert stretch(ticket, 5).nnz == ticket.nnz + sum(ticket[name].nnz for name in twice)
    assert stretch(ticket, 5).numel == ticket.numel + sum(ticket[name].numel for name in twice)


def test_provenance_goes_on(ticket):
    steps = squeeze(stretch(ticket, 5), 3).provenance
    assert steps["method"] == "magnitude"
    assert steps["elastic"] == [
        {"operation": "stretch", "mapping": "0:0;1:1,3;2:2,4", "units": "stages.{stage}.{block}.{rest}"},
        {"operation": "squeeze", "mapping": "0:0;1:1;2:2", "units": "stages.{stage}.{block}.{rest}"},
    ]


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (VGG(13, widths=(2, 3, 4, 5, 5)), VGG(19, widths=(2, 3, 4, 5, 5))),
        (ConvN(4, hidden=4, image_size=32), ConvN(6, hidden=4, image_size=32)),
    ],
    ids=["VGG", "ConvN"],
)
def test_plain_networks_in_layers_with_their_batch_norm(small, large):
    ticket = sm.Ticket.magnitude(small, 0.5)
    model, longer = transfer(small, ticket, large)
    assert longer.keys() == dict(sm.Ticket.magnitude(large, 0.5)).keys()
    again, back = transfer(model, longer, small)
    assert back == ticket
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_stretched_model_runs_sparse_as_it_does_dense(trained, ticket):
    model, longer = transfer(trained, ticket, ResNetCifar(32, **SMALL))
    sparse = sm.sparsify(model.eval(), longer)
    masked = ResNetCifar(32, **SMALL).eval()
    weights = {n: t * longer[n].mask() if n in longer else t for n, t in stretch(trained.state_dict(), 5).items()}
    masked.load_state_dict(weights)
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(sparse(x), masked(x), rtol=1e-4, atol=1e-4)


def test_transfer_leaves_both_models_as_they_are(trained, ticket):
    target = ResNetCifar(32, **SMALL)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    model, _ = transfer(trained, ticket, target)
    model.stem.conv.weight.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    assert trained.stem.conv.weight.any()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (ResNetCifar(32, **{**SMALL, "classes": 4}), r"'head.weight' is \(3, 6\), in the target \(4, 6\)"),
        (ResNetCifar(32, **{**SMALL, "widths": (4, 5, 7)}), "stages.2.0.conv1.conv.weight"),
    ],
)
def test_a_target_of_another_shape_is_named(trained, ticket, target, words):
    with pytest.raises(TicketError, match=words):
        transfer(trained, ticket, target)


def test_a_target_tensor_that_is_not_written_is_named(trained, ticket):
    with pytest.raises(TicketError, match="'stages.0.4.conv1.conv.weight' is not written"):
        transfer(trained, ticket, ResNetCifar(32, **SMALL), mapping="0:0;1:1,2;2:3")
    with pytest.raises(ValueError, match="got none for .2., so that 'stages.0.2.conv1.conv.weight' is not written"):
        stretch(ticket, mapping="0:0;1:1;2:3")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"mapping": "0:0,3;1:1;2:2"}, "block 0 .* nothing else"), ({"mapping": "1:0;0:1"}, "begin with 0:0"),
        ({"mapping": "0:0;1:1;3:2"}, r"sources below 3, .*got \[3\]"), ({}, "expected to, the blocks"),
        ({"to": 5, "mapping": "0:0"}, "or a mapping"), ({"to": [5, 5]}, "or 3, one for each, got 2"),
        ({"to": 2}, "squeeze does"), ({"to": 5, "units": "features"}, r"features.*give a rule for this model"),
    ],
)  # fmt: skip  a table
def test_errors(ticket, how, words):
    with pytest.raises(ValueError, match=words):
        stretch(ticket, **how)
