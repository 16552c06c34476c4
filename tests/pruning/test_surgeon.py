"""The surgeon against definitions: Hessians of unfolded inputs, removals one by one, optimal brain surgery."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from few_shot_toys import QUERIES, SHOTS, WAYS, NoisyClasses, conv_net
from torch import nn

from sparsemeta.meta import MAML, TrainConfig
from sparsemeta.nn import sparsify
from sparsemeta.pruning.probe import Probe
from sparsemeta.pruning.surgeon import Surgeon, by_turn
from sparsemeta.pruning.surgeon_factors import layer_factors
from sparsemeta.ticket import Ticket

CONFIG = TrainConfig(ways=WAYS, shots=SHOTS, queries=QUERIES, inner_steps=2, inner_lr=0.3)


@pytest.fixture
def problem():
    """A layer `[5 units, 2 x 3 x 3]` with bias, its inputs as rows `[200, 19]`, and their Hessian."""
    torch.manual_seed(2)
    layer = nn.Conv2d(2, 5, 3).double()
    x = torch.randn(200, 2, 3, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    rows = torch.cat([x.flatten(1), torch.ones(200, 1, dtype=torch.float64)], 1)
    return layer.weight.detach(), layer.bias.detach(), rows, (rows.T @ rows / 200)[None]


def everything(weight: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(weight, dtype=torch.bool)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_hessian_is_that_of_unfolded_inputs_after_adaptation(sparse):
    tasks, model = NoisyClasses(dtype=torch.float64).sample(3), conv_net().double()
    if sparse:
        model = sparsify(model, Ticket.magnitude(model, 0.5))
    probe, conv = Probe.meta(tasks, CONFIG), model[3]
    got, fisher = layer_factors(model, conv, probe, stride=3)

    expected = torch.zeros(37, 37, dtype=torch.float64)
    for x, y in zip(tasks.support_x, tasks.support_y, strict=True):
        clone = MAML(model, lr=0.3).clone()
        for _ in range(2):
            clone.adapt(F.cross_entropy(clone(x), y))
        seen = []
        hook = conv.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].detach()))
        clone(x)
        hook.remove()
        patches = F.unfold(seen[0], 3, padding=1).view(6, 36, 8, 8)[:, :, ::6, ::6].flatten(2)  # (C, kh, kw)
        rows = F.pad(patches.transpose(1, 2).reshape(-1, 36), (0, 1), value=1.0)
        expected += rows.T @ rows / len(rows) / 3
    torch.testing.assert_close(got[0], expected, rtol=1e-10, atol=1e-10)
    plain, _ = layer_factors(model, conv, probe, adapted=False, stride=3)
    assert fisher is None and not torch.allclose(plain[0], expected, rtol=1e-3)
    diagonal, _ = layer_factors(model, conv, probe, stride=3, max_rows=36)
    torch.testing.assert_close(diagonal[0], expected.diagonal(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_the_fisher_is_what_the_query_loss_makes_of_each_output(sparse, at):
    """Gradients to zeros that are added to the layer's output, in the adapted network; and in the network as it is."""
    tasks, model = NoisyClasses(dtype=torch.float64).sample(2), conv_net().double()
    if sparse:
        model = sparsify(model, Ticket.magnitude(model, 0.5))
    layer, probe = model[at], Probe.meta(tasks, CONFIG)
    for adapted in (True, False):
        expected = 0
        for x, y, query_x, query_y in zip(*vars(tasks).values(), strict=True):
            clone = MAML(model, lr=0.3, first_order=True).clone()
            for _ in range(2 * adapted):
                clone.adapt(F.cross_entropy(clone(x), y))
            added = []
            hook = layer.register_forward_hook(lambda _, args, out, added=added: out + shift(out, added))
            F.cross_entropy(clone(query_x), query_y).backward()
            hook.remove()
            grad = added[0].grad.square()
            expected = expected + (grad.mean((0, 2, 3)) if grad.dim() == 4 else grad.mean(0)) / 2
        _, fisher = layer_factors(model, layer, probe, adapted=adapted, fisher=True)
        torch.testing.assert_close(fisher, expected, rtol=1e-9, atol=1e-14)
        assert (expected > 0).all()


def shift(out: torch.Tensor, added: list) -> torch.Tensor:
    added.append(torch.zeros_like(out, requires_grad=True))
    return added[-1]


