"""Which models run as a chain, and that a meta-step does not notice."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsemeta as sm
from sparsemeta.meta import MAML, TrainConfig, evaluate, make_learner, make_optimizer, meta_step
from sparsemeta.meta.chain import choose, recognise
from sparsemeta.nn.fused import unfuse

pytestmark = pytest.mark.extension


def sparse_conv4(size: int = 16, dtype: torch.dtype = torch.float64, **options) -> nn.Module:
    torch.manual_seed(3)
    model = sm.models.Conv4(ways=3, in_channels=1, hidden=6, image_size=size, **options).to(dtype)
    return sm.sparsify(model, sm.Ticket.magnitude(model, sparsity=0.7))


def plain(*layers: nn.Module, size: int = 9) -> nn.Sequential:
    """Layers from an image of one channel, and a linear head."""
    torch.manual_seed(3)
    features = nn.Sequential(*layers, nn.Flatten())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features(torch.zeros(2, 1, size, size)).shape[1], 3)).double()


CHAINS = {
    "conv4": sparse_conv4,
    "running-statistics": lambda: sparse_conv4(track_running_stats=True),
    "not-fused": lambda: (lambda model: unfuse(model) or model)(sparse_conv4()),
    "dense-conv4": lambda: sm.densify(sparse_conv4()),
    "no-norm": lambda: plain(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(True)),
    "strides": lambda: plain(nn.Conv2d(1, 4, 3, 2, "valid", bias=False), nn.BatchNorm2d(4), nn.ReLU()),
}


def grads_of(model: nn.Module, tasks, config: TrainConfig) -> tuple[dict[str, torch.Tensor], tuple[float, float]]:
    learner = make_learner(model, config)
    result = meta_step(learner, tasks, make_optimizer(learner, config), config)
    return {name: p.grad for name, p in model.named_parameters()}, result


def size_of(model: nn.Module) -> int:
    return getattr(model, "image_shape", (1, 9, 9))[-1]


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("name", CHAINS)
def test_meta_step_equals_autograd(name, first_order, sampler, settings):
    tasks = sampler(size=size_of(CHAINS[name]()), dtype=torch.float64).sample(2)
    got, expected = (
        grads_of(CHAINS[name](), tasks, TrainConfig(engine=engine, **settings, first_order=first_order))
        for engine in ("chain", "autograd")
    )
    assert got[1] == pytest.approx(expected[1], rel=1e-6)  # autograd's accuracy is float32
    for key, grad in expected[0].items():
        torch.testing.assert_close(got[0][key], grad, rtol=1e-9, atol=1e-11)


def test_rates_of_each_parameter_and_frozen_parameters(sampler, settings):
    tasks = sampler(size=16, dtype=torch.float64).sample(2)
    results = []
    for engine in ("chain", "autograd"):
        model, config = sparse_conv4(), TrainConfig(engine=engine, **settings)
        model.features[1].conv.values.requires_grad_(False)
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        rates = {name: torch.tensor(0.1 * (i % 3), dtype=torch.float64) for i, name in enumerate(trained)}
        learner = MAML(model, rates)
        meta_step(learner, tasks, make_optimizer(learner, config), config)
        results.append({name: p.grad for name, p in model.named_parameters()})
    assert results[0].pop("features.1.conv.values") is results[1].pop("features.1.conv.values") is None
    for name, grad in results[1].items():
        torch.testing.assert_close(results[0][name], grad, rtol=1e-9, atol=1e-11)


def test_evaluation_equals_autograd(sampler, settings):
    model = sparse_conv4()
    got, expected = (
        evaluate(model, sampler(size=16, dtype=torch.float64), TrainConfig(engine=engine, **settings), tasks=5)
        for engine in ("chain", "autograd")
    )
    assert got.accuracy == pytest.approx(expected.accuracy) and got.loss == pytest.approx(expected.loss, rel=1e-6)
    assert all(p.grad is None for p in model.parameters())


def test_parameters_and_running_statistics_stay_as_they_are(sampler, settings):
    model = sparse_conv4(track_running_stats=True)
    before = {name: t.clone() for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    tasks = sampler(size=16, dtype=torch.float64).sample(1)
    chain = choose(MAML(model, 0.1), tasks, TrainConfig(engine="chain", **settings))
    chain.meta_gradient(MAML(model, 0.1), tasks, 3)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())


def test_gradients_are_added_up(sampler):
    model, tasks = sparse_conv4(), sampler(size=16, dtype=torch.float64).sample(1)
    learner = MAML(model, 0.1)
    chain, _ = recognise(learner, tasks.support_x[0])
    for _ in range(2):
        chain.meta_gradient(learner, tasks, 1)
    twice = model.head.bias.grad.clone()
    model.zero_grad()
    chain.meta_gradient(learner, tasks, 1)
    torch.testing.assert_close(twice, 2 * model.head.bias.grad)


def test_auto_takes_the_chain_for_sparse_models_alone(sampler, settings):
    tasks = sampler(size=16, dtype=torch.float64).sample(1)
    config = TrainConfig(**settings)
    assert choose(MAML(sparse_conv4()), tasks, config)
    assert choose(MAML(CHAINS["dense-conv4"]()), tasks, config) is None
    assert choose(MAML(sparse_conv4()), tasks, TrainConfig(engine="autograd", **settings)) is None
    with pytest.raises(ValueError, match="expected engine to be one of"):
        TrainConfig(engine="fast")


class Residual(nn.Module):
    """The modules of a chain, called in another way."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(81, 3)

    def forward(self, x):
        return self.head((self.layers(x) + x).flatten(1))


