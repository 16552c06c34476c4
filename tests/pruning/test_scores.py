"""Each score against its formula, by finite differences or dense algebra, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsemeta as sm
from sparsemeta.pruning import SCORES, Probe, masks_from_scores, score
from sparsemeta.pruning.scores_obs import layer_rows

NAMES = ["0.weight", "3.weight", "6.weight"]
STEP = 1e-4  # of central differences: their error is of order STEP ** 2


def mean_loss(model, batches):
    return torch.stack([F.cross_entropy(model(x), y) for x, y in batches]).mean()


def difference(function, weight, index, scale=1.0):
    """d function / d weight[index] times `scale`, by central differences."""
    flat, values = weight.data.view(-1), []
    before = flat[index].item()
    for sign in (1, -1):
        flat[index] = before + sign * STEP
        values.append(function())
    flat[index] = before
    return scale * (values[0] - values[1]) / (2 * STEP)


def each_weight(model):
    for name in NAMES:
        weight = model.get_parameter(name)
        for index in range(0, weight.numel(), 5):
            yield name, weight, index, weight.data.view(-1)[index].item()


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-8)


def test_magnitude_and_random(net):
    scores = SCORES["magnitude"](net)
    assert list(scores) == NAMES
    assert all(torch.equal(scores[name], net.get_parameter(name).detach().abs()) for name in NAMES)
    first, again, other = (SCORES["random"](net, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first["0.weight"], again["0.weight"]) and not torch.equal(first["0.weight"], other["0.weight"])
    assert first["6.weight"].shape == (3, 36) and 0.3 < first["6.weight"].mean() < 0.7


def test_snip(net, batches, probe):
    scores = SCORES["snip"](net, probe)
    for name, weight, index, value in each_weight(net):
        expected = difference(lambda: mean_loss(net, batches).item(), weight, index, value)
        close(scores[name].view(-1)[index], abs(expected))


def test_taylor_is_a_mean_of_squares(net, batches, probe):
    scores = SCORES["taylor"](net, probe)
    for name, weight, index, value in each_weight(net):
        each = [difference(lambda b=b: mean_loss(net, [b]).item(), weight, index, value) for b in batches]
        close(scores[name].view(-1)[index], sum(e**2 for e in each) / 2)


def test_grasp(net, batches, probe):
    def flow():
        grads = torch.autograd.grad(mean_loss(net, batches), [net.get_parameter(name) for name in NAMES])
        return sum(grad.square().sum().item() for grad in grads)

    scores = SCORES["grasp"](net, probe)
    for name, weight, index, value in each_weight(net):
        close(scores[name].view(-1)[index], difference(flow, weight, index, value) / 2)


def test_obs_by_dense_inverses(net, batches, probe):
    scores = SCORES["obs"](net, probe, damping=1e-3)
    x = torch.cat([net[:3](x) for x, _ in batches]).detach()
    rows = x.permute(0, 2, 3, 1).reshape(-1, 4)
    inverse = torch.linalg.inv(rows.T @ rows / len(rows) + 1e-3 * torch.eye(4)).diagonal()
    close(scores["3.weight"], net[3].weight.detach().square() / (2 * inverse.view(1, 4, 1, 1)))


def test_obs_of_groups_looks_at_its_own_group(net, batches, probe):
    scores = SCORES["obs"](net, probe, damping=1e-3)
    for group in range(2):
        x = torch.cat([x for x, _ in batches])[:, group : group + 1]
        rows = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 9)
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        inverse = torch.linalg.inv(rows.T @ rows / len(rows) + 1e-3 * torch.eye(10)).diagonal()[:9]
        weight = net[0].weight.detach()[2 * group : 2 * group + 2]
        close(scores["0.weight"][2 * group : 2 * group + 2], weight.square() / (2 * inverse.view(1, 1, 3, 3)))


def test_obs_removes_what_costs_least_squares():
    """The saliency is the exact rise of a layer's squared error, all other weights of the unit then being refitted."""
    layer, x = nn.Linear(3, 1).double(), torch.randn(50, 3, dtype=torch.float64)
    found = SCORES["obs"](layer, Probe([x], [lambda _: None]), damping=0.0)["weight"]
    target = layer(x).detach()
    for q in range(3):
        rows = torch.cat([x, torch.ones(50, 1)], 1)
        rows[:, q] = 0
        residual = target - rows @ torch.linalg.lstsq(rows, target, driver="gelsd").solution
        close(found[0, q], residual.square().mean() / 2)


def test_obs_of_a_layer_too_large_takes_the_diagonal(net, batches, probe):
    scores = SCORES["obs"](net, probe, damping=0.0, max_rows=4)
    inputs = torch.cat([net[:6](x) for x, _ in batches]).detach()
    close(scores["6.weight"], net[6].weight.detach().square() * inputs.square().mean(0) / 2)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_obs_sees_what_the_convolution_sees(padding, mode):
    layer = nn.Conv2d(2, 3, (3, 5), padding=padding, padding_mode=mode, dilation=(2, 1)).double()
    x = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    weight = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1)
    close((layer_rows(layer, x)[0] @ weight.T).T.reshape(-1), layer(x).transpose(0, 1).reshape(-1))


