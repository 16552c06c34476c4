"""Every algorithm against its definition in a few lines of plain PyTorch, on dense and on sparse models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsemeta as sm
from sparsemeta import meta
from sparsemeta.meta import ALFA, ANIL, BOIL, CAVIA, MAML, MAMLPlusPlus, MetaSGD, Reptile, TrainConfig
from sparsemeta.meta.meta_step import adapted

LR, STEPS = 0.3, 3
HEAD = ("5.weight", "5.values", "5.bias")


def gradients(learner: MAML, task: tuple[Tensor, ...], steps: int = STEPS) -> dict[str, Tensor]:
    """Of the objective on one task, by parameter name; without the learner's ``module.``."""
    learner.zero_grad()
    clone = adapted(learner, task[0], task[1], steps)
    query_loss = F.cross_entropy(clone(task[2]), task[3])
    learner.objective(clone, query_loss, task[2], task[3]).backward()
    return {name.removeprefix("module."): p.grad for name, p in learner.named_parameters() if p.grad is not None}


def written_out(
    written: Any, leaves: dict[str, Tensor], task: tuple[Tensor, ...], names: list[str], rule: Callable
) -> list[dict[str, Tensor]]:
    """All weights after 0, 1, ... inner steps that move ``names`` by ``rule(step, weights, grads)``."""
    path = [{name: p for name, p in leaves.items() if name in dict(written.model.named_parameters())}]
    for step in range(STEPS):
        moving = {name: path[-1][name] for name in names}
        loss = written.loss(path[-1], *task[:2])
        grads = dict(zip(names, torch.autograd.grad(loss, list(moving.values()), create_graph=True), strict=True))
        path.append(path[-1] | rule(step, moving, grads))
    return path


def check(got: dict[str, Tensor], loss: Tensor, leaves: dict[str, Tensor]) -> None:
    expected = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def descend(step: int, weights: dict[str, Tensor], grads: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: w - LR * grads[name] for name, w in weights.items()}


exact = pytest.mark.parametrize("second_order", ["unrolled", "stepwise"])


@exact
@pytest.mark.parametrize("learner_type, moves_head, moves_body", [(MAML, 1, 1), (ANIL, 1, 0), (BOIL, 0, 1)])
def test_maml_anil_and_boil(written, task, learner_type, moves_head, moves_body, second_order):
    leaves = written.leaves()
    names = [name for name in leaves if (moves_head if name in HEAD else moves_body)]
    adapted_weights = written_out(written, leaves, task, names, descend)[-1]
    learner = learner_type(written.model, LR, second_order=second_order)
    check(gradients(learner, task), written.loss(adapted_weights, *task[2:]), leaves)
    assert list(adapted(learner, *task[:2], 1).weights) == names


def test_first_order_takes_the_inner_gradients_as_constants(written, task):
    leaves = written.leaves()
    constant = lambda step, w, g: descend(step, w, {name: x.detach() for name, x in g.items()})  # noqa: E731
    end = written_out(written, leaves, task, list(leaves), constant)[-1]
    check(gradients(MAML(written.model, LR, first_order=True), task), written.loss(end, *task[2:]), leaves)


def test_reptile_goes_towards_the_adapted_weights(written, task):
    leaves = written.leaves()
    end = written_out(written, leaves, task, list(leaves), descend)[-1]
    got = gradients(Reptile(written.model, LR), task)
    for name, start in leaves.items():
        torch.testing.assert_close(got[name], (start - end[name]).detach(), rtol=1e-10, atol=1e-12)


def test_reptile_builds_no_graph_of_the_query_loss(net, sampler, settings):
    graphs = []

    class Watched(Reptile):
        def objective(self, clone, query_loss, *query):
            graphs.append(query_loss.grad_fn)
            return super().objective(clone, query_loss, *query)

    learner = Watched(net(), LR)
    meta.meta_step(learner, sampler().sample(2), torch.optim.SGD(learner.parameters(), lr=0.1), TrainConfig(**settings))
    assert graphs == [None, None]


