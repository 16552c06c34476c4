"""MAML against the same thing written out by hand, and the ways of a clone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsemeta.meta import MAML, maml
from sparsemeta.ops import inner_update_function

LR, STEPS = 0.5, 3
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def by_hand(weights: list[Tensor], x: Tensor) -> Tensor:
    """The forward pass of ``make_net``, from its definition."""
    kernel, bias, scale, shift, matrix, offset = weights
    patches = F.unfold(x, 3, stride=2)  # [N, 9, 9]
    y = torch.einsum("ok,nkp->nop", kernel.flatten(1), patches) + bias[:, None]
    mean = y.mean((0, 2), keepdim=True)
    y = (y - mean) / ((y - mean).square().mean((0, 2), keepdim=True) + 1e-5).sqrt()
    y = torch.log1p(torch.exp(y * scale[:, None] + shift[:, None]))
    return y.flatten(1) @ matrix.T + offset


def loss_by_hand(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    logits = by_hand(weights, x)
    return (logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]).mean()


def adapted_by_hand(weights: list[Tensor], x: Tensor, y: Tensor, create_graph: bool = True) -> list[Tensor]:
    for _ in range(STEPS):
        grads = torch.autograd.grad(loss_by_hand(weights, x, y), weights, create_graph=create_graph)
        weights = [p - LR * g for p, g in zip(weights, grads, strict=True)]
    return weights


def meta_gradient_by_hand(net: nn.Module, task: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    weights = [p.detach().clone().requires_grad_() for p in net.parameters()]
    loss = loss_by_hand(adapted_by_hand(weights, *task[:2]), *task[2:])
    return torch.autograd.grad(loss, weights)


def meta_gradient(net: nn.Module, task: tuple[Tensor, ...], **kwargs) -> tuple[Tensor, ...]:
    support_x, support_y, query_x, query_y = task
    learner = MAML(net, lr=LR, **kwargs)
    clone = learner.clone()
    for _ in range(STEPS):
        clone.adapt(F.cross_entropy(clone(support_x), support_y))
    loss = F.cross_entropy(clone(query_x), query_y)
    return torch.autograd.grad(loss, list(learner.parameters()))


def distance(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


def test_second_order_meta_gradient_through_three_steps_is_exact(net, task):
    net = net().double()
    for got, expected in zip(meta_gradient(net, task), meta_gradient_by_hand(net, task), strict=True):
        torch.testing.assert_close(got, expected, **EXACT)


def test_second_order_meta_gradient_is_the_slope_of_the_loss(net, task):
    net = net().double()
    gradient = meta_gradient(net, task)
    direction = [torch.randn_like(g) for g in gradient]

    def loss(step: float) -> Tensor:
        weights = [(p + step * d).detach().requires_grad_() for p, d in zip(net.parameters(), direction, strict=True)]
        return loss_by_hand(adapted_by_hand(weights, *task[:2], create_graph=False), *task[2:]).detach()

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    along = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    torch.testing.assert_close(along, slope, rtol=1e-7, atol=1e-8)


def test_first_order_gradient_is_the_query_gradient_at_the_adapted_weights(net, task):
    net = net().double()
    weights = [p.detach().clone().requires_grad_() for p in net.parameters()]
    adapted = [w.detach().requires_grad_() for w in adapted_by_hand(weights, *task[:2], create_graph=False)]
    expected = torch.autograd.grad(loss_by_hand(adapted, *task[2:]), adapted)
    for got, wanted in zip(meta_gradient(net, task, first_order=True), expected, strict=True):
        torch.testing.assert_close(got, wanted, **EXACT)


def test_dropping_a_second_order_term_shows(net, task, monkeypatch):
    net = net().double()
    exact = meta_gradient_by_hand(net, task)
    assert distance(meta_gradient(net, task, first_order=True), exact) > 1e-3

    right = maml.inner_update
    dropped = {
        "all gradients": lambda p, g, lr: right(p, [x.detach() for x in g], lr),
        "that of one bias": lambda p, g, lr: right(p, [*g[:-1], g[-1].detach()], lr),
        "half of one weight": lambda p, g, lr: right(p, [(g[0] + g[0].detach()) / 2, *g[1:]], lr),
    }
    for name, wrong in dropped.items():
        monkeypatch.setattr(maml, "inner_update", wrong)
        assert distance(meta_gradient(net, task), exact) > 1e-7, name


def test_an_update_without_its_gradient_for_grads_shows(net, task, monkeypatch):
    net = net().double()
    exact = meta_gradient_by_hand(net, task)
    function = inner_update_function.InnerUpdate
    monkeypatch.setattr(maml, "inner_update", lambda p, g, lr: function.apply(*p, *g, *[lr] * len(p)))
    assert distance(meta_gradient(net, task), exact) < 1e-10
    monkeypatch.setattr(inner_update_function, "negated_products", lambda lr, grads: [None] * len(grads))
    assert distance(meta_gradient(net, task), exact) > 1e-3


def graph_nodes(tensors: list[Tensor]) -> set[str]:
    names, open_nodes, seen = set(), [t.grad_fn for t in tensors], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            open_nodes += [following for following, _ in node.next_functions]
    return names


def test_first_order_builds_no_second_order_graph(net, task):
    learner = MAML(net().double(), lr=LR, first_order=True)
    for first_order, exact in ((True, learner.clone()), (False, learner.clone(first_order=False))):
        exact.adapt(F.cross_entropy(exact(task[0]), task[1]))
        names = graph_nodes(list(exact.weights.values()))
        assert any("Convolution" in name for name in names) != first_order, names


def test_adapt_overrides_the_order_for_one_step(net, task):
    clone = MAML(net().double(), lr=LR).clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]), first_order=True)
    assert not any("Convolution" in name for name in graph_nodes(list(clone.weights.values())))


def test_parameters_are_those_of_the_model_and_stay_until_an_optimiser_moves_them(net, task):
    net = net().double()
    before = [p.detach().clone() for p in net.parameters()]
    learner = MAML(net, lr=LR)
    assert [id(p) for p in learner.parameters()] == [id(p) for p in net.parameters()]
    clone = learner.clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    F.cross_entropy(clone(task[2]), task[3]).backward()
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    assert not torch.equal(clone(task[2]), learner(task[2]))
    torch.optim.SGD(learner.parameters(), lr=0.1).step()
    assert not any(torch.equal(p, old) for p, old in zip(list(net.parameters())[4:], before[4:], strict=True))


def test_a_clone_shows_its_fast_weights_as_parameters(net, task):
    clone = MAML(net().double(), lr=LR).clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    assert dict(clone.named_parameters()) == {f"module.{name}": w for name, w in clone.weights.items()}
    assert list(dict(clone.named_parameters(prefix="a.b"))) == [f"a.b.module.{name}" for name in clone.weights]


def test_a_clone_of_a_clone_starts_at_it_and_leaves_it(net, task):
    learner = MAML(net().double(), lr=LR)
    clone = learner.clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    at, nested = clone(task[2]), clone.clone()
    assert torch.equal(nested(task[2]), at)
    nested.adapt(F.cross_entropy(nested(task[0]), task[1]))
    assert torch.equal(clone(task[2]), at) and not torch.equal(nested(task[2]), at)
    gradient = torch.autograd.grad(nested(task[2]).sum(), list(learner.parameters())[-2])
    assert gradient[0].abs().max() > 0


def test_frozen_parameters_stay(net, task):
    net = net().double()
    net[0].requires_grad_(False)
    clone = MAML(net, lr=LR).clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    assert list(clone.weights) == ["1.weight", "1.bias", "5.weight", "5.bias"]
    assert torch.equal(dict(clone.named_parameters())["module.0.weight"], net[0].weight)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).tanh())


def test_tied_parameters_move_together():
    model = Tied().double()
    clone, x = MAML(model, lr=LR).clone(), torch.randn(3, 4, dtype=torch.float64)
    clone.adapt(clone(x).square().sum())
    weights = clone.weights
    assert sorted(weights) == ["first.bias", "first.weight", "second.bias"]
    hidden = F.linear(x, weights["first.weight"], weights["first.bias"]).tanh()
    torch.testing.assert_close(clone(x), F.linear(hidden, weights["first.weight"], weights["second.bias"]))


def test_rates_as_tensor_dict_and_learned_parameter(net, task):
    net = net().double()
    rates = {name: 0.1 * (i + 1) for i, (name, _) in enumerate(net.named_parameters())}
    clone = MAML(net, lr=rates).clone()
    loss = F.cross_entropy(clone(task[0]), task[1])
    grads = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    clone.adapt(loss)
    for (name, p), g in zip(net.named_parameters(), grads, strict=True):
        torch.testing.assert_close(clone.weights[name], p - rates[name] * g)

    learner = MAML(net, lr=nn.Parameter(torch.tensor(0.1, dtype=torch.float64)))
    clone = learner.clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    F.cross_entropy(clone(task[2]), task[3]).backward()
    assert "lr" in dict(learner.named_parameters()) and learner.lr.grad.abs() > 0


def test_unused_parameters_raise_by_name_unless_allowed(net, task):
    net = net().double()
    net.register_parameter("spare", nn.Parameter(torch.ones(2)))
    learner = MAML(net, lr=LR)
    clone = learner.clone()
    with pytest.raises(RuntimeError, match=r"it does not on \['spare'\].*allow_unused=True"):
        clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    for clone, allow in ((learner.clone(), True), (learner.clone(allow_unused=True), None)):
        clone.adapt(F.cross_entropy(clone(task[0]), task[1]), allow_unused=allow)
        assert clone.weights["spare"] is net.spare and clone.weights["5.weight"] is not net[5].weight


def test_misuse_is_named(net, task):
    model = net().double()
    learner = MAML(model)
    with pytest.raises(RuntimeError, match="adapt learner.clone()"):
        learner.adapt(F.cross_entropy(learner(task[0]), task[1]))
    for lr in (-0.1, float("nan"), float("inf"), "0.1", None, {"5.bias": 0.1}):
        with pytest.raises(ValueError, match="expected lr"):
            MAML(model, lr=lr)
    with pytest.raises(RuntimeError, match="only frozen ones"):
        MAML(model.requires_grad_(False)).clone().adapt(torch.zeros(()))
