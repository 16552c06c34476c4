"""Adaptation-aware pruning: accuracy after every round, against the same rounds by other importances."""

from __future__ import annotations

from pathlib import Path

from sparsemeta.bench.experiments.results import Results
from sparsemeta.bench.experiments.setting import Setting
from sparsemeta.bench.experiments.table import markdown, mean_accuracy

import sparsemeta as sm
from sparsemeta.pruning import RewindStore
from sparsemeta.pruning.anp_round import IMPORTANCES

LONGER = "dense, trained on"  # for as many steps as the pruned networks: what more training alone would give


def run(setting: Setting, folder: Path, seed: int, results: Results) -> None:
    """All rounds by each importance, from one dense network; what `results` has is not done again."""
    for importance in IMPORTANCES:
        state = folder / importance
        share_dense(folder / IMPORTANCES[0], state)
        found = setting.find("anp", seed, state, importance=importance)
        results.set(f"{importance} cost", vars(found.cost))
        results.once("dense", lambda state=state: judged(setting, seed, state, 0))
        for number in range(1, len(found.trace) + 1):
            results.once(f"{importance} {number}", lambda n=number, state=state: judged(setting, seed, state, n))
    results.once(LONGER, lambda: trained_on(setting, seed, folder, found.rewind.step))


def share_dense(first: Path, state: Path) -> None:
    """The network before the first round is the same for all importances: a search that begins finds it trained."""
    source, target = first / "round_0.safetensors", state / "round_0.safetensors"
    if source.exists() and not target.exists():
        state.mkdir(parents=True, exist_ok=True)
        sm.files.write_atomically(target, source.read_bytes())


def judged(setting: Setting, seed: int, state: Path, number: int) -> dict[str, float]:
    """Accuracy of the network at the end of a round; 0 is the dense one."""
    model = setting.model(seed)
    if number == 0:
        model.load_state_dict(sm.meta.checkpoint.load_checkpoint(state / "round_0.safetensors")["model"])
        return {**setting.judge(model, seed), "sparsity": 0.0}
    ticket = sm.Ticket.load(state / f"ticket_{number}.safetensors")
    network, _ = RewindStore(state).load(f"round_{number}").sparse(model, ticket)
    return {**setting.judge(network, seed), "sparsity": ticket.sparsity}


def trained_on(setting: Setting, seed: int, folder: Path, steps: int) -> dict[str, float]:
    """Accuracy of the dense network after as many steps as the pruned ones."""
    share_dense(folder / IMPORTANCES[0], folder / "dense")
    model = setting.model(seed)
    setting.run(seed).run(model, steps, None, folder / "dense" / "round_0.safetensors", progress=True)
    return {**setting.judge(model, seed), "sparsity": 0.0}


def tables(seeds: dict[int, Results]) -> str:
    """Accuracy by round and importance, as Markdown."""
    rounds = sorted({int(name.split()[1]) for r in seeds.values() for name in r if name.split()[-1].isdigit()})
    rows = [(name, *[mean_accuracy(name, seeds)] * len(IMPORTANCES)) for name in ("dense", LONGER)]
    for number in rounds:
        sparsity = next(r[f"adapted {number}"]["sparsity"] for r in seeds.values() if f"adapted {number}" in r)
        rows.append((f"{sparsity:.1%}", *(mean_accuracy(f"{name} {number}", seeds) for name in IMPORTANCES)))
    return markdown(("pruned", "ANP", "unadapted surgeon", "layer-wise magnitude"), rows)
