"""The light search end to end on toy tasks: sparse, resumable, and what it hands over."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from few_shot_toys import QUERIES, SHOTS, WAYS, NoisyClasses, conv_net

from sparsemeta.meta import CheckpointError, TrainConfig
from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.nn import SparseConv2d, sparsify
from sparsemeta.pruning import MetaRun, find_ticket, sample_flops
from sparsemeta.pruning.mwt_carry import densified, first_order
from sparsemeta.ticket import Ticket

CONFIG = TrainConfig(WAYS, SHOTS, QUERIES, inner_steps=1, inner_lr=0.1, meta_batch=2, meta_lr=1e-2, steps=40)
OPTIONS = {"every": 2, "checks": 2, "cap": 8, "inter": 0.05, "intra": 0.3, "progress": False, "rewind": 2}


def meta_run(**changes) -> MetaRun:
    return MetaRun(NoisyClasses(), TrainConfig(**{**vars(CONFIG), **changes}))


class Recording(MetaRun):
    """A run that remembers what it trained."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen, self.networks = [], []

    def run(self, model, steps, start=None, checkpoint=None, progress=False):
        conv = model[3]
        sparse = conv.pattern.sparsity if isinstance(conv, SparseConv2d) else None
        self.networks.append((model, id(conv.pattern) if sparse else None))
        self.seen.append((start.step if start else 0, steps, sparse, self.config.first_order))
        return super().run(model, steps, start, checkpoint, progress)


def test_the_search_ends_at_the_target_and_runs_sparse_and_first_order():
    model, run = conv_net(), Recording(NoisyClasses(), CONFIG)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = find_ticket("mwt", model, run=run, **OPTIONS)
    total = sum(pattern.numel for pattern in found.ticket.values())
    assert found.ticket.nnz == total - round(0.8 * total)
    assert all(mask.flatten(1).any(1).all() for mask in found.ticket.masks().values())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    first, *light = run.seen
    assert first == (0, 2, None, False) and all(run[3] for run in light)
    ends = [check for check in found.trace if check["over"]]
    assert [check["level"] for check in ends] == [1, 2, 3, 4, 5, 6, 7]
    dense = sum(check["level"] == 1 for check in found.trace)
    assert [sparse is None for _, _, sparse, _ in light] == [True] * dense + [False] * (len(light) - dense)
    assert all(a[1] == b[0] for a, b in zip(light, light[1:], strict=False))  # goes on where it was: no rewinding


def test_the_search_can_keep_the_runs_order():
    run = Recording(NoisyClasses(), CONFIG)
    find_ticket("mwt", conv_net(), run=run, sparsity=0.36, light_order=2, **OPTIONS)
    assert not any(first_order for *_, first_order in run.seen)
    with pytest.raises(ValueError, match="light_order, .* got 3"):
        find_ticket("mwt", conv_net(), run=run, light_order=3, **OPTIONS)


def test_levels_shrink_inside_each_other_and_the_trace_explains_them():
    found = find_ticket("mwt", conv_net(), run=meta_run(), sparsity=0.5, **OPTIONS)
    for check in found.trace:
        layers = check["fractions"].values()
        assert check["over"] == ("stable" if check["calm"] == 2 else "cap" if check["level_steps"] == 8 else "")
        assert (check["inter"] is None) == (check["level_steps"] == 2) and all(0 < rho <= 1 for rho in layers)
    sparsities = [check["sparsity"] for check in found.trace if check["over"]]
    assert sparsities == sorted(sparsities) and sparsities[0] == pytest.approx(0.2, abs=0.01)
    assert found.ticket.provenance["method"] == "mwt" and found.ticket.provenance["cost"]["flops"] == found.cost.flops


def test_the_cost_is_counted_sparse():
    run, model = meta_run(), conv_net()
    found = find_ticket("mwt", model, run=run, **OPTIONS)
    light, _ = first_order(run, found.rewind)
    steps = sum(a["step"] - b["step"] for a, b in zip(found.trace, [{"step": 2}, *found.trace], strict=False))
    dense = sample_flops(model, None, (1, 8, 8))
    assert steps == found.trace[-1]["step"] - 2 and light.passes < run.passes
    assert found.cost.flops < dense * (2 * run.passes + steps * light.passes)
    last = sample_flops(model, Ticket.magnitude(model, found.trace[-1]["trained_sparsity"]), (1, 8, 8))
    assert found.trace[-1]["flops"] < 0.6 * dense * light.passes * 2 and last < dense and found.cost.seconds > 0


class Interrupted(Exception):
    pass


class Stopping(MetaRun):
    """A run that stops at one of its trainings."""

    def run(self, *args, **kwargs):
        next(self.calls)
        return super().run(*args, **kwargs)


def countdown(calls: int):
    yield from range(calls - 1)
    raise Interrupted


@pytest.mark.parametrize("calls", [1, 2, 4, 7])
def test_a_resumed_search_finds_the_same_ticket(tmp_path, calls):
    options = {**OPTIONS, "sparsity": 0.5}
    expected = find_ticket("mwt", conv_net(), run=meta_run(), **options)
    run = Stopping(NoisyClasses(), CONFIG)
    run.calls = countdown(calls)
    with pytest.raises(Interrupted):
        find_ticket("mwt", conv_net(), run=run, state=tmp_path / "s", **options)
    found = find_ticket("mwt", conv_net(), run=meta_run(), state=tmp_path / "s", resume=True, **options)
    assert found.ticket == expected.ticket and len(found.trace) == len(expected.trace)
    assert found.cost.flops == expected.cost.flops
    assert [check["loss"] for check in found.trace] == [check["loss"] for check in expected.trace]
    with pytest.raises(CheckpointError, match="got other .*detector"):
        other = {**options, "checks": 3}
        find_ticket("mwt", conv_net(), run=meta_run(), state=tmp_path / "s", resume=True, **other)


