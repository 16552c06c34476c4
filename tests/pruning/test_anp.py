"""Adaptation-aware pruning: one round against the published loop, and whole searches on toy tasks."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from few_shot_toys import QUERIES, SHOTS, WAYS, NoisyClasses, conv_net, film_net
from torch import nn

from sparsemeta.meta import MAML, CheckpointError, TrainConfig
from sparsemeta.models import ResNet12
from sparsemeta.nn import SparseConv2d, sparsify
from sparsemeta.pruning import SCORES, MetaRun, Probe, find_ticket, sample_flops
from sparsemeta.pruning.anp_plan import fractions
from sparsemeta.pruning.anp_round import Operation, prune_layers_
from sparsemeta.pruning.cost import PASSES
from sparsemeta.ticket import Ticket

CONFIG = TrainConfig(WAYS, SHOTS, QUERIES, inner_steps=2, inner_lr=0.1, meta_batch=2, meta_lr=1e-2, steps=4)
OPTIONS = {"retrain": 2, "tasks": 3, "stride": 2, "progress": False}
LAYERS = {"0.weight": 0, "3.weight": 3, "6.weight": 6}


def meta_run() -> MetaRun:
    return MetaRun(NoisyClasses(), CONFIG)


@pytest.mark.parametrize("how", [{}, {"update": "exact", "damping": 0.1}])
@pytest.mark.parametrize("importance", ["adapted", "unadapted"])
def test_a_round_is_the_loop_written_out(importance, how):
    """In float64, with patches, Hessians and removals written out, and masks by multiplication."""
    torch.manual_seed(1)
    model, tasks = conv_net().double(), [NoisyClasses(s, dtype=torch.float64).sample(2) for s in range(3)]
    masks = {name: torch.rand(model[at].weight.shape) < 0.8 for name, at in LAYERS.items()}
    for name, at in LAYERS.items():
        model[at].weight.data *= masks[name]
    counts = {"0.weight": 5, "3.weight": 20, "6.weight": 30}
    expected, wanted = written_out(copy.deepcopy(model), masks, counts, tasks, importance == "adapted", **how)
    probes = iter([Probe.meta(t, CONFIG) for t in tasks])
    got = prune_layers_(model, masks, counts, lambda: next(probes), Operation(importance, 2, 3, **how))
    for name, at in LAYERS.items():
        assert torch.equal(got[name], wanted[name]) and (model[at].weight[~got[name]] == 0).all()
        assert int((masks[name] & ~got[name]).sum()) == counts[name] and not (got[name] & ~masks[name]).any()
        torch.testing.assert_close(model[at].weight, expected[at].weight, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(model[at].bias, expected[at].bias, rtol=1e-6, atol=1e-8)


def written_out(model, masks, counts, tasks, adapt, update="published", damping=0.0):
    """Layer after layer: masked inner steps, Hessian, scores, removals one by one or what is left by least squares."""
    masks = dict(masks)
    for (name, at), task in zip(LAYERS.items(), tasks, strict=True):
        layer, hessian, count = model[at], 0, 0
        for x, y in zip(task.support_x, task.support_y, strict=True):
            clone = MAML(model, lr=0.1).clone()
            for _ in range(2 * adapt):
                old = dict(clone.weights)
                clone.adapt(F.cross_entropy(clone(x), y))
                for n, mask in masks.items():  # the mask multiplies every inner gradient
                    clone.weights[n] = old[n] + (clone.weights[n] - old[n]) * mask
            rows = inputs_of(clone, layer, x)
            hessian, count = hessian + rows.T @ rows, count + len(rows)
        hessian = hessian / count
        hessian += (1e-6 + damping * hessian.diagonal().mean()) * torch.eye(len(hessian), dtype=torch.float64)
        inverse, root = torch.linalg.inv(hessian), torch.linalg.cholesky(hessian).T
        w = torch.cat([layer.weight.detach().flatten(1), layer.bias.detach()[:, None]], 1).T.clone()  # [rows, units]
        before, mask = w.clone(), masks[name].flatten(1).T.clone()
        scores = {(q, j): w[q, j] ** 2 / (inverse[q, q] + 1e-5) for q, j in mask.nonzero().tolist()}
        for q, j in sorted(scores, key=scores.get)[: counts[name]]:
            w[:, j] -= w[q, j] / (inverse[q, q] + 1e-5) * inverse[:, q]
            mask[q, j] = False
        for j, kept in enumerate(F.pad(mask, (0, 0, 0, 1), value=True).T if update == "exact" else []):
            w[kept, j] = torch.linalg.lstsq(root[:, kept], root @ before[:, j]).solution
        masks[name] = mask.T.reshape(layer.weight.shape)
        layer.weight.data = w[:-1].T.reshape(layer.weight.shape) * masks[name]
        layer.bias.data = w[-1].clone()
    return model, masks


def inputs_of(clone, layer, x):
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    clone(x)
    hook.remove()
    if isinstance(layer, nn.Linear):
        return F.pad(seen[0], (0, 1), value=1.0)
    size = 8 // layer.stride[0]
    patches = F.unfold(seen[0], 3, padding=1, stride=layer.stride).unflatten(2, (size, size))[:, :, ::3, ::3]
    return F.pad(patches.flatten(2).transpose(1, 2).flatten(0, 1), (0, 1), value=1.0)


def test_magnitude_prunes_the_smallest_and_changes_nothing_else():
    model = conv_net()
    weight, bias = model[3].weight.detach().clone(), model[3].bias.detach().clone()
    masks = {"3.weight": torch.ones_like(weight, dtype=torch.bool)}
    after = prune_layers_(model, masks, {"3.weight": 44}, None, Operation("magnitude"))["3.weight"]
    assert torch.equal(after, weight.abs() > weight.abs().flatten().sort().values[43])
    assert torch.equal(model[3].weight, weight * after) and torch.equal(model[3].bias, bias)


class Recording(MetaRun):
    seen: list

    def run(self, model, steps, start=None, checkpoint=None, progress=False):
        self.seen.append((start.step if start else 0, steps, isinstance(model[3], SparseConv2d)))
        return super().run(model, steps, start, checkpoint, progress)


@pytest.mark.parametrize("importance", ["adapted", "unadapted", "magnitude"])
def test_nine_rounds_prune_85_percent_of_each_layer(importance):
    run, model = Recording(NoisyClasses(), CONFIG), conv_net()
    run.seen, state = [], copy.deepcopy(model.state_dict())
    found = find_ticket("anp", model, run=run, sparsity=0.85, importance=importance, **OPTIONS)
    for pattern in found.ticket.values():
        assert pattern.numel - pattern.nnz == 8 * int(0.1 * pattern.numel) + int(0.05 * pattern.numel)
    assert run.seen == [(0, 4, False)] + [(4 + 2 * k, 6 + 2 * k, True) for k in range(9)]
    assert [r["round"] for r in found.trace] == list(range(1, 10))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    network, start = found.rewind.sparse(conv_net(), found.ticket)
    assert start.step == 22 and MetaRun.run(run, network, 23, start).snapshot.step == 23
    dense = sample_flops(model, None, (1, 8, 8))
    most = dense * run.passes * (4 + 9 * 2) + 9 * 3 * 3 * 6 * 7 * dense
    assert dense * run.passes * 4 < found.cost.flops < most


class Interrupted(Exception):
    pass


class Stopping(Recording):
    def run(self, *args, **kwargs):
        if len(self.seen) == self.stop:
            raise Interrupted
        return super().run(*args, **kwargs)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_resumed_search_ends_in_the_same_weights(tmp_path, stop):
    options = {**OPTIONS, "sparsity": 0.35}
    expected = find_ticket("anp", conv_net(), run=meta_run(), **options)
    run = Stopping(NoisyClasses(), CONFIG)
    run.seen, run.stop = [], stop
    with pytest.raises(Interrupted):
        find_ticket("anp", conv_net(), run=run, state=tmp_path / "s", **options)
    found = find_ticket("anp", conv_net(), run=meta_run(), state=tmp_path / "s", resume=True, **options)
    assert found.ticket == expected.ticket and found.cost.flops == expected.cost.flops
    assert all(torch.equal(found.rewind.model[name], value) for name, value in expected.rewind.model.items())
    with pytest.raises(CheckpointError, match="got other .*anp"):
        other = {**options, "retrain": 3}
        find_ticket("anp", conv_net(), run=meta_run(), state=tmp_path / "s", resume=True, **other)


def test_a_trained_model_needs_no_training_before():
    found = find_ticket("anp", conv_net(), run=meta_run(), sparsity=0.2, pretrain=0, **OPTIONS)
    assert [r["step"] for r in found.trace] == [2, 4]


@pytest.mark.parametrize(("algorithm", "net"), [("reptile", conv_net), ("cavia", film_net)])
def test_each_algorithm_adapts_in_its_own_way(algorithm, net):
    run = MetaRun(NoisyClasses(), replace(CONFIG, algorithm=algorithm))
    options = {**OPTIONS, "sparsity": 0.1, "pretrain": 0}
    adapted, plain = (
        find_ticket("anp", net(), run=run, importance=how, **options) for how in ("adapted", "unadapted")
    )
    assert all(p.numel - p.nnz == int(0.1 * p.numel) for p in adapted.ticket.values())
    assert adapted.ticket["0.weight"] == plain.ticket["0.weight"], "what enters the first layer does not adapt"
    assert not torch.equal(adapted.rewind.model["6.weight"], plain.rewind.model["6.weight"])
    assert ("1.affine.weight" in adapted.ticket) == (algorithm == "cavia")
    network, start = adapted.rewind.sparse(net(), adapted.ticket)
    assert run.run(network, 3, start).snapshot.step == 3


@pytest.mark.parametrize(("algorithm", "net"), [("maml", conv_net), ("reptile", conv_net), ("cavia", film_net)])
def test_the_fisher_changes_which_weights_go(algorithm, net):
    run = MetaRun(NoisyClasses(), replace(CONFIG, algorithm=algorithm))
    options = {**OPTIONS, "sparsity": 0.4, "pretrain": 0}
    plain, weighted, unadapted = (
        find_ticket("anp", net(), run=run, **options, **more)
        for more in ({}, {"fisher": True}, {"fisher": True, "importance": "unadapted"})
    )
    assert plain.ticket != weighted.ticket != unadapted.ticket
    assert all(plain.ticket[name].nnz == pattern.nnz for name, pattern in weighted.ticket.items())
    queries = 4 * len(plain.ticket) * 3 * WAYS * QUERIES * PASSES  # rounds, layers, tasks
    first, second = (sample_flops(net(), ticket, (1, 8, 8)) for ticket in (None, weighted.ticket))
    assert second < (weighted.cost.flops - plain.cost.flops) / queries < first


def test_resnet12_with_shortcuts_and_without_biases():
    torch.manual_seed(0)
    model = ResNet12(WAYS, 1, widths=(4, 6), image_size=8)
    options = {"sparsity": 0.2, "retrain": 1, "tasks": 2, "pretrain": 0, "max_rows": 20, "progress": False}
    found = find_ticket("anp", model, run=meta_run(), **options)  # 20 rows: some layers by the diagonal
    assert {"blocks.0.conv1.conv.weight", "blocks.1.shortcut.conv.weight", "head.weight"} < set(found.ticket)
    assert all(p.numel - p.nnz == 2 * int(0.1 * p.numel) for p in found.ticket.values())
    assert {name for name in found.rewind.model if name.endswith("bias")} == {
        name for name in model.state_dict() if name.endswith("bias")
    }


@pytest.mark.parametrize(
    ("sparsity", "fraction", "expected"),
    [(0.85, 0.1, [0.1] * 8 + [0.05]), (0.8, 0.1, [0.1] * 8), (0.05, 0.1, [0.05]), (0.3, 0.1, [0.1] * 3)],
)
def test_rounds_add_up_to_the_sparsity(sparsity, fraction, expected):
    assert list(fractions(sparsity, fraction)) == pytest.approx(expected)


def test_rounds_may_differ_in_length():
    options = {**OPTIONS, "sparsity": 0.2, "pretrain": 0}
    found = find_ticket("anp", conv_net(), run=meta_run(), **{**options, "retrain": [1, 3]})
    same = find_ticket("anp", conv_net(), run=meta_run(), **{**options, "retrain": 1})
    assert [r["step"] for r in found.trace] == [1, 4] and [r["step"] for r in same.trace] == [1, 2]
    assert found.ticket == same.ticket and found.rewind.step == 4
    more = 2 * meta_run().passes * sample_flops(conv_net(), found.ticket, (1, 8, 8))
    assert found.cost.flops == pytest.approx(same.cost.flops + more)


@pytest.mark.parametrize(("sparse", "how"), [(False, {}), (True, {}), (True, {"fisher": True, "damping": 0.1})])
def test_the_score_is_the_surgeons(sparse, how):
    model = conv_net().double()
    if sparse:
        model = sparsify(model, Ticket.magnitude(model, 0.5))
    probe = Probe.meta(NoisyClasses(dtype=torch.float64).sample(2), CONFIG)
    scores = SCORES["anp"](model, probe, stride=2, **how)
    surgeon = Operation(stride=2, **how).surgeon(model, model[3], probe)
    expected = surgeon.scores(model[3].weight)
    kept = model[3].pattern.mask() if sparse else torch.ones_like(expected, dtype=torch.bool)
    torch.testing.assert_close(scores["3.weight"][kept], expected[kept], rtol=1e-9, atol=1e-12)
    assert (scores["3.weight"][~kept] == -torch.inf).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"importance": "adaptive"}, "expected importance in"), ({"tasks": 0}, "whole numbers of at least 1"),
        ({"fisher": 1}, "fisher true or false"), ({"damping": -0.1}, "damping >= 0"),
        ({"update": "obs"}, "update in .*'exact'"),
        ({"rounds": 3}, r"expected options among .* got \['rounds'\]"), ({"retrain": 0}, "retrain >= 1"),
        ({"retrain": [1, 2]}, r"one for each of the 8 rounds, got \[1, 2\]"), ({"retrain": [1] * 7 + [0]}, ">= 1"),
        ({"retrain": "long"}, "got 'long'"), ({"pretrain": 1.5}, "pretrain, a whole number"),
        ({"kind": "4x1"}, "kind='unstructured'"),
    ],
)  # fmt: skip
def test_misuse_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        find_ticket("anp", conv_net(), run=meta_run(), progress=False, **{"exclude": ["6"], **wrong})