def test_synflow_is_the_flow_of_positive_weights(net, probe):
    scores = SCORES["synflow"](net, probe)
    chain = nn.Sequential(*(copy.deepcopy(net[i]) for i in (0, 2, 3, 4, 5, 6)))
    for parameter in chain.parameters():
        parameter.data.abs_()
    chain[0].bias.data.zero_(), chain[5].bias.data.zero_()
    ones = torch.ones(1, 2, 6, 6, dtype=torch.float64)
    weight = chain[0].weight
    for index in range(0, weight.numel(), 3):
        expected = difference(lambda: chain(ones).sum().item(), weight, index, weight.data.view(-1)[index].item())
        close(scores["0.weight"].view(-1)[index], expected)


def test_synflow_is_conserved_from_layer_to_layer():
    model = sm.models.ResNet12(widths=(4, 8), in_channels=1, image_size=8)
    scores = SCORES["synflow"](model, Probe([torch.zeros(1, 1, 8, 8)], [lambda _: None]))
    total = scores["head.weight"].sum()
    for block in "01":
        deep, side = (scores[f"blocks.{block}.{path}.conv.weight"].sum() for path in ("conv3", "shortcut"))
        torch.testing.assert_close(deep + side, total)
        torch.testing.assert_close(scores[f"blocks.{block}.conv1.conv.weight"].sum(), deep)


def test_meta_probe_gives_the_meta_gradient():
    torch.manual_seed(1)
    model = sm.models.Conv4(ways=3, in_channels=1, hidden=4, image_size=16).double()
    tasks = sm.data.TaskSampler(sm.data.glyphs(classes=6, size=16), ways=3, shots=1, queries=2).sample(2)
    config = sm.meta.TrainConfig(ways=3, queries=2, inner_steps=2, inner_lr=0.1, meta_batch=2)
    learner = sm.meta.MAML(model, lr=0.1)
    for task in tasks:
        clone = learner.clone()
        for _ in range(2):
            clone.adapt(F.cross_entropy(clone(task.support_x.double()), task.support_y))
        (F.cross_entropy(clone(task.query_x.double()), task.query_y) / 2).backward()
    weight = model.features[1].conv.weight
    close(SCORES["snip"](model, Probe.meta(tasks, config))["features.1.conv.weight"], (weight * weight.grad).abs())


@pytest.mark.parametrize("name", SCORES)
def test_sparse_models_have_the_dense_scores_where_kept(net, probe, name):
    first = sm.Ticket.magnitude(net, 0.5)
    masked = sm.densify(sm.sparsify(net, first))
    dense, sparse = SCORES[name](masked, probe), SCORES[name](sm.sparsify(net, first), probe)
    for weight, mask in first.masks().items():
        assert (sparse[weight][~mask] == -torch.inf).all()
        if name not in ("random", "grasp"):  # random numbers differ; dense g has entries of pruned weights too
            torch.testing.assert_close(sparse[weight][mask], dense[weight][mask], rtol=1e-8, atol=1e-12)
    assert all(not (m & ~first.masks()[n]).any() for n, m in masks_from_scores(sparse, sparsity=0.7).items())


@pytest.mark.parametrize("name", SCORES)
def test_the_model_and_random_numbers_stay(net, probe, name):
    net[3].weight.requires_grad_(False)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    scores = SCORES[name](net, probe, exclude=("6",))
    assert list(scores) == NAMES[:2]
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and net.training
    assert all(p.grad is None for p in net.parameters()) and not net[3].weight.requires_grad


@pytest.mark.parametrize("name", ["snip", "magnitude"])
def test_masks_of_torch_prune_count_as_pruned(net, probe, name):
    first = sm.Ticket.magnitude(net, 0.5)
    net(torch.zeros(1, 2, 6, 6, dtype=torch.float64)).sum()
    scores = SCORES[name](first.to_prune(net), probe)
    assert all((scores[weight][~mask] == -torch.inf).all() for weight, mask in first.masks().items())


def test_a_new_score_is_a_few_lines(net):
    @score("constant")
    def constant(model, weights, probe, value=1.0):
        return {name: torch.full_like(weight, value) for name, weight in weights.items()}

    try:
        assert SCORES["constant"](net, value=3.0)["0.weight"].unique().tolist() == [3.0]
        with pytest.raises(ValueError, match="finite constant scores.*0.weight"):
            constant(net, value=float("nan"))
    finally:
        del SCORES["constant"]


def test_bad_input(net, probe):
    with pytest.raises(ValueError, match="expected a probe for the score 'snip'"):
        SCORES["snip"](net)
    with pytest.raises(ValueError, match="got 'haed'"):
        SCORES["magnitude"](net, exclude="haed")
    with pytest.raises(ValueError, match="one objective for each, got 0 and 0"):
        Probe.supervised([])
