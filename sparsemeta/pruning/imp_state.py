"""The state folder of an iterative search: what it needs to go on after an interruption.

`state.json` has the search's settings and a record of each finished round; `theta_0` and `theta_r` are snapshots;
`ticket_<k>` is the ticket after round k and `round_<k>` the training checkpoint of round k, all safetensors. A round
counts once it stands in `state.json`, which is written last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..meta.checkpoint import CheckpointError
from ..ticket import Ticket
from .rewind import RewindStore


class ImpState:
    """The state of one search in `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.store = folder, RewindStore(folder)
        self.settings: dict[str, Any] = {}
        self.records: list[dict[str, Any]] = []
        self._last: Ticket | None = None  # the last round's, with what was derived from its patterns

    def open(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Begin a search with these settings, or go on with the one in the folder.

        Raises:
            CheckpointError: `resume` where there is no search, or one with other settings; a search is there already
                and `resume` is False. Nothing has changed then.
        """
        self.settings = json.loads(json.dumps(settings))
        if not self._file.exists():
            if resume:
                raise CheckpointError(f"expected a search to resume in {self.folder}; there is none. Leave resume out")
            self.folder.mkdir(parents=True, exist_ok=True)
            return self._write()
        if not resume:
            raise CheckpointError(f"expected an empty folder, got one with a search in {self.folder}; resume it")
        found = self._read()
        then, now = found["settings"], self.settings
        if wrong := sorted(key for key in then | now if then.get(key) != now.get(key)):
            raise CheckpointError(f"expected the search of {self.folder}, got other {wrong}; take a new folder")
        self.records = found["records"]

    def ticket(self, rounds: int) -> Ticket:
        """The ticket after so many rounds."""
        if self._last is not None and rounds == len(self.records):
            return self._last
        return Ticket.load(self.folder / f"ticket_{rounds}.safetensors")

    def training(self, name: str) -> Path:
        """Where the training checkpoint of that name is."""
        return self.folder / f"{name}.safetensors"

    def add(self, ticket: Ticket, record: Mapping[str, Any]) -> None:
        """A round is finished."""
        ticket.save(self.folder / f"ticket_{len(self.records) + 1}.safetensors")
        self.records.append(dict(record))
        self._last = ticket
        self._write()

    @property
    def _file(self) -> Path:
        return self.folder / "state.json"

    def _write(self) -> None:
        state = {"settings": self.settings, "records": self.records}
        write_atomically(self._file, json.dumps(state, indent=1).encode())

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text())
            return {"settings": dict(found["settings"]), "records": list(found["records"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"expected the state of a search in {self._file}; it is damaged ({type(error).__name__}: {error}). "
                f"Begin anew in another folder"
            ) from None
