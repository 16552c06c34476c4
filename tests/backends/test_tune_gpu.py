"""The choice on a GPU: everything but the GPU, which CPU tensors stand for here, and its clock."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

import sparsemeta as sm
from sparsemeta import backends
from sparsemeta.backends import choice, cuda, triton, tune_gpu, tune_key, tune_measure, tune_route, tune_store
from sparsemeta.cli import app
from sparsemeta.ops.conv import Conv

PATTERN = sm.Pattern.from_mask(torch.arange(4 * 3 * 9).view(4, 3, 3, 3) % 4 == 0)
SLOW = {"as_is": 1.0, "contiguous": 1.0, "channels_last": 1.0, "cuda": 2.0, "triton 0": 2.0, "triton 1": 2.0}


def convolve(x: torch.Tensor | None = None, backend: str | None = None) -> torch.Tensor:
    x = torch.ones(2, 3, 5, 5) if x is None else x
    return sm.masked_conv2d(x, torch.ones(PATTERN.nnz), PATTERN, padding=1, backend=backend)


@pytest.fixture
def gpu(monkeypatch) -> list[tuple[str, str, int | str | None]]:
    """CPU tensors are on an "H200" now; returns the sparse kernels taken since: backend, kernel, way."""
    taken = []
    for module in (tune_key, tune_route, choice):
        monkeypatch.setattr(module, "gpu_of", lambda t: "H200")
    monkeypatch.setattr(backends.cpu, "reasons", lambda *tensors: ["it needs CPU tensors"])
    for backend in (cuda, triton):
        for kernel in tune_store.KERNELS.values():
            monkeypatch.setattr(backend, kernel, stand_in(backend.__name__.rpartition(".")[2], kernel, taken))
    return taken


def stand_in(backend: str, kernel: str, taken: list):
    dense = getattr(choice.choice_dense, kernel)

    def run(*operands):
        way = operands[-1] if isinstance(operands[-1], (int, str)) else None
        taken.append((backend, kernel, way))
        return dense(*(operands[:-1] if way is not None else operands), "as_is")

    return run


@pytest.fixture
def scripted(monkeypatch, gpu):
    """Each route takes the seconds that the test says; returns the keys that were measured."""
    measured = []

    def script(**seconds: float):
        def times(key, conv, device):
            measured.append(key)
            return {**SLOW, **{name.replace("_", " "): taken for name, taken in seconds.items()}}

        monkeypatch.setattr(tune_gpu, "times", times)
        return measured

    return script


def test_what_has_not_been_measured_is_dense(gpu):
    assert backends.select("auto", torch.ones(1)) == "dense"
    convolve()
    assert not gpu


def test_the_fastest_is_taken_and_torch_stays_as_it_is(scripted, gpu):
    measured = scripted(triton_1=0.5)
    [(key, times)] = backends.tune(convolve).items()
    assert (key.gpu, key.layout, key.threads) == ("H200", "", 0) and times["triton 1"] == 0.5
    assert backends.select(None, torch.ones(1)) == "auto"
    gpu.clear()
    convolve()
    assert gpu == [("triton", "masked_conv2d", 1)]
    convolve(torch.ones(7, 3, 5, 5))  # another shape: not measured, dense
    assert len(gpu) == len(measured) == 1


@pytest.mark.parametrize(("seconds", "taken"), [(1.1, False), (0.97, False), (0.9, True)])
def test_never_one_that_is_slower_than_dense_or_hardly_faster(scripted, gpu, seconds, taken):
    scripted(cuda=seconds)
    backends.tune(convolve)
    gpu.clear()
    convolve()
    assert gpu == [("cuda", "masked_conv2d", None)] * taken
    assert backends.select("auto", torch.ones(1)) == ("auto" if taken else "dense")


def test_each_pass_has_a_choice_of_its_own_and_derivatives_are_right(monkeypatch, gpu):
    fastest = {"forward": "triton 0", "weight gradient": "as_is", "input gradient": "cuda"}
    monkeypatch.setattr(tune_gpu, "times", lambda key, *_: {**SLOW, fastest[key.operation]: 0.1})
    x, values = torch.randn(2, 3, 5, 5, requires_grad=True), torch.randn(PATTERN.nnz, requires_grad=True)

    def gradients(function):
        return torch.autograd.grad(function().sin().sum(), (x, values))

    def run():
        return gradients(lambda: sm.masked_conv2d(x, values, PATTERN, padding=1))

    backends.tune(run)
    gpu.clear()
    expected = gradients(lambda: F.conv2d(x, PATTERN.expand(values), padding=1))
    torch.testing.assert_close(run(), expected)
    assert gpu == [("triton", "masked_conv2d", 0), ("cuda", "masked_conv2d_input_grad", None)]


@pytest.mark.parametrize(("reasons", "way"), [([], "generated"), (["too many weights"], None)])
def test_code_made_for_a_pattern_is_a_route_and_the_table_stands_in_where_it_cannot_run(
    scripted, monkeypatch, gpu, reasons, way
):
    found = []
    monkeypatch.setattr(cuda, "generated_reasons", lambda conv, device: found)
    scripted(cuda_generated=0.1)
    backends.tune(convolve)
    gpu.clear()
    found += reasons
    convolve()
    assert gpu == [("cuda", "masked_conv2d", way)]


def test_nothing_is_measured_while_a_graph_is_captured(scripted, monkeypatch):
    measured = scripted(cuda=0.1)
    monkeypatch.setattr(tune_route, "capturing", lambda: True)
    backends.tune(convolve)
    assert not measured


def test_nothing_is_measured_unasked(scripted):
    measured = scripted(cuda=0.1)
    for _ in range(tune_route.SIGHTINGS + 5):
        convolve()
    assert not measured


def test_layouts_and_devices_are_measured_for_themselves_and_outlive_the_process(scripted, monkeypatch):
    measured = scripted(cuda=0.1)
    x = torch.ones(2, 3, 5, 5)
    backends.tune(convolve)
    backends.tune(lambda: convolve(x.contiguous(memory_format=torch.channels_last)))
    for module in (tune_key, tune_route, choice):
        monkeypatch.setattr(module, "gpu_of", lambda t: "A100")
    backends.tune(convolve)
    assert [(key.gpu, key.layout) for key in measured] == [("H200", ""), ("H200", "channels_last"), ("A100", "")]
    tune_store.store.cache_clear()  # as in the next process
    assert tune_store.store().choices == {key: "cuda" for key in measured}
    assert tune_store.store().gains == {"H200", "A100"}


def test_a_named_backend_takes_the_tile_that_was_fastest_though_dense_was_faster_still(scripted):
    scripted(triton_0=3.0, triton_1=2.0)
    [key] = backends.tune(convolve)
    assert tune_store.store().choices[key] == "as_is" and tune_route.triton_tile(key) == 1
    assert tune_route.triton_tile(key._replace(dtype="bfloat16")) == 0
    backends.tuning("off")
    assert tune_route.triton_tile(key) == 0


def test_off_and_autocast_are_dense(scripted, monkeypatch):
    scripted(cuda=0.1)
    backends.tune(convolve)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
        assert backends.select("auto", torch.ones(1)) == "dense"
    backends.tuning("off")
    assert backends.select("auto", torch.ones(1)) == "dense"


def test_norm_act_pool_is_chosen_too(monkeypatch, gpu):
    x = torch.randn(2, 3, 4, 4)
    ones = torch.ones(3), torch.zeros(3)
    seconds = {"as_is": 1.0, "triton": 0.1}
    monkeypatch.setattr(tune_gpu, "times", lambda key, *_: dict(seconds))
    assert choice.norm_act_pool_backend(x, 2, plain=True) == "dense"
    monkeypatch.setattr(triton, "norm_act_pool", lambda *t: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):
        backends.tune(lambda: sm.norm_act_pool(x, *ones, pool=2))
    assert choice.norm_act_pool_backend(x, 2, plain=True) == "triton"
    assert choice.norm_act_pool_backend(x, 1, plain=True) == "dense"
    assert choice.norm_act_pool_backend(x, 2, plain=False) == "dense"


def test_a_tile_that_does_not_run_is_no_candidate_and_dense_has_to_run():
    def broken():
        raise RuntimeError("out of resource: shared memory")

    assert list(tune_gpu.working({"as_is": int, "triton 0": broken, "triton 1": int})) == ["as_is", "triton 1"]
    with pytest.raises(RuntimeError, match="out of resource"):
        tune_gpu.working({"as_is": broken})


def test_times_are_of_one_call_of_many_by_the_devices_clock(monkeypatch):
    now = 0.0

    def lasting(seconds: float):
        def call():
            nonlocal now
            now += seconds

        return call

    monkeypatch.setattr(tune_gpu, "_conv_calls", lambda *_: {"as_is": lasting(2.0), "triton 0": lasting(1.75)})
    monkeypatch.setattr(tune_gpu, "_clock", lambda device: now)
    assert tune_gpu.times(None, PATTERN, torch.device("cpu")) == {"as_is": 2.0, "triton 0": 1.75}


@pytest.mark.parametrize("operation", tune_store.KERNELS)
@pytest.mark.parametrize("layout", ["", "channels_last"])
def test_candidates_are_the_pass_on_operands_of_that_layout(operation, layout):
    conv = Conv.make(PATTERN, 1, 1, 1, 1, "auto")
    key = tune_key.conv_key(operation, (2, 3, 5, 5), conv, torch.ones(2, 3, 5, 5))._replace(layout=layout)
    calls = tune_gpu._conv_calls(key, conv, torch.device("cpu"))  # where neither of the two others runs
    assert list(calls) == ["as_is", "contiguous", "channels_last"]
    first, *others = (call() for call in calls.values())
    for other in others:
        torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-4)
    given = tune_measure.operands(key, conv)[0]
    assert tune_key.channels_last(tune_gpu._placed(given, key, torch.device("cpu"))) == bool(layout)


@pytest.mark.parametrize("operation", tune_store.KERNELS)
def test_both_ways_of_cuda_are_candidates_but_of_a_weight_gradient(operation, monkeypatch):
    monkeypatch.setattr(cuda, "reasons", lambda *tensors: [])
    monkeypatch.setattr(cuda, "generated_reasons", lambda conv, device: [])
    conv = Conv.make(PATTERN, 1, 1, 1, 1, "auto")
    key = tune_key.conv_key(operation, (2, 3, 5, 5), conv, torch.ones(2, 3, 5, 5))
    ways = [name for name in tune_gpu._conv_calls(key, conv, torch.device("cpu")) if name.startswith("cuda")]
    assert ways == (["cuda"] if operation == "weight gradient" else ["cuda", "cuda generated"])


@pytest.mark.extension
def test_the_command_shows_what_is_known_of_every_device_and_needs_one_to_measure(scripted, gpu):
    scripted(triton_1=0.0005)
    backends.tune(lambda: convolve(torch.ones(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)))
    run = CliRunner().invoke
    shown = run(app, ["tune"], catch_exceptions=False).output
    assert "H200" in shown and "channels_last" in shown and "triton 1" in shown and "0.5 ms" in shown
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="expected a GPU for --device cuda; PyTorch finds none"):
            run(app, ["tune", "--device", "cuda"], catch_exceptions=False)
