"""The backend as the rest of the package sees it: selection, reasons, errors, modules, and the inner update."""

from __future__ import annotations

import copy

import pytest
import torch
from tolerances import assert_close
from torch.func import functional_call, vmap

import sparsemeta as sm
from sparsemeta import _build, backends
from sparsemeta.backends import cuda, cuda_driver, cuda_table
from sparsemeta.ops.inner_update_function import InnerUpdate

needs_extension = pytest.mark.extension
no_gpu = pytest.mark.skipif(not cuda.missing(), reason="asks for the errors of a machine without a GPU; this has one")


@no_gpu
def test_named_backend_says_why_it_cannot_run():
    pattern = sm.Pattern.from_mask(torch.ones(1, 1, 1, 1, dtype=torch.bool))
    with pytest.raises(RuntimeError, match='backend "?\'?cuda.*no CUDA device.*use backend="auto"'):
        sm.masked_conv2d(torch.rand(1, 1, 2, 2), torch.rand(1), pattern, backend="cuda")
    assert "cuda" in backends.available()


@needs_extension
def test_reasons_name_dtype_and_device(emulated):
    assert backends.cuda.reasons(torch.rand(1)) == []
    assert "float64" in backends.cuda.reasons(torch.rand(1, dtype=torch.float64))[0]
    assert "CPU tensors, all on one device, got meta" in backends.cuda.reasons(torch.rand(1, device="meta"))[0]
    [reason] = backends.cuda.reasons(torch.rand(1), torch.rand(1, dtype=torch.bfloat16))
    assert "all float32 or all bfloat16, got torch.float32, torch.bfloat16" in reason


@no_gpu
@pytest.mark.skipif(not _build.gpus(), reason=f"no CUDA extension: {_build.missing('_CUDA')}")
def test_without_a_driver_it_imports_and_launches_fail_by_name(monkeypatch, emulated):
    """The extension for GPUs in the place of its emulation: its launch fails before anything is read."""
    gpu = cuda_driver._EXTENSION
    assert gpu.problem().startswith("cudaError")
    for module in (cuda, cuda_table):
        monkeypatch.setattr(module, "extension", lambda: gpu)
    with pytest.raises(RuntimeError, match=r"^inner_update of \(2, 3\) on cpu: cudaError"):
        cuda.inner_update([None], [torch.rand(2, 3)], [0.1])
    pattern = sm.Pattern.from_mask(torch.ones(1, 1, 1, 1, dtype=torch.bool))
    with pytest.raises(RuntimeError, match=r"^masked_conv2d of \(2, 1, 3, 3\), \(1,\) on cpu: cudaError"):
        sm.masked_conv2d(torch.rand(2, 1, 3, 3), torch.rand(1), pattern, backend="cuda")


@needs_extension
def test_second_order_maml_step_on_modules(emulated):
    """A sparse network's meta-gradient through three inner steps, against the dense network's in float64."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 3, stride=2, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(12, 9, 3, groups=3),
        torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(9 * 9, 5),
    )  # fmt: skip
    ticket = sm.Ticket.magnitude(model, sparsity=0.6)
    sparse = sm.sparsify(model, ticket, backend="cuda")
    exact = sm.sparsify(copy.deepcopy(model).double(), ticket, backend="dense")
    x, labels = torch.randn(6, 3, 9, 9), torch.arange(6) % 5
    for got, wanted in zip(meta_gradient(sparse, x, labels), meta_gradient(exact, x.double(), labels), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-6)


def meta_gradient(model, x, labels):
    learner = sm.meta.MAML(model, lr=0.1)
    clone = learner.clone()
    for _ in range(3):
        clone.adapt(torch.nn.functional.cross_entropy(clone(x), labels))
    loss = torch.nn.functional.cross_entropy(clone(x.flip(-1)), labels)
    return torch.autograd.grad(loss, list(model.parameters()))


@needs_extension
def test_functional_call_maps_over_tasks(emulated):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 9, 2))
    sparse = sm.sparsify(model, sm.Ticket.magnitude(model, sparsity=0.5), backend="cuda")
    stacked = {n: torch.stack([p.detach() * s for s in (1, 2, 3)]) for n, p in sparse.named_parameters()}
    x = torch.randn(3, 4, 3, 5, 5)
    y = vmap(lambda p, x: functional_call(sparse, p, (x,)))(stacked, x)
    for t in range(3):
        alone = functional_call(sparse, {n: p[t] for n, p in stacked.items()}, (x[t],))
        torch.testing.assert_close(y[t], alone)


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("from_zeros", [False, True])
def test_inner_update_equals_the_definition(dtype, from_zeros, emulated):
    """Ends of blocks, empty parameters, and more parameters than one launch takes."""
    sizes = [(64, 64, 3, 3), (1023,), (1024,), (1025,), (33,), (1,), (), (0,)] * 9
    params = [None if from_zeros else torch.randn(s, dtype=dtype) for s in sizes]
    grads = [torch.randn(s, dtype=dtype) for s in sizes]
    rates = [0.01 * i for i in range(len(sizes))]
    tolerance = 1e-6 if dtype == torch.float32 else 2**-8  # a result in bf16 is rounded once
    for p, g, rate, got in zip(params, grads, rates, cuda.inner_update(params, grads, rates), strict=True):
        exact = (0 if p is None else p.double()) - rate * g.double()
        assert got.dtype == dtype and got.shape == g.shape
        torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=1e-6)


@needs_extension
def test_inner_update_of_all_tasks_is_one_launch(emulated, monkeypatch):
    """Under torch.func, with a derivative of the update itself; bfloat16, since the CPU's kernel takes the rest."""
    launches = []
    run = cuda.inner_update
    monkeypatch.setattr(cuda, "inner_update", lambda *a: launches.append(len(a[0])) or run(*a))
    p, q = torch.rand(5, 7).bfloat16(), torch.rand(5, 3, 2).bfloat16()

    def loss(p, q):
        new = InnerUpdate.apply(p, q, p, q, 0.5, 0.25)
        return new[0].sum() + new[1].sum()

    for got, slope in zip(vmap(torch.func.grad(loss, (0, 1)))(p, q), (0.5, 0.75), strict=True):
        assert_close(got, torch.full_like(got, slope, dtype=torch.float64), "masked_conv2d")
    assert launches[0] == 2
