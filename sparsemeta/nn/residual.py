"""A residual block, the end of which `sparsify` runs as one operation."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """`pool(act(convN(...conv1(x)) + shortcut(x)))`.

    Args:
        convs: `conv1`, `conv2`, ... by their place. Each brings its batch norm and, but for the last, its activation.
        shortcut: what is added, of `x`; `nn.Identity()` for `x` itself.
        act: activation after the sum.
        pool: pooling after that; None for none.
    """

    def __init__(self, *convs: nn.Module, shortcut: nn.Module, act: nn.Module, pool: nn.Module | None = None):
        super().__init__()
        for number, conv in enumerate(convs, 1):
            self.add_module(f"conv{number}", conv)
        self.shortcut = shortcut
        self.act = act
        self.pool = nn.Identity() if pool is None else pool

    @property
    def convs(self) -> list[nn.Module]:
        """`conv1`, `conv2`, ..."""
        return [module for name, module in self.named_children() if name.startswith("conv")]

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in_channels, H, W]` to `[N, out_channels, H', W']`."""
        deep = x
        for conv in self.convs:
            deep = conv(deep)
        return self.pool(self.act(deep + self.shortcut(x)))