def test_the_fisher_weighs_the_units(problem):
    """What is removed costs least of the loss's second-order model: f_j times the least squares error of unit j."""
    weight, bias, _, hessian = problem
    fisher = torch.tensor([3.0, 0.1, 1.0, 7.0, 0.0], dtype=torch.float64)
    plain, weighted = Surgeon.of_factors(hessian, True), Surgeon.of_factors(hessian, True, fisher)
    expected = plain.scores(weight) * fisher.view(5, 1, 1, 1)
    torch.testing.assert_close(weighted.scores(weight), expected, rtol=0, atol=0)
    new, _, after = weighted.prune(weight, bias, everything(weight), 18)
    assert not after[4].any() and after[:4].all(), "a unit that the loss does not feel goes first"
    assert torch.equal(new[:4], weight[:4])


def test_scores_are_those_of_the_definition(problem):
    weight, _, _, hessian = problem
    inverse = torch.linalg.inv(hessian[0] + 1e-6 * torch.eye(19, dtype=torch.float64))
    expected = weight.flatten(1).square() / (inverse.diagonal()[:-1] + 1e-5)
    got = Surgeon.of_factors(hessian, bias=True).scores(weight)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-8, atol=1e-12)


def test_one_removal_is_optimal_brain_surgery(problem):
    """min |X (w' - w)|^2 with w'_q = 0, solved as least squares over the other weights."""
    weight, bias, rows, hessian = problem
    surgeon = Surgeon.of_factors(hessian, bias=True)
    mask = everything(weight)
    new, new_bias, after = surgeon.prune(weight, bias, mask, 1)
    j, q = divmod(int((~after).flatten().nonzero()), 18)
    others = torch.arange(19) != q
    target = rows @ torch.cat([weight.flatten(1)[j], bias[j : j + 1]])
    solved = torch.linalg.lstsq(rows[:, others], target).solution
    got = torch.cat([new.flatten(1)[j], new_bias[j : j + 1]])
    torch.testing.assert_close(got[others], solved, rtol=1e-3, atol=1e-4)  # 1e-6 and 1e-5 of damping
    assert got[q] == 0 and torch.equal(new[torch.arange(5) != j], weight[torch.arange(5) != j])


