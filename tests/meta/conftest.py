"""Small models and synthetic tasks, so that these tests need neither data nor time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import sparsemeta as sm

WAYS, SHOTS, QUERIES = 3, 2, 4


class NoisyClasses:
    """A sampler: each class of a task is a random image, its members that image and noise."""

    def __init__(self, seed: int = 0, size: int = 8, noise: float = 0.3, dtype: torch.dtype = torch.float32):
        self.generator = torch.Generator().manual_seed(seed)
        self.size, self.noise, self.dtype = size, noise, dtype

    def sample(self, n: int) -> SimpleNamespace:
        drawn = [self._task() for _ in range(n)]
        support_x, query_x = (torch.stack(x) for x in zip(*drawn, strict=True))
        support_y, query_y = (torch.arange(WAYS).repeat_interleave(k).repeat(n, 1) for k in (SHOTS, QUERIES))
        return SimpleNamespace(support_x=support_x, support_y=support_y, query_x=query_x, query_y=query_y)

    def _task(self) -> tuple[Tensor, Tensor]:
        def draw(*shape):
            return torch.randn(*shape, self.size, self.size, generator=self.generator, dtype=self.dtype)

        classes, noise = draw(WAYS, 1, 1), self.noise * draw(WAYS, SHOTS + QUERIES, 1)
        support, query = (classes + noise).split([SHOTS, QUERIES], 1)
        return support.flatten(0, 1), query.flatten(0, 1)

    def state_dict(self) -> dict:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        self.generator.set_state(state["generator"])


def make_net(track_running_stats: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Convolution, batch norm, activation and a linear layer, always the same; smooth, for derivatives."""
    torch.manual_seed(5)
    norm = nn.BatchNorm2d(4, track_running_stats=track_running_stats)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), norm, nn.Softplus(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(36, WAYS)
    )


class Written:
    """A small model in float64, dense or sparse, and what it computes written out on the dense one."""

    def __init__(self, sparse: bool):
        self.dense = make_net().double()
        names = ["0.weight", "5.weight"] if sparse else []
        masks = {name: torch.rand_like(self.dense.get_parameter(name)) < 0.5 for name in names}
        ticket = sm.Ticket.from_masks(masks) if sparse else None
        self.model = sm.sparsify(self.dense, ticket) if sparse else self.dense
        self.patterns = {name[: -len("weight")]: p for name, p in ticket.patterns.items()} if sparse else {}

    def leaves(self) -> dict[str, Tensor]:
        """The model's parameters, as leaves of their own."""
        return {name: p.detach().clone().requires_grad_() for name, p in self.model.named_parameters()}

    def logits(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        full = {layer + "weight": p.expand(weights[layer + "values"]) for layer, p in self.patterns.items()}
        rest = {name: w for name, w in weights.items() if not name.endswith("values")}
        return functional_call(self.dense, rest | full, (x,))

    def loss(self, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(weights, x), y)


@pytest.fixture(params=["dense", "sparse"])
def written(request) -> Written:
    return Written(request.param == "sparse")


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:
    """Tensors this small gain nothing from more, and a sum in one thread is the same sum every time."""
    torch.set_num_threads(1)


@pytest.fixture
def net():
    return make_net


@pytest.fixture
def sampler():
    return NoisyClasses


@pytest.fixture
def task():
    """One task in float64: support_x, support_y, query_x, query_y."""
    tasks = NoisyClasses(dtype=torch.float64).sample(1)
    return tuple(field[0] for field in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))


@pytest.fixture
def settings() -> dict:
    """Of a TrainConfig that fits the tasks and takes little time."""
    return {"ways": WAYS, "shots": SHOTS, "queries": QUERIES, "inner_steps": 2, "inner_lr": 0.1, "meta_batch": 2}