def learned(starts: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Leaves for a learner's own parameters, under the names that they have there."""
    return {prefix + name.replace(".", "/"): t.clone().requires_grad_() for name, t in starts.items()}


@exact
def test_meta_sgd_learns_a_rate_for_every_weight(written, task, second_order):
    leaves = written.leaves()
    own = learned({name: torch.full_like(p, LR) for name, p in leaves.items()}, "lr.")

    def rule(step, weights, grads):
        return {n: w - own["lr." + n.replace(".", "/")] * grads[n] for n, w in weights.items()}

    end = written_out(written, leaves, task, list(leaves), rule)[-1]
    learner = MetaSGD(written.model, LR, second_order=second_order)
    check(gradients(learner, task), written.loss(end, *task[2:]), leaves | own)


@exact
def test_maml_plus_plus_learns_rates_of_steps_and_weighs_every_loss(written, task, second_order):
    leaves = written.leaves()
    own = learned({name: p.new_full([STEPS], LR) for name, p in leaves.items()}, "lr.")

    def rule(step, weights, grads):
        return {n: w - own["lr." + n.replace(".", "/")][step] * grads[n] for n, w in weights.items()}

    path = written_out(written, leaves, task, list(leaves), rule)[1:]
    first, second, last = (written.loss(weights, *task[2:]) for weights in path)
    learner = MAMLPlusPlus(written.model, LR, STEPS, multi_step_until=10, second_order=second_order)
    for _ in range(4):
        learner.advance()
    share = 0.6 / 3  # four tenths of the way from one third to none
    check(gradients(learner, task), share * (first + second) + (1 - 2 * share) * last, leaves | own)


def test_maml_plus_plus_schedules_end(written, task):
    learner = MAMLPlusPlus(written.model, LR, STEPS, multi_step_until=2, first_order_until=1)
    assert learner.clone().first_order and not learner.clone(first_order=False).first_order
    assert learner.early_share(STEPS) == pytest.approx(1 / 3)
    learner.advance()
    assert not learner.clone().first_order and len(adapted(learner, *task[:2], STEPS).path) == STEPS - 1
    learner.advance()
    clone = adapted(learner, *task[:2], STEPS + 1)  # a step beyond the learned rates takes the last ones
    loss = F.cross_entropy(clone(task[2]), task[3])
    assert clone.path == [] and learner.objective(clone, loss, *task[2:]) is loss
    again = MAMLPlusPlus(written.model, LR, STEPS, multi_step_until=2)
    again.load_state_dict(learner.state_dict())
    assert int(again.meta_steps) == 2


@exact
def test_alfa_generates_rates_and_decays(written, task, second_order):
    leaves = written.leaves()
    learner = ALFA(written.model, LR, STEPS, weight_decay=0.1, second_order=second_order)
    starts = dict(leaves=leaves, lr=LR, decay=0.1 * LR)
    own = {}
    for key in ("lr", "decay"):
        own |= learned({name: p.new_full([STEPS], starts[key]) for name, p in leaves.items()}, f"{key}.")
    own |= {f"generator.{n}": p.detach().clone().requires_grad_() for n, p in learner.generator.named_parameters()}
    assert torch.equal(own["generator.2.bias"], torch.ones(12, dtype=torch.float64))

    def rule(step, weights, grads):
        means = torch.stack([t.mean() for group in (weights, grads) for t in group.values()])
        hidden = (own["generator.0.weight"] @ means + own["generator.0.bias"]).clamp(min=0)
        factors = own["generator.2.weight"] @ hidden + own["generator.2.bias"]
        new = {}
        for i, (name, w) in enumerate(weights.items()):
            rate, decay = (own[f"{key}." + name.replace(".", "/")][step] for key in ("lr", "decay"))
            new[name] = (1 - factors[6 + i] * decay) * w - factors[i] * rate * grads[name]
        return new

    end = written_out(written, leaves, task, list(leaves), rule)[-1]
    check(gradients(learner, task), written.loss(end, *task[2:]), leaves | own)


@exact
@pytest.mark.parametrize("sparse", [False, True])
def test_cavia_moves_a_context_that_starts_at_zero(sampler, sparse, second_order):
    tasks = sampler(size=16, dtype=torch.float64).sample(1)
    task = tuple(f[0] for f in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))
    model = sm.models.FiLMConv4(ways=3, in_channels=1, hidden=4, image_size=16, context=5).double()
    if sparse:
        model = sm.sparsify(model, sm.Ticket.magnitude(model, 0.5, exclude=("head",)))
    learner = CAVIA(model, LR, second_order=second_order)
    got, name = gradients(learner, task), "features.2.film.context"
    assert learner.start()[name].count_nonzero() == 0 == model.get_buffer(name).count_nonzero()

    context = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    loss = lambda x, y: F.cross_entropy(torch.func.functional_call(model, {name: context}, (x,)), y)  # noqa: E731
    for _ in range(STEPS):
        context = context - LR * torch.autograd.grad(loss(*task[:2]), context, create_graph=True)[0]
    leaves = dict(model.named_parameters())
    clone = adapted(learner, *task[:2], STEPS)
    assert list(clone.weights) == [name] and context.abs().max() > 0
    torch.testing.assert_close(clone.weights[name], context, rtol=1e-10, atol=1e-12)
    check(got, loss(*task[2:]), leaves)