def test_a_search_that_is_interrupted_after_each_check_is_the_same_bit_for_bit(tmp_path):
    options = {**OPTIONS, "sparsity": 0.5}
    expected = find_ticket("mwt", conv_net(), run=meta_run(), state=tmp_path / "whole", **options)
    run, found = Stopping(NoisyClasses(), CONFIG), None
    while found is None:
        run.calls = countdown(3)  # the rewind point, which is there already, and one segment
        with suppress(Interrupted):
            resume = (tmp_path / "s" / "state.json").exists()
            found = find_ticket("mwt", conv_net(), run=run, state=tmp_path / "s", resume=resume, **options)
    last = f"check_{len(expected.trace)}.safetensors"
    states = [load_checkpoint(tmp_path / name / last)["model"] for name in ("s", "whole")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    seconds = dict.fromkeys(("seconds", "processor_seconds", "training_seconds"))
    assert [check | seconds for check in found.trace] == [check | seconds for check in expected.trace]
    assert found.ticket == expected.ticket


def test_a_level_keeps_its_network_and_what_kernels_derived_from_its_patterns():
    run = Recording(NoisyClasses(), CONFIG)
    found = find_ticket("mwt", conv_net(), run=run, sparsity=0.5, **OPTIONS)
    kept = list(dict.fromkeys(run.networks[1:]))  # without that of the rewind point
    assert len(kept) == len({id(network) for network, _ in kept}) == found.trace[-1]["level"] < len(found.trace)


def test_values_and_moments_go_over_to_the_smaller_pattern():
    model, run = conv_net(), meta_run()
    half = Ticket.magnitude(model, 0.5)
    sparse = sparsify(model, half)
    trained = run.run(sparse, 3)
    dense = densified(trained.snapshot, sparse, half)
    less = Ticket.magnitude(dense.dense(conv_net()), 0.8)
    network, start = dense.sparse(conv_net(), less)
    wide = half["3.weight"].expand(sparse[3].values.detach())
    assert torch.equal(network[3].values, less["3.weight"].compress(wide))
    names = [name for name, _ in sparse.named_parameters()]
    at = names.index("3.values")
    moments = trained.snapshot.optimizer["state"][at]["exp_avg"]
    kept = less["3.weight"].compress(half["3.weight"].expand(moments))
    assert torch.equal(start.optimizer["state"][at]["exp_avg"], kept) and kept.abs().sum() > 0
    assert run.run(network, 5, start).snapshot.step == 5  # the optimiser takes them


def test_the_ticket_trains_from_the_rewound_weights():
    model, run = conv_net(), meta_run()
    found = find_ticket("mwt", model, run=run, **OPTIONS)
    early = run.run(early_model := conv_net(), 2)
    sparse, start = found.rewind.sparse(conv_net(), found.ticket)
    assert start.step == early.snapshot.step == 2
    expected = found.ticket["3.weight"].compress(early_model[3].weight.detach())
    assert torch.equal(sparse[3].values, expected)
    assert run.run(sparse, 4, start).snapshot.step == 4


def test_blocks_and_theta_0():
    found = find_ticket("mwt", conv_net(), run=meta_run(), kind="2x2", exclude=["0", "6"],
                        sparsity=0.5, **{**OPTIONS, "rewind": 0})  # fmt: skip
    assert set(found.ticket) == {"3.weight"} and found.ticket["3.weight"].block == (2, 2, 1, 1)
    assert found.rewind.step == 0


def test_misuse_is_named():
    with pytest.raises(ValueError, match="expected a training run"):
        find_ticket("mwt", conv_net())
    with pytest.raises(ValueError, match=r"expected options among .*, got \['steps'\]"):
        find_ticket("mwt", conv_net(), run=meta_run(), progress=False, steps=3)


@pytest.mark.parametrize("method", ["imp", "mwt", "anp", "magnitude"])
@pytest.mark.parametrize(
    ("learner", "learned"),
    [({"algorithm": "meta_sgd"}, "lr"), ({"algorithm": "maml++"}, ""), ({"algorithm": "alfa"}, ""),
     ({"bn_mode": "per_step"}, "norm")],
)  # fmt: skip  a table
def test_a_learner_that_learns_more_than_the_model_is_named_before_training(method, learner, learned, tmp_path):
    with pytest.raises(ValueError, match=rf"which a ticket can rewind; got one that also learns .*{learned}.*bn_mode="):
        find_ticket(method, conv_net(), run=meta_run(**learner), progress=False, rewind=2, state=tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(("method", "options", "steps"), [("mwt", OPTIONS, 2 + 7 * 8), ("anp", {}, 40 + 8 * 40)])
def test_a_search_past_the_end_of_a_cosine_is_named_before_training(method, options, steps, tmp_path):
    with pytest.raises(ValueError, match=rf"at most 40 steps, .* got one of up to {steps}; take schedule="):
        find_ticket(method, conv_net(), run=meta_run(schedule="cosine"), state=tmp_path / "state", **options)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("algorithm", ["fomaml", "reptile"])
def test_a_learner_of_the_model_alone_has_nothing_beside(algorithm):
    assert meta_run(algorithm=algorithm).learned_beside(conv_net()) == []
