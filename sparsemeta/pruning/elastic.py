"""Elastic tickets: more or fewer of the same blocks, in weights and in masks (E-LTH, Chen et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ..ticket import Ticket
from .elastic_mapping import StageMapping, format_mapping, parse_mapping, squeeze_mapping, stretch_mapping
from .units import Unit, UnitRule

Named = TypeVar("Named", bound=Mapping[str, Any])  # a ticket, or a state dict
Size = int | Sequence[int]


def stretch(
    source: Named, to: Size | None = None, *, mapping: str | None = None, order: str = "append",
    units: str | UnitRule | None = None,
) -> Named:
    """A ticket, or a state dict, for a deeper network of the same family: blocks are repeated.

    Use it on both with the same arguments. Everything that a block has is copied, batch norm's parameters and running
    statistics too; block 0 of each stage and what is in no block are copied one to one. The sparsity is what comes out.

    Args:
        source: a `Ticket`, or tensors by name.
        to: blocks of each stage afterwards; one number for all stages.
        mapping: which becomes which, `"src:dst,dst;..."`, stages joined with `|`, instead of `to` and `order`.
        order: `"append"` (B0 B1 B2 | B1 B2) or `"interpolate"` (B0 B1 B1 B2 B2).
        units: how names tell stage and block, as `UnitRule` takes it; None tries the rules of the package's models.

    Raises:
        ValueError: a rule that matches nothing, a mapping that leaves a target block out or moves block 0.
    """
    return _elastic(source, to, mapping, order, units, "stretch")


def squeeze(
    source: Named, to: Size | None = None, *, mapping: str | None = None, order: str = "consecutive",
    units: str | UnitRule | None = None,
) -> Named:
    """A ticket, or a state dict, for a shallower network of the same family: blocks are dropped. As `stretch`.

    Args:
        order: `"consecutive"` drops the last blocks of a stage, `"interleaved"` one after every few.
    """
    return _elastic(source, to, mapping, order, units, "squeeze")


def _elastic(
    source: Named, to: Size | None, mapping: str | None, order: str, units: str | UnitRule | None, what: str
) -> Named:
    rule = UnitRule.of(source, units)
    sizes, blocks = rule.stages(source), rule.blocks(source)
    stages = dict(zip(sizes, _stages(list(sizes.values()), to, mapping, order, what), strict=True))
    for stage, size in sizes.items():
        _check_stage([blocks[stage, block] for block in range(size)], stages[stage], rule)
    made = {name: source[old] for name, old in _names(source, rule, stages, blocks).items()}
    if not isinstance(source, Ticket):
        return made
    step = {"operation": what, "mapping": format_mapping(list(stages.values())), "units": rule.text}
    return Ticket(made, {**source.provenance, "elastic": [*source.provenance.get("elastic", []), step]})


def _stages(sizes: list[int], to: Size | None, mapping: str | None, order: str, what: str) -> list[StageMapping]:
    """The mapping of each stage."""
    if (to is None) == (mapping is None):
        raise ValueError(f"expected to, the blocks of each stage, or a mapping, got to={to!r} and mapping={mapping!r}")
    given = parse_mapping(mapping) if mapping is not None else [to] if isinstance(to, int) else list(to)
    given = given * len(sizes) if len(given) == 1 else given
    if len(given) != len(sizes):
        raise ValueError(f"expected one entry for all stages or {len(sizes)}, one for each, got {len(given)}")
    if mapping is not None:
        return given
    make = stretch_mapping if what == "stretch" else squeeze_mapping
    return [make(size, target, order) for size, target in zip(sizes, given, strict=True)]


def _check_stage(blocks: Sequence[Sequence[str]], mapping: StageMapping, rule: UnitRule) -> None:
    """`blocks` are the names in each block of the stage."""
    if unknown := sorted(set(mapping.values()) - set(range(len(blocks)))):
        raise ValueError(
            f"expected sources below {len(blocks)}, the blocks of the stage of {blocks[0][0]!r}, got {unknown}; "
            f"correct the mapping"
        )
    if [target for target, block in mapping.items() if block == 0 or target == 0] != [0]:
        raise ValueError(
            f"expected block 0 of the stage of {blocks[0][0]!r} to become block 0 and nothing else, since its shapes "
            f"differ, got {format_mapping([mapping])!r}; begin with 0:0"
        )
    if missing := sorted(set(range(max(mapping))) - mapping.keys()):
        raise ValueError(
            f"expected a source for every target block up to {max(mapping)}, got none for {missing}, so that "
            f"{rule.renamed(blocks[-1][0], missing[0])!r} is not written; add {missing} to the mapping"
        )


def _names(
    source: Mapping[str, Any], rule: UnitRule, stages: Mapping[str, StageMapping], blocks: Mapping[Unit, Sequence[str]]
) -> dict[str, str]:
    """Name in the source of each name in the target: a stage, block by block, where its first block begins."""
    made: dict[str, str] = {}
    for name in source:
        unit = rule.unit(name)
        if unit is None:
            made[name] = name
        elif name == blocks[unit.stage, 0][0]:
            for target, block in stages[unit.stage].items():
                made |= {rule.renamed(n, target): n for n in blocks[unit.stage, block]}
    return made
