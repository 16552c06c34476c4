"""Meta winning tickets: their accuracy against controls, and what the light search costs beside the standard one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparsemeta.bench.experiments.results import Results
from sparsemeta.bench.experiments.setting import Setting
from sparsemeta.bench.experiments.table import accuracies, markdown, ratios
from torch import nn

import sparsemeta as sm
from sparsemeta.pruning import Found, Snapshot

ARMS = ("dense", "mwt", "imp", "shuffled", "reinitialised")


def run(setting: Setting, folder: Path, seed: int, results: Results) -> None:
    """Both searches, and the training of what they found and of the controls; what `results` has is not done again."""
    light = setting.find("mwt", seed, folder / "mwt")
    standard = setting.find("imp", seed, folder / "imp")
    results.set("search", {"mwt": vars(light.cost), "imp": vars(standard.cost), **overlaps(light, standard)})
    for arm, begin in arms(setting, seed, light, standard).items():
        results.once(arm, lambda arm=arm, begin=begin: trained(setting, seed, begin, checkpoint(folder, arm)))


def arms(setting: Setting, seed: int, light: Found, standard: Found) -> dict[str, Callable]:
    """How each network begins: the network, and the state of the run to go on from (None: its beginning)."""

    def reinitialised() -> tuple[nn.Module, Snapshot | None]:
        other = sm.pruning.reinitialise(setting.model(seed), seed + 1000)
        return Snapshot(0, other.state_dict()).sparse(setting.model(seed), light.ticket)

    shuffled = sm.pruning.shuffle(light.ticket, seed)
    return {
        "dense": lambda: (setting.model(seed), None),
        "mwt": lambda: light.rewind.sparse(setting.model(seed), light.ticket),
        "imp": lambda: standard.rewind.sparse(setting.model(seed), standard.ticket),
        "shuffled": lambda: light.rewind.sparse(setting.model(seed), shuffled),
        "reinitialised": reinitialised,
    }


def trained(setting: Setting, seed: int, begin: Callable, file: Path) -> dict[str, float]:
    """Train to the end of the run, and judge."""
    model, start = begin()
    run = setting.run(seed)
    run.run(model, run.steps, start, file, progress=True)
    return setting.judge(model, seed)


def checkpoint(folder: Path, arm: str) -> Path:
    """Of an arm's training. The standard search's first round is the dense network's."""
    return folder / "imp" / "round_1.safetensors" if arm == "dense" else folder / f"{arm}.safetensors"


def overlaps(light: Found, standard: Found) -> dict[str, float]:
    """Share of the light search's mask that the standard one keeps too, and what a shuffled mask would have."""
    shuffled = sm.pruning.shuffle(light.ticket, 0)
    return {
        "overlap": sm.pruning.overlap(light.ticket, standard.ticket).shared,
        "overlap_shuffled": sm.pruning.overlap(shuffled, standard.ticket).shared,
        "kept": 1 - light.ticket.sparsity,
    }


def tables(seeds: dict[int, Results]) -> str:
    """Accuracies, and costs, as Markdown."""
    searches = [results["search"] for results in seeds.values() if "search" in results]
    costs = [
        (what, *(f"{sum(s[m][key] for s in searches) / len(searches):.4g}" for m in ("mwt", "imp")),
         ratios([s["mwt"][key] / s["imp"][key] for s in searches]))
        for what, key in (("FLOPs", "flops"), ("processor seconds", "processor_seconds"))
    ]  # fmt: skip
    shared = [(ratios([s["overlap"] for s in searches]), ratios([s["overlap_shuffled"] for s in searches]))]
    return "\n\n".join([
        accuracies(ARMS, seeds), markdown(("search cost", "MWT", "IMP", "MWT / IMP"), costs),
        markdown(("MWT's mask also in IMP's", "shuffled inside layers"), shared),
    ])  # fmt: skip
