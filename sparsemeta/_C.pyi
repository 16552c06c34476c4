"""Compiled kernels (csrc/). Tensors are addresses, strides `[task, image, channel, row, column]` and sizes."""

from collections.abc import Sequence
from types import ModuleType

def isa() -> str: ...
def isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def set_generate(on: bool) -> None: ...

def inner_update(
    params: Sequence[int],
    grads: Sequence[int],
    outs: Sequence[int],
    sizes: Sequence[int],
    rates: Sequence[float],
    f64: bool,
) -> None: ...

class ConvPlan:
    def __init__(
        self,
        index: int,
        nnz: int,
        weight: Sequence[int],
        input: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None: ...
    def forward(
        self,
        x: int,
        x_strides: Sequence[int],
        values: int,
        value_task: int,
        bias: int,
        bias_task: int,
        y: int,
        tasks: int,
        images: int,
        f64: bool,
        threads: int,
    ) -> None: ...
    def input_grad(
        self,
        g: int,
        g_strides: Sequence[int],
        values: int,
        value_task: int,
        x: int,
        tasks: int,
        images: int,
        f64: bool,
        threads: int,
    ) -> None: ...
    def weight_grad(
        self,
        g: int,
        g_strides: Sequence[int],
        x: int,
        x_strides: Sequence[int],
        values: int,
        tasks: int,
        images: int,
        f64: bool,
        threads: int,
    ) -> None: ...

class Chain:
    """Blocks `(plan, plan with tangents, has a bias, normalises, pool, eps, slope)` and a linear head."""

    parameters: int
    def __init__(
        self,
        blocks: Sequence[tuple[ConvPlan, ConvPlan, bool, bool, int, float, float]],
        first: tuple[int, int, Sequence[int], Sequence[int], Sequence[int], Sequence[int], Sequence[int], int],
        head: int,
        kept: int,
        features: int,
        ways: int,
        head_bias: bool,
        f64: bool,
    ) -> None: ...
    # Sizes: tasks, supports, queries, steps. Order: 0 (no gradient), 1 or 2. Inputs: theta, rates, support and query
    # images and labels. Outputs: results, gradient, adapted parameters, logits; the last three may be 0.
    def run(
        self, sizes: Sequence[int], order: int, threads: int, inputs: Sequence[int], outputs: Sequence[int]
    ) -> None: ...
    def arena_bytes(self) -> int: ...

# Sizes are images, channels, height, width, pool; tensors contiguous. A branch is x, weight, mean, 1 / deviation, and
# whether the last two are given; otherwise the forward writes them.
def norm_act_pool(
    sizes: Sequence[int],
    eps: float,
    slope: float,
    f64: bool,
    threads: int,
    branch: tuple[int, int, int, int, bool],
    bias: int,
    y: int,
    code: int,
    residual: tuple[int, int, int, int, bool] | None,
) -> None: ...
def norm_act_pool_grad(
    sizes: Sequence[int],
    eps: float,
    slope: float,
    f64: bool,
    threads: int,
    g: int,
    code: int,
    branch: tuple[int, int, int, int, bool],
    grad_x: int,
    grad_weight: int,
    grad_bias: int,
) -> None: ...
def norm_act_pool_grad_grad(
    sizes: Sequence[int],
    eps: float,
    slope: float,
    f64: bool,
    threads: int,
    v: int,
    v_weight: int,
    v_bias: int,
    g: int,
    code: int,
    branch: tuple[int, int, int, int, bool],
    grad_g: int,
    grad_x: int,
    grad_weight: int,
) -> None: ...

def norm_act_pool_gather(
    sizes: Sequence[int], slope: float, f64: bool, threads: int, code: int, x: int, y: int
) -> None: ...
def norm_act_pool_scatter(
    sizes: Sequence[int], slope: float, f64: bool, threads: int, code: int, g: int, grad_x: int
) -> None: ...

# The CUDA kernels, run by the CPU: the functions of `_CUDA.pyi`.
cuda_on_cpu: ModuleType
