"""A whole training run as one TOML file: data, model, training and test."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..keys import check_keys
from .config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class DataRecipe:
    """Name of the data set (``sparsemeta data list``), its folder, whether to normalise by training statistics."""

    name: str = "glyphs"
    root: str | None = None
    normalise: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRecipe:
    """Name of the backbone, its arguments, the ticket file to train it with, and a dense checkpoint to start from."""

    name: str = "conv4"
    ticket: str | None = None
    start: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TestRecipe:
    """Tasks of the test, their query images of each class, and their seed."""

    __test__ = False  # the name is not that of a test for pytest

    tasks: int = 600
    queries: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.tasks, int) or self.tasks < 2:
            raise ValueError(f"expected tasks in [test] to be an integer of at least 2; got {self.tasks!r}")


@dataclass(frozen=True)
class Recipe:
    """What ``sparsemeta train --config`` reads: the tables ``[data]``, ``[model]``, ``[train]`` and ``[test]``.

    ``[train]`` has the fields of ``TrainConfig``. In ``[data]`` and ``[model]`` what is not a field of the recipe is an
    argument of the data set or the model.
    """

    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelRecipe = field(default_factory=ModelRecipe)
    train: TrainConfig = field(default_factory=TrainConfig)
    test: TestRecipe = field(default_factory=TestRecipe)

    @classmethod
    def make(cls, tables: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """From tables as a TOML file has them. Raises ``ValueError`` for an unknown key, naming the nearest."""
        kinds = {"data": DataRecipe, "model": ModelRecipe, "train": TrainConfig, "test": TestRecipe}
        check_keys(tables, kinds, "a table of a configuration")
        for name, table in tables.items():
            if not isinstance(table, Mapping):
                raise ValueError(f"expected [{name}] to be a table; got {table!r}. Write its keys below [{name}]")
        return cls(**{name: _made(kinds[name], table, f"a key of [{name}]") for name, table in tables.items()})


def _made(kind: type, table: Mapping[str, Any], what: str) -> Any:
    own = [f.name for f in fields(kind) if f.name != "options"]
    if "options" not in {f.name for f in fields(kind)}:
        check_keys(table, own, what)
        return kind(**table)
    rest = {key: value for key, value in table.items() if key not in own}  # checked by whoever takes them
    return kind(**{key: value for key, value in table.items() if key in own}, options=rest)


def read_tables(path: str | Path) -> Tables:
    """The tables of a TOML file. Raises ``ValueError`` where it is none."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a TOML file at {path}; got an error in it: {error}") from error


def assigned(tables: Mapping[str, Mapping[str, Any]], assignments: Iterable[str]) -> Tables:
    """``tables`` with ``table.key=value`` set; without a table it is ``[train]``'s. Values as in TOML, or bare text."""
    new = {name: dict(table) for name, table in tables.items()}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        table, _, name = key.strip().rpartition(".")
        if not equals or not name:
            raise ValueError(f"expected key=value or table.key=value; got {assignment!r}")
        new.setdefault(table or "train", {})[name] = _value(text.strip())
    return new


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