def test_anil_names_its_head(written):
    assert list(ANIL(written.model, head="1").start()) == ["1.weight", "1.bias"]
    assert not {"1.weight", "1.bias"} & BOIL(written.model, head="1").start().keys()
    for head in ("2", "nowhere", "5.bi"):
        with pytest.raises(ValueError, match=rf"expected head .* got '{head}', with 0 of 6.*'0', '1', '5'"):
            ANIL(written.model, head=head)
    with pytest.raises(ValueError, match="got '', with 0 of 2"):
        BOIL(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", meta.ALGORITHMS)
def test_every_algorithm_trains_a_ticket_that_stays_one(sampler, settings, name):
    torch.manual_seed(0)
    model = sm.models.FiLMConv4(ways=3, in_channels=1, hidden=4, image_size=16, context=5)
    model = sm.sparsify(model, sm.Ticket.magnitude(model, 0.6, exclude=("head",)))
    patterns = sm.ticket_of(model).patterns
    config = TrainConfig(**settings, algorithm=name, meta_lr=1e-2)
    learner = meta.make_learner(model, config)
    optimizer, tasks = meta.make_optimizer(learner, config), sampler(size=16)
    before = {n: p.detach().clone() for n, p in learner.named_parameters()}
    losses = [meta.meta_step(learner, tasks.sample(2), optimizer, config)[0] for _ in range(3)]
    assert all(loss == loss for loss in losses)
    assert sm.ticket_of(model).patterns == patterns
    for layer, pattern in patterns.items():
        values = model.get_parameter(layer[: -len("weight")] + "values")
        weight = sm.densify(model).get_parameter(layer)
        assert values.shape == (pattern.nnz,) and weight[~pattern.mask()].count_nonzero() == 0
        held = optimizer.state[values].values()
        assert all(m.shape == values.shape for m in held if m.dim()) and len(held) == 3
    still = {n.replace("/", ".") for n, p in learner.named_parameters() if torch.equal(p, before[n])}
    cancelled = "conv.bias", "film.affine.values"  # by batch norm, and by a context of zeros
    assert all(n.endswith(cancelled) for n in still)
    copy = meta.make_learner(sm.sparsify(sm.densify(model), sm.ticket_of(model)), config)
    copy.load_state_dict(learner.state_dict())
    task = [f[0] for f in vars(sampler(3, size=16).sample(1)).values()]
    outputs = [adapted(each, task[0], task[1], 2)(task[2]) for each in (learner, copy)]
    assert torch.equal(*outputs)


def test_meta_step_respects_what_adapts_and_its_rates(sampler, settings):
    """Whatever computes the meta-step: restricted and with a rate for each parameter, it is that of the loop."""
    config, tasks = TrainConfig(**settings), sampler(size=16, dtype=torch.float64).sample(2)
    torch.manual_seed(0)
    model = sm.models.Conv4(ways=3, in_channels=1, hidden=4, image_size=16).double()
    ticket = sm.Ticket.magnitude(model, 0.6)
    rates = {name: 0.1 * (i + 1) for i, name in enumerate(["head.values", "head.bias"])}
    learners = [
        MAML(sm.sparsify(model, ticket), rates, adapt_only=list(rates)),
        ANIL(sm.sparsify(model, ticket), rates, head="head"),
    ]
    for learner in learners:
        meta.meta_step(learner, tasks, torch.optim.SGD(learner.parameters(), lr=0.1), config)
    by_hand = MAML(sm.sparsify(model, ticket), rates, adapt_only=list(rates))
    for x, y, query_x, query_y in zip(*vars(tasks).values(), strict=True):
        clone = by_hand.clone()
        for _ in range(config.inner_steps):
            clone.adapt(F.cross_entropy(clone(x), y))
        (F.cross_entropy(clone(query_x), query_y) / 2).backward()
    torch.optim.SGD(by_hand.parameters(), lr=0.1).step()
    for p, *others in zip(*(learner.parameters() for learner in (by_hand, *learners)), strict=True):
        for other in others:
            torch.testing.assert_close(other, p, rtol=1e-10, atol=1e-12)


def test_rates_of_a_dict_are_a_mapping_and_learned_where_they_are_parameters(net):
    rates = {name: 0.1 for name, _ in net().named_parameters()} | {"5.bias": nn.Parameter(torch.tensor(0.2))}
    learner = MAML(net(), rates)
    assert isinstance(learner.lr, Mapping) and dict(learner.lr) == rates and list(learner.lr.values())[0] == 0.1
    assert [n for n, _ in learner.named_parameters() if n.startswith("lr")] == ["lr.5/bias"]


def test_make_learner_takes_what_the_config_says(net, settings):
    config = TrainConfig(**settings, algorithm="maml++", algorithm_options={"first_order_until": 3})
    learner = meta.make_learner(net(), config)
    assert isinstance(learner, MAMLPlusPlus) and learner.first_order_until == 3 and learner.lr["0.bias"].shape == (2,)
    assert meta.as_learner(learner, config) is learner
    own = type("Own", (MAML,), {})(net())
    assert meta.as_learner(own, TrainConfig(**settings)) is own
    assert meta.make_learner(net(), TrainConfig(**settings, algorithm="fomaml")).first_order
    assert type(meta.make_learner(net(), TrainConfig(**settings))) is MAML


def test_misuse_is_named(net, settings):
    for changes, message in (
        ({"algorithm": "mamba"}, "expected algorithm to be one of maml, fomaml, .*; got 'mamba'"),
        ({"algorithm": "anil", "algorithm_options": {"heads": "5"}}, r"'head'\] for ANIL; got \['heads'\]"),
        ({"algorithm": "cavia"}, "Use sm.models.FiLMConv4"),
    ):
        with pytest.raises(ValueError, match=message):
            meta.make_learner(net(), TrainConfig(**settings, **changes))
    with pytest.raises(ValueError, match="expected a learner of 'alfa', ALFA; got MAML"):
        meta.as_learner(MAML(net()), TrainConfig(**settings, algorithm="alfa"))
    with pytest.raises(ValueError, match=r"adapt_only .* got \['6.weight'\]"):
        MAML(net(), adapt_only=["6.weight"])
    with pytest.raises(ValueError, match="expected film_blocks among 0 to 3"):
        sm.models.FiLMConv4(film_blocks=(4,))
