"""What a search leaves beside its ticket: figures as JSON, and plots."""

from __future__ import annotations

import json
from pathlib import Path

from ..files import write_atomically
from .mwt_detection import Detector
from .search import Found


def save_found(found: Found, path: str | Path) -> list[Path]:
    """Write the ticket file `path`, and beside it its figures and plots; each is whole or not at all.

    `<name>.json` has cost, provenance, kept weights by layer, and the trace; `<name>.kept.svg` how much each layer
    keeps; `<name>.masks.svg` which weights; `<name>.trace.svg` the search, where it has more than one record.

    Returns:
        The files written.
    """
    from . import plots  # here, so that a search does not wait for matplotlib

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    found.ticket.save(path)
    contents = {"json": figures(found), "kept.svg": plots.kept(found.ticket), "masks.svg": plots.masks(found.ticket)}
    if len(found.trace) > 1:
        contents["trace.svg"] = _trace_plot(found)
    stem = path.name.removesuffix(".safetensors")
    beside = {path.with_name(f"{stem}.{suffix}"): text for suffix, text in contents.items()}
    for file, text in beside.items():
        write_atomically(file, text.encode())
    return [path, *beside]


def _trace_plot(found: Found) -> str:
    from . import mwt_plots, plots  # as above

    facts = found.ticket.provenance
    if facts.get("method") != "mwt":
        return plots.trace(found.trace)
    return mwt_plots.search_trace(found.trace, facts.get("inter", Detector.inter), facts.get("intra", Detector.intra))


def figures(found: Found) -> str:
    """A found ticket's figures as JSON text."""
    ticket = found.ticket
    layers = {name: {"kept": p.nnz, "numel": p.numel, "block": p.block} for name, p in ticket.items()}
    whole = {"kept": ticket.nnz, "numel": ticket.numel, "sparsity": ticket.sparsity, "cost": vars(found.cost)}
    whole |= {"provenance": ticket.provenance, "layers": layers, "trace": list(found.trace)}
    return json.dumps(whole, indent=1)
