"""Few-shot tasks that need neither data nor time, and networks for them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from sparsemeta.models import FiLM

WAYS, SHOTS, QUERIES, SIZE = 3, 2, 4, 8


class NoisyClasses:
    """A sampler: each class of a task is a random image, its members that image and noise."""

    def __init__(self, seed: int = 0, noise: float = 0.3, dtype: torch.dtype = torch.float32):
        self.generator = torch.Generator().manual_seed(seed)
        self.noise, self.dtype = noise, dtype

    def sample(self, n: int) -> SimpleNamespace:
        drawn = [self._task() for _ in range(n)]
        support_x, query_x = (torch.stack(x) for x in zip(*drawn, strict=True))
        support_y, query_y = (torch.arange(WAYS).repeat_interleave(k).repeat(n, 1) for k in (SHOTS, QUERIES))
        return SimpleNamespace(support_x=support_x, support_y=support_y, query_x=query_x, query_y=query_y)

    def _task(self) -> tuple[Tensor, Tensor]:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, SIZE, SIZE, generator=self.generator, dtype=self.dtype)

        classes, noise = draw(WAYS, 1, 1), self.noise * draw(WAYS, SHOTS + QUERIES, 1)
        support, query = (classes + noise).split([SHOTS, QUERIES], 1)
        return support.flatten(0, 1), query.flatten(0, 1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])


def conv_net(seed: int = 5) -> nn.Sequential:
    """Two convolutions with batch norm and a linear layer, always the same; smooth, for derivatives."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False), nn.Softplus(),
        nn.Conv2d(4, 4, 3, padding=1, stride=2), nn.Softplus(), nn.Flatten(), nn.Linear(64, WAYS),
    )  # fmt: skip


def film_net(seed: int = 5) -> nn.Sequential:
    """The same with a context before the first activation, for CAVIA."""
    net = conv_net(seed)
    net[1] = FiLM(4, size=6)
    return net