@pytest.mark.parametrize("order", ["aligned", "published"])
def test_removals_are_made_one_after_another(problem, order):
    weight, bias, _, hessian = problem
    surgeon = Surgeon.of_factors(hessian, bias=True, order=order)
    mask = torch.rand(weight.shape) < 0.7
    flat = (lambda t: t.flatten(1)) if order == "aligned" else (lambda t: t.permute(0, 2, 3, 1).flatten(1))
    inverse = torch.linalg.inv(hessian[0] + 1e-6 * torch.eye(19, dtype=torch.float64))
    w = torch.cat([flat(weight * mask), bias[:, None]], 1)
    kept = flat(mask).clone()
    scores = {(j, q): w[j, q] ** 2 / (inverse[q, q] + 1e-5) for j in range(5) for q in range(18) if kept[j, q]}
    for j, q in sorted(scores, key=scores.get)[:20]:
        w[j] -= w[j, q] / (inverse[q, q] + 1e-5) * inverse[:, q]
        kept[j, q] = False
    new, new_bias, after = surgeon.prune(weight, bias, mask, 20)
    assert torch.equal(flat(after), kept) and torch.equal(after & mask, after)
    torch.testing.assert_close(flat(new), w[:, :18] * kept, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(new_bias, w[:, 18], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["aligned", "published"])
def test_the_exact_update_solves_for_all_that_is_left(problem, order, bias, damping):
    """min |X (w' - w)|^2 / n + added |w' - w|^2 over the kept weights, by least squares; the mask is the published."""
    weight, biases, rows, hessian = problem
    flat = (lambda t: t.flatten(1)) if order == "aligned" else (lambda t: t.permute(0, 2, 3, 1).flatten(1))
    mask = torch.rand(weight.shape) < 0.7
    (new, new_bias, after), (_, _, published) = (
        Surgeon.of_factors(hessian, bias, order=order, damping=damping, update=update).prune(
            weight, biases if bias else None, mask, 30
        )
        for update in ("exact", "published")
    )
    assert torch.equal(after, published) and (new_bias is not None) == bias and torch.equal(new, new * after)

    added = 1e-6 + damping * hessian[0].diagonal().mean()
    columns = 18 + bias
    x = torch.cat([rows[:, :columns] / len(rows) ** 0.5, added.sqrt() * torch.eye(columns, dtype=torch.float64)])
    before, got, kept = flat(weight * mask), flat(new), flat(after)
    if bias:
        before, got = torch.cat([before, biases[:, None]], 1), torch.cat([got, new_bias[:, None]], 1)
        kept = F.pad(kept, (0, 1), value=True)
    for unit in range(5):
        solved = torch.linalg.lstsq(x[:, kept[unit]], x @ before[unit]).solution
        torch.testing.assert_close(got[unit, kept[unit]], solved, rtol=1e-8, atol=1e-10)


def test_the_exact_update_leaves_a_unit_that_is_gone_its_mean(problem):
    weight, bias, rows, hessian = problem
    fisher = torch.tensor([0.0, 1, 1, 1, 1])
    surgeon = Surgeon.of_factors(hessian, True, fisher, update="exact")
    new, new_bias, after = surgeon.prune(weight, bias, everything(weight), 18)
    assert not after[0].any() and not new[0].any()
    torch.testing.assert_close(new[1:], weight[1:], rtol=1e-9, atol=1e-12)
    mean = (rows @ torch.cat([weight[0].flatten(), bias[:1]])).mean()
    torch.testing.assert_close(new_bias[0], mean, rtol=1e-5, atol=0)


def test_the_published_order_differs_only_where_a_kernel_has_taps_and_channels(problem):
    weight, _, _, hessian = problem
    aligned, published = (Surgeon.of_factors(hessian, True, order=o).scores(weight) for o in ("aligned", "published"))
    assert not torch.allclose(aligned, published)
    linear = weight.flatten(1)
    aligned, published = (Surgeon.of_factors(hessian, True, order=o).scores(linear) for o in ("aligned", "published"))
    assert torch.equal(aligned, published)


@pytest.mark.parametrize("count", [18, 60])
def test_the_surgeon_reconstructs_better_than_magnitude_and_the_exact_one_best(problem, count):
    weight, bias, rows, hessian = problem
    exact, published = (Surgeon.of_factors(hessian, True, update=update) for update in ("exact", "published"))
    mask, errors = everything(weight), []
    for surgeon in (exact, published, Surgeon(torch.ones(1, 19, dtype=torch.float64))):
        new, new_bias, after = surgeon.prune(weight, bias, mask, count)
        change = torch.cat([(new - weight).flatten(1), (new_bias - bias)[:, None]], 1)
        errors.append((rows @ change.T).square().mean())
        assert int((~after).sum()) == count
    assert errors[0] < errors[1] and errors[0] < errors[2]
    assert count > 18 or errors[1] < errors[2]


@pytest.mark.parametrize("update", ["published", "exact"])
def test_groups_have_a_hessian_each(problem, update):
    """A grouped layer is two layers with one ranking; pruned so far that both lose weights, they agree with it."""
    weight, _, _, hessian = problem
    other = hessian * torch.linspace(0.5, 2, 19, dtype=torch.float64).outer(torch.linspace(0.5, 2, 19).double())
    both = Surgeon.of_factors(torch.cat([hessian, other]), bias=False, update=update)
    weights = torch.cat([weight, weight.flip(0)])
    new, bias, after = both.prune(weights, None, everything(weights), 30)
    assert bias is None
    for part, own in ((slice(0, 5), hessian), (slice(5, 10), other)):
        alone = Surgeon.of_factors(own, bias=False, update=update)
        lost = int((~after[part]).sum())
        expected = alone.prune(weights[part], None, everything(weight), lost)
        torch.testing.assert_close(new[part], expected[0], rtol=1e-9, atol=1e-12)
        assert 0 < lost < 30 and torch.equal(after[part], expected[2])


@pytest.mark.parametrize("update", ["published", "exact"])
def test_a_diagonal_hessian_scales_magnitudes_and_updates_nothing(problem, update):
    weight, bias, _, hessian = problem
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    new, new_bias, after = Surgeon.of_factors(diagonal, True, update=update).prune(weight, bias, everything(weight), 40)
    assert torch.equal(new, weight * after) and torch.equal(new_bias, bias)
    scores = weight.flatten(1).square() / (1 / (diagonal[0, :-1] + 1e-6) + 1e-5)
    assert torch.equal(after.flatten(1), scores > scores.flatten().sort().values[39])


def test_turns_take_each_unit_once():
    units = torch.tensor([2, 0, 2, 2, 0, 1])
    assert [sorted(turn.tolist()) for turn in by_turn(units)] == [[0, 1, 5], [2, 4], [3]]
    assert list(by_turn(torch.tensor([], dtype=torch.int64))) == [] or len(by_turn(units[:0])[0]) == 0


def test_misuse_is_named(problem):
    weight, bias, _, hessian = problem
    with pytest.raises(ValueError, match="expected order to be one of"):
        Surgeon.of_factors(hessian, bias=True, order="mixed")
    with pytest.raises(ValueError, match="update one of .*'published', 'exact'.* got 'aligned' and 'greedy'"):
        Surgeon.of_factors(hessian, bias=True, update="greedy")
    with pytest.raises(ValueError, match="expected to remove fewer weights than the 90 .* got 90"):
        Surgeon.of_factors(hessian, bias=True).prune(weight, bias, everything(weight), 90)
