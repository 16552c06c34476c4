"""The results of an experiment, one record for each thing measured, on disk as soon as it is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files import write_atomically

Record = dict[str, Any]


class Records:
    """Records in `folder/results.json`.

    Args:
        folder: made if missing.
        configuration: of the experiment; a folder that holds another one's results is refused.
        machine: facts about where this runs.

    Raises:
        ValueError: results of another configuration, or a damaged file. Nothing has changed then.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], machine: Mapping[str, Any]):
        self.folder, self.records = folder, {}
        self._head = json.loads(json.dumps({"configuration": configuration, "machine": machine}))
        if self.path.exists():
            self.records = self._read()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "results.json"

    def once(self, name: str, make: Callable[[], Mapping[str, Any]]) -> Record:
        """The record of that name: the one that is there, or what `make` returns, and its name."""
        if name not in self.records:
            self.records[name] = json.loads(json.dumps({"name": name, **make()}))
            write_atomically(self.path, json.dumps({**self._head, "records": self.records}, indent=1).encode())
        return self.records[name]

    def _read(self) -> dict[str, Record]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            configuration, records = dict(found["configuration"]), dict(found["records"])
        except (ValueError, KeyError, TypeError) as error:
            expected = f"expected an experiment's results in {self.path}"
            raise ValueError(f"{expected}, got {error}; take a new folder") from None
        if configuration != self._head["configuration"]:
            now = self._head["configuration"]
            wrong = sorted(k for k in configuration.keys() | now.keys() if configuration.get(k) != now.get(k))
            raise ValueError(
                f"expected the configuration that {self.folder} began with, got another in {wrong}; take a new folder"
            )
        return records
