"""Units: the repeated blocks of a network, told by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

RULES = {
    "stages": "stages.{stage}.{block}.{rest}",  # ResNetCifar, ResNetImageNet, VGG
    "features": "features.{block}.{rest}",  # Conv4, ConvN
    "blocks": "blocks.{block}.{rest}",
    "layer": "layer{stage}.{block}.{rest}",  # torchvision's ResNets
}
FIELDS = {"stage": r"(?P<stage>\d+)", "block": r"(?P<block>\d+)", "rest": r"(?P<rest>.+)"}


class Unit(NamedTuple):
    """Where a tensor belongs: its stage's name (empty in networks of one stage) and the number of its block there."""

    stage: str
    block: int


@dataclass(frozen=True)
class UnitRule:
    """How the names of tensors tell their unit.

    Args:
        text: a format such as ``"stages.{stage}.{block}.{rest}"``, where ``{stage}`` and ``{block}`` are whole numbers
            and ``{rest}`` is anything; or a regular expression for whole names with the groups ``block`` and, if there
            are several stages, ``stage``: ``r"net\\.(?P<block>\\d+)\\..+"``. Names that do not match belong to no unit.

    Raises:
        ValueError: neither, or without a block.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            named = self._regex.groupindex
        except re.error as error:
            expected = f"expected a rule for units such as {RULES['stages']!r}"
            raise ValueError(f"{expected}, got {self.text!r}: {error}") from None
        if "block" not in named:
            raise ValueError(
                f"expected a rule for units that tells the block, such as {RULES['stages']!r} or a regular expression "
                f"with (?P<block>\\d+), got {self.text!r}"
            )

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        if "(?P<" in self.text:
            return re.compile(self.text)
        parts = re.split(r"\{(stage|block|rest)\}", self.text)  # text, field, text, field, ..., text
        return re.compile("".join(FIELDS[part] if n % 2 else re.escape(part) for n, part in enumerate(parts)))

    @classmethod
    def of(cls, names: Iterable[str], rule: str | UnitRule | None = None) -> UnitRule:
        """The rule given, as text or by its name in `RULES`; None finds the first of `RULES` that matches a name.

        Raises:
            ValueError: a bad rule, or one that matches no name.
        """
        names = list(names)
        given = RULES.values() if rule is None else [rule]
        rules = [each if isinstance(each, UnitRule) else cls(RULES.get(each, each)) for each in given]
        for each in rules:
            if each.stages(names):
                return each
        raise ValueError(
            f"expected names whose units {[each.text for each in rules]} tells, got {names[:3]} and so on; give a rule "
            f"for this model, such as {RULES['stages']!r}"
        )

    def unit(self, name: str) -> Unit | None:
        """Unit of the tensor of that name; None where it has none."""
        if not (match := self._regex.fullmatch(name)):
            return None
        return Unit(match.groupdict().get("stage") or "", int(match["block"]))

    def renamed(self, name: str, block: int) -> str:
        """The same tensor in another block of its stage."""
        start, end = self._regex.fullmatch(name).span("block")
        return f"{name[:start]}{block}{name[end:]}"

    def blocks(self, names: Iterable[str]) -> dict[Unit, list[str]]:
        """The names of each unit."""
        found: dict[Unit, list[str]] = {}
        for name in names:
            if (unit := self.unit(name)) is not None:
                found.setdefault(unit, []).append(name)
        return found

    def stages(self, names: Iterable[str]) -> dict[str, int]:
        """How many blocks each stage has, stages in the order of their numbers.

        Raises:
            ValueError: blocks that are not numbered 0, 1, 2, ...
        """
        found: dict[str, set[int]] = {}
        for stage, block in self.blocks(names):
            found.setdefault(stage, set()).add(block)
        for stage, blocks in found.items():
            if blocks != set(range(len(blocks))):
                where = f"stage {stage}" if stage else "the network"
                raise ValueError(
                    f"expected blocks numbered 0, 1, 2, ... in {where}, got {sorted(blocks)}; change the rule"
                )
        return {stage: len(found[stage]) for stage in sorted(found, key=lambda s: (len(s), s))}
