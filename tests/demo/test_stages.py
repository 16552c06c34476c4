"""Rewinding: where the ticket starts, and what it is trained on."""

from __future__ import annotations

import pytest
import torch

from sparsemeta.data import glyphs
from sparsemeta.demo import Settings, stages
from sparsemeta.demo.tasks import draw
from sparsemeta.demo.timing import time_meta_steps
from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.nn import densify, sparsify

SETTINGS = Settings.quick(steps=40, meta_batch=1)


@pytest.fixture
def rewound(tmp_path, monkeypatch):
    """(weights as the ticket gets them, the early ones, the ticket, its sampler and its config), nothing trained."""
    demo = stages.Stages(SETTINGS, glyphs(20), tmp_path)
    demo.train_early()
    dense, _ = demo._beginning()
    ticket, seen = demo.draw_ticket(dense), {}

    def record(model, sampler, config, checkpoint):
        seen.update(weights=densify(model).state_dict(), sampler=sampler, config=config)

    monkeypatch.setattr(stages.Stages, "_train", staticmethod(record))
    demo.train_ticket(ticket)
    early = load_checkpoint(tmp_path / "rewind.safetensors")["model"]
    return seen["weights"], early, ticket, seen["sampler"], seen["config"]


def test_ticket_starts_from_the_early_weights(rewound):
    weights, early, ticket, _, _ = rewound
    for name, weight in early.items():
        kept = weight * ticket[name].mask() if name in ticket else weight
        torch.testing.assert_close(weights[name], kept, rtol=0, atol=0)


def test_ticket_goes_on_with_the_tasks_that_dense_saw_then(rewound):
    _, _, _, sampler, config = rewound
    assert config.steps == SETTINGS.steps - SETTINGS.rewind == 38
    dense = draw(glyphs(20), SETTINGS.config())
    dense.sample(SETTINGS.rewind * SETTINGS.meta_batch)
    assert torch.equal(sampler.sample(2).query_x, dense.sample(2).query_x)


def test_head_stays_dense(rewound):
    assert set(rewound[2]) == {f"features.{i}.conv.weight" for i in range(4)}


def test_timing_leaves_the_models_as_they_were(tmp_path):
    demo = stages.Stages(SETTINGS, glyphs(20), tmp_path)
    dense, sampler = demo._beginning()
    sparse = sparsify(dense, demo.draw_ticket(dense))
    before = [p.clone() for model in (dense, sparse) for p in model.parameters()]
    time_meta_steps(dense, sparse, sampler, SETTINGS, range(5))
    after = [p for model in (dense, sparse) for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
