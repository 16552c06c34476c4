"""Figures of one seed, in a JSON file that is written as soon as there is one more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsemeta.files import write_atomically


class Results(Mapping[str, Any]):
    """The figures in `file`, by name."""

    def __init__(self, file: Path):
        self.file = file
        self._figures = json.loads(file.read_text()) if file.exists() else {}

    def set(self, name: str, figures: Any) -> None:
        """Write one more, or anew."""
        self._figures[name] = figures
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, json.dumps(self._figures, indent=1).encode())

    def once(self, name: str, make: Callable[[], Any]) -> None:
        """Write what `make` gives, unless that name is there."""
        if name not in self:
            self.set(name, make())

    def __getitem__(self, name: str) -> Any:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)
