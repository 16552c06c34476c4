"""Adaptation-aware pruning: accuracy after every round, against the same rounds by other importances."""

from __future__ import annotations

from pathlib import Path

from sparsemeta.bench.experiments.results import Results
from sparsemeta.bench.experiments.setting import Setting
from sparsemeta.bench.experiments.table import markdown, mean_accuracy
from torch import nn

import sparsemeta as sm
from sparsemeta.pruning import RewindStore
from sparsemeta.pruning.anp_round import IMPORTANCES

MINUS, TIMES = "ANP minus", 5  # after the last round, task by task; on so many times the test tasks
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
    results.once(MINUS, lambda: differences(setting, seed, folder, len(found.trace)))
    results.once(LONGER, lambda: trained_on(setting, seed, folder, found.rewind.step))


def share_dense(first: Path, state: Path) -> None:
    """The network before the first round is the same for all importances: a search that begins finds it trained."""
    source, target = first / "round_0.safetensors", state / "round_0.safetensors"
    if source.exists() and not target.exists():
        state.mkdir(parents=True, exist_ok=True)
        sm.files.write_atomically(target, source.read_bytes())


def judged(setting: Setting, seed: int, state: Path, number: int) -> dict[str, float]:
    """Accuracy of the network at the end of a round."""
    network, sparsity = network_after(setting, seed, state, number)
    return {**setting.judge(network, seed), "sparsity": sparsity}


def network_after(setting: Setting, seed: int, state: Path, number: int) -> tuple[nn.Module, float]:
    """The network at the end of a round, and its sparsity; 0 is the dense one."""
    model = setting.model(seed)
    if number == 0:
        model.load_state_dict(sm.meta.checkpoint.load_checkpoint(state / "round_0.safetensors")["model"])
        return model, 0.0
    ticket = sm.Ticket.load(state / f"ticket_{number}.safetensors")
    return RewindStore(state).load(f"round_{number}").sparse(model, ticket)[0], ticket.sparsity


def differences(setting: Setting, seed: int, folder: Path, number: int) -> dict[str, dict[str, float]]:
    """What ANP's accuracy after a round is above the dense network's and those of the other importances."""
    ours, dense, *others = (
        setting.evaluation(network_after(setting, seed, folder / name, n)[0], seed, TIMES)
        for name, n in ((IMPORTANCES[0], number), (IMPORTANCES[0], 0), *((name, number) for name in IMPORTANCES[1:]))
    )
    pairs = zip(("dense", *IMPORTANCES[1:]), (dense, *others), strict=True)
    return {name: dict(zip(("accuracy", "interval"), ours.minus(other), strict=True)) for name, other in pairs}


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
    found = {seed: r[MINUS] for seed, r in seeds.items() if MINUS in r}
    minus = (mean_accuracy(name, found) for name in ("dense", *IMPORTANCES[1:]))
    header = "unadapted surgeon", "layer-wise magnitude"
    return "\n\n".join((
        markdown(("pruned", "ANP", *header), rows),
        markdown((f"{MINUS}, task by task", "dense", *header), [(f"{sparsity:.1%}", *minus)]),
    ))  # fmt: skip  a table a line
