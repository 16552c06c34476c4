"""A model and its ticket at another depth of the family (E-LTH, Chen et al., NeurIPS 2021)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from ..ticket import Ticket, TicketError
from .elastic import squeeze, stretch
from .units import UnitRule


def transfer(
    source: nn.Module, ticket: Ticket, target: nn.Module, *, mapping: str | None = None, order: str | None = None,
    units: str | UnitRule | None = None,
) -> tuple[nn.Module, Ticket]:
    """Weights of `source` and its ticket, stretched or squeezed to the depth of `target`.

    Args:
        source: dense; holds the weights to start from (theta_r).
        target: dense, of the same family; stays as it is.
        mapping, order, units: as in `stretch` and `squeeze`; None for `order` is the first of either.

    Returns:
        A copy of `target` with every parameter and buffer written, and its ticket.

    Raises:
        TicketError: a tensor of the target that is not written, or of another shape; it is named.
        ValueError: as `stretch`; a target that is deeper in one stage and shallower in another.
    """
    state, wanted = source.state_dict(), target.state_dict()
    rule = UnitRule.of(state, units)
    to, now = list(rule.stages(wanted).values()), list(rule.stages(state).values())
    change = squeeze if sum(to) < sum(now) else stretch
    chosen = {"mapping": mapping, "units": rule} | ({"order": order} if order else {})
    made = change(state, None if mapping else to, **chosen)
    check_written(made, wanted)
    model = copy.deepcopy(target)
    model.load_state_dict(made)
    return model, change(ticket, None if mapping else to, **chosen)


def check_written(made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise `TicketError` unless `made` has every tensor of the target's state dict `wanted`, and no other."""
    problems = [f"{name!r} is not written" for name in wanted if name not in made]
    problems += [f"{name!r} is not in the target" for name in made if name not in wanted]
    problems += [
        f"{name!r} is {tuple(made[name].shape)}, in the target {tuple(tensor.shape)}"
        for name, tensor in wanted.items() if name in made and made[name].shape != tensor.shape
    ]  # fmt: skip  one line for each of its parts
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TicketError(
            f"expected every tensor of the target to be written, got {'; '.join(problems[:5])}{more}; "
            f"use a target of the same family, or another mapping"
        )
