"""The chain of blocks against its definition in plain PyTorch, unrolled by autograd."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sparsemeta as sm
from sparsemeta.ops.conv import Conv
from sparsemeta.ops.conv_chain import Block, ConvChain, Head, Outcome

pytestmark = pytest.mark.extension
WAYS, SUPPORTS, QUERIES = 3, 6, 9


@dataclass(frozen=True)
class Layer:
    """A block of 5 filters; kept weights at random positions, in blocks of `block` outputs."""

    kernel: int = 3
    stride: int = 1
    padding: int = 1
    bias: bool = True
    norm: bool = True
    slope: float = 0.0
    pool: int = 2
    density: float = 0.4
    block: int = 1
    out: int = 5

    def made(self, channels: int) -> Block:
        kept = torch.rand(self.out // self.block, channels, self.kernel, self.kernel) < self.density
        pattern = sm.Pattern.from_mask(kept.repeat_interleave(self.block, 0), (self.block, 1))
        conv = Conv.make(pattern, self.stride, self.padding, 1, 1, "cpu")
        return Block(conv, self.bias, self.norm, 1e-5, self.slope, self.pool)


PLAIN = Layer()
CASES = {  # blocks, image
    "conv-4": ([PLAIN] * 3, (3, 13, 11)),
    "wide": ([PLAIN, PLAIN], (2, 9, 101)),
    "many-channels-first": ([Layer(slope=0.2), PLAIN], (8, 13, 11)),
    "no-norm": ([replace(PLAIN, norm=False), replace(PLAIN, norm=False, slope=0.1)], (3, 13, 11)),
    "no-norm-no-bias": ([replace(PLAIN, norm=False, bias=False), replace(PLAIN, norm=False, bias=False)], (1, 8, 9)),
    "no-bias-leaky": ([replace(PLAIN, bias=False, slope=0.3)] * 2, (3, 13, 11)),
    "no-pool": ([replace(PLAIN, pool=1)] * 2, (3, 7, 6)),
    "stride-2": ([replace(PLAIN, stride=2, pool=1), replace(PLAIN, stride=2)], (3, 13, 11)),
    "stride-2-pooled": ([replace(PLAIN, stride=2, kernel=5, padding=2), PLAIN], (2, 19, 21)),
    "stride-over-kernel": ([replace(PLAIN, stride=3, kernel=2, padding=0, pool=1), PLAIN], (2, 14, 17)),
    "1x1": ([replace(PLAIN, kernel=1, padding=0)] * 2, (3, 8, 6)),
    "no-padding": ([replace(PLAIN, padding=0)] * 2, (3, 17, 14)),
    "dense-mixed": ([replace(PLAIN, density=1.0), PLAIN, replace(PLAIN, density=1.0)], (3, 13, 11)),
    "in-blocks": ([Layer(block=2, out=4), Layer(block=2, out=6)], (3, 13, 11)),
    "almost-nothing-kept": ([Layer(density=0.05), Layer(density=0.05)], (3, 13, 11)),
    "tall": ([PLAIN, PLAIN], (1, 29, 4)),
}  # fmt: skip


@dataclass
class Problem:
    """A chain with its parameters, rates and tasks."""

    blocks: list[Block]
    head: Head
    theta: Tensor
    rates: Tensor
    tasks: tuple[Tensor, Tensor, Tensor, Tensor]

    def run(self, steps: int, order: str, dtype: torch.dtype = torch.float64) -> Outcome:
        """The compiled chain."""
        return self.chain(dtype).run(*self.operands(dtype), steps, order)

    def chain(self, dtype: torch.dtype = torch.float64) -> ConvChain:
        return ConvChain(self.blocks, self.head, tuple(self.tasks[0].shape[2:]), dtype)

    def operands(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        tensors = self.theta, self.rates, *self.tasks
        return [t.to(dtype) if t.is_floating_point() else t for t in tensors]


def problem(case: str, tasks: int = 2, supports: int = SUPPORTS, queries: int = QUERIES) -> Problem:
    layers, image = CASES[case]
    blocks, shape = [], torch.empty(1, *image, device="meta")
    for layer in layers:
        blocks.append(layer.made(shape.shape[1]))
        height, width = (side // layer.pool for side in blocks[-1].conv.output_size(shape)[1:])
        shape = torch.empty(1, layer.out, height, width, device="meta")
    head = Head(sm.Pattern.from_mask(torch.rand(WAYS, shape.numel()) < 0.7), bias=True)
    sizes = [n for block in blocks for n in parameter_sizes(block)] + [head.pattern.nnz, WAYS]
    theta = 0.5 * torch.randn(sum(sizes), dtype=torch.float64)
    drawn = [torch.randn(tasks, n, *image, dtype=torch.float64) + 0.5 for n in (supports, queries)]
    labels = [torch.randint(WAYS, (tasks, n)) for n in (supports, queries)]
    return Problem(blocks, head, theta, 0.3 * torch.rand_like(theta), (drawn[0], labels[0], drawn[1], labels[1]))


def parameter_sizes(block: Block) -> list[int]:
    outputs = block.conv.pattern.shape[0]
    return [block.conv.pattern.nnz] + [outputs] * (block.bias + 2 * block.normalises)


def logits(p: Problem, theta: Tensor, x: Tensor) -> Tensor:
    """The network in plain PyTorch; batch norm is written out, so that autograd differentiates it twice."""
    rest = list(theta.split([n for block in p.blocks for n in parameter_sizes(block)] + [p.head.pattern.nnz, WAYS]))
    for block in p.blocks:
        weight, bias = block.conv.pattern.expand(rest.pop(0)), rest.pop(0) if block.bias else None
        x = F.conv2d(x, weight, bias, block.conv.stride, (block.conv.padding[0], block.conv.padding[2]))
        if block.normalises:
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
            x = (x - mean) * (variance + block.eps).rsqrt()
            x = x * rest.pop(0).view(-1, 1, 1) + rest.pop(0).view(-1, 1, 1)
        x = F.max_pool2d(F.leaky_relu(x, block.slope), block.pool)
    return F.linear(x.flatten(1), p.head.pattern.expand(rest[0]), rest[1])


def expected(p: Problem, steps: int, order: str) -> tuple[Tensor, Tensor]:
    """Query losses and meta-gradient, through the unrolled inner loop."""
    start, losses = p.theta.clone().requires_grad_(), []
    for support_x, support_y, query_x, query_y in zip(*p.tasks, strict=True):
        theta = start
        for _ in range(steps):
            loss = F.cross_entropy(logits(p, theta, support_x), support_y)
            theta = theta - p.rates * torch.autograd.grad(loss, theta, create_graph=order == "second")[0]
        losses.append(F.cross_entropy(logits(p, theta, query_x), query_y))
    loss = torch.stack(losses)
    return loss.detach(), torch.autograd.grad(loss.mean(), start)[0]


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("case", CASES)
def test_meta_gradient_equals_the_unrolled_one(case, steps, order):
    p = problem(case)
    loss, gradient = expected(p, steps, order)
    outcome = p.run(steps, order)
    torch.testing.assert_close(outcome.loss, loss, rtol=1e-10, atol=0)
    assert distance(outcome.gradient, gradient) < 1e-9


@pytest.mark.parametrize("case", CASES)
def test_float32_is_as_close_as_its_rounding(case):
    """One step, so that hardly a ReLU or pooling decides another way: a wrong term is off by parts in a hundred."""
    p = problem(case)
    _, gradient = expected(p, 1, "second")
    assert distance(p.run(1, "second", torch.float32).gradient, gradient) < 1e-3


def test_the_second_order_is_there():
    p = problem("conv-4")
    assert distance(p.run(3, "first").gradient, p.run(3, "second").gradient) > 0.1


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("case", ["conv-4", "no-norm", "many-channels-first"])
def test_threads_over_tasks_and_inside_them(case, tasks):
    p = problem(case, tasks)
    loss, gradient = expected(p, 2, "second")
    torch.set_num_threads(2)
    outcome, again = p.run(2, "second"), p.run(2, "second")
    torch.testing.assert_close(outcome.loss, loss, rtol=1e-10, atol=0)
    assert distance(outcome.gradient, gradient) < 1e-9
    assert torch.equal(outcome.gradient, again.gradient)


@pytest.mark.parametrize("supports", [16, 17])
def test_threads_share_large_images_that_are_left_over(supports, monkeypatch):
    monkeypatch.setitem(CASES, "large", ([replace(PLAIN, pool=1), PLAIN], (1, 59, 57)))
    p = problem("large", 1, supports, queries=19)
    torch.set_num_threads(2)
    outcome, again = p.run(1, "second"), p.run(1, "second")
    assert distance(outcome.gradient, expected(p, 1, "second")[1]) < 1e-9
    assert torch.equal(outcome.gradient, again.gradient)


def kernels() -> list[tuple[str, bool]]:
    """Every instruction set of this machine, the best one with and without generated code."""
    extension = sm.backends.cpu.extension()
    isas = extension.isas() if extension else []
    return [(isas[0], True)] + [(isa, False) for isa in isas] if isas else []


@pytest.mark.parametrize("case", ["conv-4", "wide", "stride-2-pooled", "no-norm", "tall"])
@pytest.mark.parametrize(("isa", "generate"), kernels())
def test_every_instruction_set(isa, generate, case):
    extension, p = sm.backends.cpu.extension(), problem(case)
    before = extension.isa()
    extension.set_isa(isa)
    extension.set_generate(generate)
    try:
        double, single = p.run(2, "second"), problem(case).run(1, "second", torch.float32)
    finally:
        extension.set_isa(before)
        extension.set_generate(os.environ.get("SPARSEMETA_GENERATE") != "0")  # as at import
    assert distance(double.gradient, expected(p, 2, "second")[1]) < 1e-9
    assert single.gradient.isfinite().all()


def test_one_support_and_one_query_image():
    p = problem("conv-4", supports=1, queries=1)
    assert distance(p.run(2, "second").gradient, expected(p, 2, "second")[1]) < 1e-9


def test_adapted_parameters_logits_and_accuracy():
    p = problem("conv-4")
    support_x, support_y, query_x, query_y = p.tasks
    outcome = p.run(1, "none")
    assert outcome.gradient is None
    for t in range(2):
        theta = p.theta.clone().requires_grad_()
        grad = torch.autograd.grad(F.cross_entropy(logits(p, theta, support_x[t]), support_y[t]), theta)[0]
        adapted = p.theta - p.rates * grad
        torch.testing.assert_close(outcome.adapted[t], adapted, rtol=1e-9, atol=1e-11)
        judged = logits(p, adapted, query_x[t])
        torch.testing.assert_close(outcome.logits[t], judged, rtol=1e-9, atol=1e-9)
        assert outcome.accuracy[t] == (judged.argmax(1) == query_y[t]).double().mean()


def test_operands_stay_as_they_are():
    p = problem("conv-4")
    before = [t.clone() for t in p.operands()]
    p.run(3, "second")
    assert all(torch.equal(a, b) for a, b in zip(before, p.operands(), strict=True))


def test_memory_grows_with_the_steps_by_their_parameters_alone():
    p, size = problem("conv-4"), {}
    for steps in (1, 101):
        chain = p.chain()
        assert chain.arena_bytes == 0
        chain.run(*p.operands(), steps, "second")
        size[steps] = chain.arena_bytes
        chain.run(*p.operands(), 1, "first")
        assert chain.arena_bytes == size[steps]  # kept from call to call
    assert size[101] - size[1] == pytest.approx(100 * p.theta.numel() * 8, abs=2 * 4096)  # whole pages


def test_nan_reaches_the_loss():
    p = problem("conv-4")
    p.tasks[2][0, 0, 0, 0, 0] = float("nan")
    outcome = p.run(1, "second")
    assert outcome.loss.isnan().tolist() == [True, False] and outcome.gradient.isnan().any()


def replaced(index: int, new: Tensor) -> list:
    operands = problem("conv-4").operands()
    operands[index] = new
    return operands


@pytest.mark.parametrize(
    ("index", "new", "match"),
    [
        (0, torch.zeros(3, dtype=torch.float64), "expected theta and rates"),
        (2, torch.zeros(2, SUPPORTS, 3, 12, 11, dtype=torch.float64), "expected support images"),
        (2, torch.zeros(2, SUPPORTS, 3, 13, 11), "expected support images torch.float64"),
        (3, torch.full((2, SUPPORTS), WAYS), "expected support labels from 0 to 2"),
        (5, torch.full((2, QUERIES), -1), "expected query labels from 0 to 2"),
        (5, torch.zeros(1, QUERIES, dtype=torch.int64), "expected query images .* and labels"),
    ],
)
def test_bad_operands(index, new, match):
    chain = problem("conv-4").chain()
    with pytest.raises(ValueError, match=match):
        torch.manual_seed(0)
        chain.run(*replaced(index, new), 1, "first")


@pytest.mark.parametrize(("steps", "order"), [(-1, "first"), (1, "third")])
def test_bad_steps_and_order(steps, order):
    p = problem("conv-4")
    with pytest.raises(ValueError, match="expected an order of .* and steps >= 0"):
        p.run(steps, order)


@pytest.mark.parametrize(
    ("image", "match"),
    [((2, 13, 11), "expected 2 channels at block 0"), ((3, 4, 11), "can pool"), ((3, 29, 31), "expected a head for")],
)
def test_an_image_that_does_not_fit(image, match):
    p = problem("conv-4")
    with pytest.raises(ValueError, match=match):
        ConvChain(p.blocks, p.head, image, torch.float64)
