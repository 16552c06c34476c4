"""Which block of a network becomes which of a deeper or shallower one, written as in the E-LTH paper or generated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

STRETCH, SQUEEZE = ("append", "interpolate"), ("consecutive", "interleaved")
StageMapping = Mapping[int, int]  # target block: source block
EXAMPLE = "0:0;1:1,2;2:3,4"


def stretch_mapping(source: int, target: int, order: str = "append") -> dict[int, int]:
    """Source block of each target block, in a stage that grows from `source` to `target` blocks.

    Block 0 stays block 0 and is never repeated; as many different blocks as possible are repeated before any is used
    twice more, earlier ones first (E-LTH, NeurIPS 2021; the generator for ratios that are not whole is a
    reconstruction).

    Args:
        order: `"append"`, B0 B1 B2 | B1 B2, or `"interpolate"`, B0 B1 B1 B2 B2.

    Raises:
        ValueError: a stage that does not grow or has no block to repeat, or an unknown order.
    """
    _check_order(order, STRETCH)
    _check_sizes(source, target, "stretch", target >= source)
    repeatable, wanted = source - 1, target - 1
    if wanted and not repeatable:
        raise ValueError(f"expected a block to repeat beside block 0, got a stage of 1 block to stretch to {target}")
    if order == "append":
        return {0: 0} | {i: 1 + (i - 1) % repeatable for i in range(1, target)}
    sources = [j for j in range(1, source) for _ in range(wanted // repeatable + (j <= wanted % repeatable))]
    return {0: 0} | dict(enumerate(sources, start=1))


def squeeze_mapping(source: int, target: int, order: str = "consecutive") -> dict[int, int]:
    """Source block of each target block, in a stage that shrinks from `source` to `target` blocks.

    Early blocks stay, since losing many of them costs most (E-LTH; the generator is a reconstruction).

    Args:
        order: `"consecutive"` keeps the first blocks, `"interleaved"` every (source / target)-th from block 1 on.

    Raises:
        ValueError: a stage that does not shrink, or an unknown order.
    """
    _check_order(order, SQUEEZE)
    _check_sizes(source, target, "squeeze", target <= source)
    if order == "consecutive":
        return {i: i for i in range(target)}
    return {0: 0} | {i: 1 + (i - 1) * (source - 1) // (target - 1) for i in range(1, target)}


def parse_mapping(text: str) -> list[dict[int, int]]:
    """`"src:dst,dst;..."` for each stage, stages joined with `|`: `"0:0;1:1,2;2:3,4"` is B0 B1 B1 B2 B2.

    Returns:
        `{target block: source block}` of each stage; one stage stands for all.

    Raises:
        ValueError: other text, or a target that is written twice.
    """
    return [_parse_stage(stage, text) for stage in text.split("|")]


def format_mapping(stages: Sequence[StageMapping]) -> str:
    """The inverse of `parse_mapping`; stages that are all the same are written once."""
    texts = [_format_stage(stage) for stage in stages]
    return texts[0] if len(set(texts)) == 1 else "|".join(texts)


def _parse_stage(stage: str, text: str) -> dict[int, int]:
    mapping: dict[int, int] = {}
    for entry in re.sub(r"\s", "", stage).split(";"):
        if not re.fullmatch(r"\d+:\d+(,\d+)*", entry):
            got = f"got {entry!r} in {text!r}"
            raise ValueError(f"expected a mapping such as {EXAMPLE!r}, {got}; write src:dst,dst;...")
        source, _, targets = entry.partition(":")
        for target in map(int, targets.split(",")):
            if target in mapping:
                raise ValueError(
                    f"expected each target block to come from one source, got block {target} from {mapping[target]} "
                    f"and {source} in {text!r}; leave one out"
                )
            mapping[target] = int(source)
    return dict(sorted(mapping.items()))


def _format_stage(stage: StageMapping) -> str:
    targets: dict[int, list[int]] = {}
    for target, source in sorted(stage.items()):
        targets.setdefault(source, []).append(target)
    return ";".join(f"{source}:{','.join(map(str, into))}" for source, into in sorted(targets.items()))


def _check_order(order: str, orders: Sequence[str]) -> None:
    if order not in orders:
        raise ValueError(f"expected order to be one of {', '.join(map(repr, orders))}, got {order!r}")


def _check_sizes(source: int, target: int, what: str, fits: bool) -> None:
    if not isinstance(target, int) or source < 1 or target < 1 or not fits:
        other = "squeeze" if what == "stretch" else "stretch"
        raise ValueError(
            f"expected a number of blocks to {what} a stage of {source} to, got {target!r}; {other} does the opposite"
        )
