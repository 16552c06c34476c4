"""The choice is off in all other tests. Here it is on, with an empty cache of its own and nothing seen yet."""

from __future__ import annotations

import pytest

from sparsemeta import backends
from sparsemeta.backends import tune_route, tune_store


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEMETA_CACHE", str(tmp_path))
    monkeypatch.setattr(tune_route, "_process", tune_route._Process("on"))
    tune_store.store.cache_clear()
    yield tmp_path
    tune_store.store.cache_clear()


@pytest.fixture
def scripted(monkeypatch):
    """Each route takes the seconds that the test says, whatever it is for; returns the keys that were measured."""
    measured = []

    def script(**seconds: float) -> list[tune_store.Key]:
        monkeypatch.setattr(tune_route, "candidates", lambda key, conv: measured.append(key))
        monkeypatch.setattr(tune_route, "measure", lambda candidates: dict(seconds))
        return measured

    return script


@pytest.fixture
def taken(monkeypatch):
    """Routes taken since then, as `(kernel, route)`."""
    calls = []

    def spy(module, name: str, told) -> None:
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: calls.append((name, told(given))) or kernel(*given))

    for name in tune_store.KERNELS.values():
        spy(backends.cpu, name, lambda given: "cpu")
        spy(backends.choice.choice_dense, name, lambda given: given[-1])
    return calls
