"""Adaptation-aware network pruning: rounds of the surgeon on adapted networks and of meta-training."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ..ticket import Ticket
from .anp_plan import Plan
from .anp_round import prune_layers_
from .cost import PASSES, Cost, sample_flops, stopwatch
from .imp import check_beginning, check_length, check_search, identity
from .imp_state import ImpState
from .kinds import Kind
from .mwt_carry import densified
from .probe import Probe
from .rewind import Snapshot
from .search import Found, Search, method
from .training import MetaRun, Trained
from .weights import prunable_layers


@method("anp")
def anp(model: nn.Module, search: Search) -> Found:
    """Adaptation-aware network pruning (Gao et al., CIKM 2021; the loop is that of the authors' code).

    Meta-train, then rounds: every layer loses a tenth of its weights (the last round what is left, a twentieth at
    85 %) by the layer-wise surgeon in the network *after* adaptation, taking d theta' / d theta as the identity; then
    meta-train on with the masks, in sparse layers. There is no rewinding: `Found.rewind` is the end of the last
    round, from which the ticket may go on. Any algorithm of `TrainConfig` will do.

    Every layer is pruned alike, unstructured, whatever `search.distribution` and `search.keep_one` say.

    Options: those of `Operation`; `pretrain`, meta-steps before the first round (the run's; 0 where the model is
    trained already); `retrain`, meta-steps of a round, or a list with those of each (the run's; 15,000 in the paper);
    `fraction` of a round, 0.1.

    Its trace has a record for each round; its state folder has `round_<k>`, the dense snapshot at its end.
    """
    check_search(model, search)
    if not isinstance(search.run, MetaRun) or search.sparsity is None or not Kind.parse(search.kind).unstructured:
        raise ValueError(
            f"expected a MetaRun, one sparsity for all layers and kind='unstructured' for anp; got "
            f"{type(search.run).__name__}, {search.sparsity!r} and {search.kind!r}"
        )
    plan = Plan.of(search)
    check_length(search, plan.steps)
    with tempfile.TemporaryDirectory() as temporary:
        state = ImpState(search.state or Path(temporary))
        state.open({"anp": vars(plan) | {"operation": vars(plan.operation)}, **identity(search)}, search.resume)
        check_beginning(model, state)
        return Rounds(model, search, plan, state).found()


class Rounds:
    """The rounds of one search, with its state folder. A round counts once its record stands there."""

    def __init__(self, model: nn.Module, search: Search, plan: Plan, state: ImpState):
        self.model, self.search, self.plan, self.state = model, search, plan, state
        self.run: Any = search.run
        self.probing = replace(self.run.config, first_order=True)  # the network is wanted, not how it got there

    def found(self) -> Found:
        """Prune, or go on with it, to the end."""
        snapshot, cost = self._pretrained()
        for number in range(1, len(self.plan.fractions) + 1):
            if number > len(self.state.records):
                self._round(number, snapshot if number == 1 else self.state.store.load(f"round_{number - 1}"))
        cost = sum(map(Cost.of, self.state.records), cost)
        return Found(self.state.ticket(number), cost, self.state.records, self.state.store.load(f"round_{number}"))

    def _pretrained(self) -> tuple[Snapshot, Cost]:
        steps, zero = self.plan.pretrain, Snapshot(0, copy.deepcopy(self.model.state_dict()))
        self.state.store.save("theta_0", zero)
        if not steps:
            return zero, Cost()
        checkpoint = self.state.training("round_0")  # when it is there whole, nothing is trained again
        trained = self.run.run(copy.deepcopy(self.model), steps, None, checkpoint, self.search.progress)
        return trained.snapshot, Cost(self._flops(None, steps * self.run.passes)) + trained.cost

    def _round(self, number: int, start: Snapshot) -> None:
        """Prune every layer of the dense state `start`, and meta-train on with what stays."""
        elapsed = stopwatch()
        before = self.state.ticket(number - 1) if number > 1 else None
        ticket, pruned = self._pruned(before, start, self.plan.fractions[number - 1])
        surgery = elapsed()
        steps = self.plan.retrain[number - 1]
        trained, network = self._retrained(ticket, pruned, steps, self.state.training(f"retrain_{number}"))
        self.state.store.save(f"round_{number}", densified(trained.snapshot, network, ticket))
        flops = self._flops(before, self._surgery_passes()) + self._flops(ticket, steps * self.run.passes)
        self.state.add(ticket, {
            "round": number, "step": trained.snapshot.step, "sparsity": ticket.sparsity, "kept": ticket.kept,
            "loss": trained.loss, "accuracy": trained.accuracy, "pruning_seconds": surgery.seconds,
            "training_seconds": trained.cost.seconds, **vars(Cost(flops) + surgery + trained.cost),
        })  # fmt: skip
        self.state.training(f"retrain_{number}").unlink(missing_ok=True)
        announce(self.state.records[-1], self.search.progress)

    def _pruned(self, before: Ticket | None, start: Snapshot, fraction: float) -> tuple[Ticket, Snapshot]:
        """The next ticket, and the dense state after surgery."""
        model = start.dense(copy.deepcopy(self.model))
        layers = prunable_layers(model, self.search.exclude)
        weights = {name: layer.weight for name, layer in layers.items()}
        masks = {n: before[n].mask(w.device) if before else torch.ones_like(w, dtype=bool) for n, w in weights.items()}
        counts = {name: int(round(fraction * mask.numel(), 6)) for name, mask in masks.items()}
        with self.run.sampling(start) as sampler:
            operation = self.plan.operation
            masks = prune_layers_(
                model, masks, counts, lambda: Probe.meta(sampler.sample(operation.tasks), self.probing), operation
            )
        return Ticket.from_masks(masks), replace(start, model=model.state_dict())

    def _retrained(self, ticket: Ticket, pruned: Snapshot, steps: int, checkpoint: Path) -> tuple[Trained, nn.Module]:
        network, start = pruned.sparse(copy.deepcopy(self.model), ticket)
        return self.run.run(network, start.step + steps, start, checkpoint, self.search.progress), network

    def _surgery_passes(self) -> int:
        """Forward passes of one sample that what the surgeon runs in a round amounts to."""
        operation, config = self.plan.operation, self.probing
        steps = {"adapted": config.inner_steps, "unadapted": 0}.get(operation.importance)
        layers = len(prunable_layers(self.model, self.search.exclude))
        passes = config.shots * (PASSES * (steps or 0) + 1) + operation.fisher * config.queries * PASSES
        return 0 if steps is None else layers * operation.tasks * config.ways * passes

    def _flops(self, ticket: Ticket | None, passes: int) -> float:
        return passes * sample_flops(self.model, ticket, self.run.input_size)


def announce(record: Mapping[str, Any], progress: bool) -> None:
    """One line for a round."""
    if progress:
        kept = f"{1 - record['sparsity']:.1%} kept"
        accuracy = f"{record['accuracy']:.2f} % accuracy on training tasks"
        Console().print(f"round {record['round']}: {kept}, {accuracy}", soft_wrap=True)
