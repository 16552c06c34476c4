"""What an elastic ticket has to beat: the controls of E-LTH (Chen et al., NeurIPS 2021)."""

from __future__ import annotations

import copy

from torch import nn

from ..ticket import Ticket
from .algebra import reinitialise, shuffle
from .distributions import ticket_from_scores
from .probe import Probe
from .scores import SCORES

SCORED = ("snip", "grasp", "magnitude")
CONTROLS = ("reinitialised", "random", *SCORED)


def control(
    name: str, model: nn.Module, ticket: Ticket, probe: Probe | None = None, seed: int = 0
) -> tuple[nn.Module, Ticket]:
    """A dense model and a ticket to train as the elastic ones are trained.

    - `"reinitialised"`: the ticket on weights drawn anew.
    - `"random"`: as many weights of each layer, anywhere, on the weights there are.
    - `"snip"`, `"grasp"`, `"magnitude"`: one-shot tickets of those weights, of the same sparsity over the same layers.

    Args:
        name: one of `CONTROLS`.
        model: dense, with the stretched or squeezed weights; stays as it is.
        ticket: the stretched or squeezed ticket.
        probe: data, for `"snip"` and `"grasp"`.
        seed: of what is random.

    Raises:
        ValueError: an unknown name, or no probe where one is needed.
    """
    if name == "reinitialised":
        return reinitialise(model, seed), ticket
    if name == "random":
        return copy.deepcopy(model), shuffle(ticket, seed)
    if name not in SCORED:
        raise ValueError(f"expected a control, one of {', '.join(CONTROLS)}, got {name!r}")
    scores = {weight: s for weight, s in SCORES[name](model, probe).items() if weight in ticket}
    provenance = {"method": name, "control_of": ticket.provenance}
    return copy.deepcopy(model), ticket_from_scores(scores, sparsity=ticket.sparsity, provenance=provenance)