class Transposed(Residual):
    def forward(self, x):
        return self.head(self.layers(x).mT.flatten(1))


class Twice(Residual):
    def forward(self, x):
        return self.head(self.layers(self.layers(x)).flatten(1))


def hooked() -> nn.Module:
    model = sparse_conv4()
    model.features[0].norm.register_forward_hook(lambda *_: None)
    return model


def dense_backend() -> nn.Module:
    model = sparse_conv4()
    model.features[2].conv.backend = "dense"
    return model


def conv(**options) -> nn.Module:
    return plain(nn.Conv2d(1, 4, 3, padding=1, **options), nn.BatchNorm2d(4), nn.ReLU())


NONE = {
    "residual": (Residual, "do not run one after another"),
    "transposed": (Transposed, "do not run one after another"),
    "twice": (Twice, "shared, or used by no layer"),
    "hooks": (hooked, "features.0.norm has hooks"),
    "dense-backend": (dense_backend, 'features.2.conv asks for backend "dense"'),
    "softplus": (lambda: plain(nn.Conv2d(1, 4, 3), nn.Softplus()), "1 is a Softplus"),
    "no-activation": (lambda: plain(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), "do not run one after another"),
    "average-pool": (lambda: plain(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2)), "2 is a AvgPool2d"),
    "pool-3": (lambda: plain(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(3)), "2 does not pool 2x2"),
    "reflect": (lambda: conv(padding_mode="reflect"), "0 pads with reflect"),
    "groups": (lambda: plain(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU()), "2 groups"),
    "not-affine": (lambda: plain(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()), "no weight and bias"),
    "half": (lambda: conv().to(torch.bfloat16), "float32 or all float64"),
    "resnet": (lambda: sm.models.ResNet12(ways=3, in_channels=1, image_size=16), "."),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_chain_says_why(name, settings, sampler):
    make, match = NONE[name]
    model, like = make(), sampler(size=size_of(make())).sample(1)
    like.support_x = like.support_x.to(next(model.parameters()).dtype)
    chain, reasons = recognise(MAML(model, 0.1), like.support_x[0])
    assert chain is None
    with pytest.raises(ValueError, match=f"expected a chain.*{match}"):
        choose(MAML(model, 0.1), like, TrainConfig(engine="chain", **settings))
    assert choose(MAML(model, 0.1), like, TrainConfig(engine="auto", **settings)) is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bn_mode": "inductive"}, "bn_mode is 'inductive'"),
        ({"lr": nn.Parameter(torch.tensor(0.1))}, "its rates are learned"),
    ],
)
def test_a_learner_that_does_something_else_says_why(options, match, sampler):
    x = sampler(size=16, dtype=torch.float64).sample(1).support_x[0]
    chain, reasons = recognise(MAML(sparse_conv4(), **options), x)
    assert chain is None and match in "; ".join(reasons)


def test_a_change_of_the_model_is_noticed(sampler):
    model, x = sparse_conv4(), sampler(size=16, dtype=torch.float64).sample(1).support_x[0]
    learner = MAML(model, 0.1)
    first, _ = recognise(learner, x)
    assert recognise(learner, x)[0].operation is first.operation
    model.features[0].norm.eps = 0.1
    assert recognise(learner, x)[0].operation is not first.operation
    model.features[1].relu = nn.Softplus()
    assert recognise(learner, x)[0] is None


def test_recognising_leaves_no_trace(sampler):
    model, x = sparse_conv4(track_running_stats=True), sampler(size=16, dtype=torch.float64).sample(1).support_x[0]
    random, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    recognise(MAML(model, 0.1), x)
    assert torch.equal(torch.get_rng_state(), random) and [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    assert model.features[0].norm.num_batches_tracked == 0


def test_divergence_is_noticed(sampler, settings):
    model, config = sparse_conv4(), TrainConfig(engine="chain", **settings | {"inner_lr": 1e200})
    learner = make_learner(model, config)
    with pytest.raises(sm.meta.DivergenceError):
        meta_step(learner, sampler(size=16, dtype=torch.float64).sample(2), make_optimizer(learner, config), config)


def test_float32_follows_the_definition(sampler, settings):
    tasks, config = sampler(size=16).sample(2), TrainConfig(engine="chain", **settings | {"inner_steps": 1})
    single, _ = grads_of(sparse_conv4(dtype=torch.float32), tasks, config)
    model, drawn = sparse_conv4(dtype=torch.float32).double(), sampler(size=16).sample(2)
    learner, expected = MAML(model, config.inner_lr), []
    for i in range(2):
        clone = learner.clone()
        clone.adapt(F.cross_entropy(clone(drawn.support_x[i].double()), drawn.support_y[i]))
        expected.append(F.cross_entropy(clone(drawn.query_x[i].double()), drawn.query_y[i]) / 2)
    sum(expected).backward()
    exact = torch.cat([p.grad.flatten() for p in model.parameters()])
    got = torch.cat([single[name].flatten() for name, _ in model.named_parameters()])
    assert (got - exact).norm() < 1e-3 * exact.norm()
