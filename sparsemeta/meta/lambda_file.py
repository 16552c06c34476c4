"""The file of a search over Lambda patterns: what is measured stays measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files import write_atomically

VERSION = 1


class ResultsFile:
    """Accuracies on each task and seconds of each pattern, in a JSON file that is written whole at each addition.

    Args:
        path: None for no file.
        about: what is searched.
        states: of model and tasks, of which digests go into the file: other weights or tasks are another search.

    Attributes:
        accuracies: by pattern, in percent, one for each task.
        seconds: by pattern, lower quartile, median, upper quartile.

    Raises:
        ValueError: ``path`` is something else, or of another search.
    """

    def __init__(self, path: str | Path | None, about: Mapping[str, Any], states: Mapping[str, Mapping[Any, Any]]):
        self.path = None if path is None else Path(path)
        self.about = {**about, **{name: digest(state) for name, state in states.items()}}
        self.accuracies: dict[str, list[float]] = {}
        self.seconds: dict[str, Sequence[float]] = {}
        if self.path is not None and self.path.exists():
            self._load()

    def add_accuracies(self, pattern: str, percent: list[float]) -> None:
        """Keep the accuracy on each task."""
        self.accuracies[pattern] = percent
        self._save()

    def add_seconds(self, seconds: Mapping[str, Sequence[float]]) -> None:
        """Keep times that were taken together, instead of older ones: those of two runs do not compare."""
        self.seconds = dict(seconds)
        self._save()

    def _save(self) -> None:
        if self.path is not None:
            content = {"version": VERSION, "about": self.about, "seconds": self.seconds, "accuracies": self.accuracies}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, (json.dumps(content) + "\n").encode())

    def _load(self) -> None:
        try:
            content = json.loads(self.path.read_bytes())
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, expected {VERSION}")
            about, self.seconds, self.accuracies = content["about"], dict(content["seconds"]), content["accuracies"]
            other = sorted(key for key in self.about if about.get(key) != self.about[key])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"expected the results of a search at {self.path}; got something else "
                f"({type(error).__name__}: {error}). Give another file"
            ) from error
        if other:
            raise ValueError(
                f"expected the results of this search at {self.path}; got another, which differs in "
                f"{', '.join(other)}. Give another file, or remove it to measure anew"
            )


def digest(state: Mapping[Any, Any]) -> str:
    """SHA-256 of names and values."""
    made = hashlib.sha256()
    for name, value in state.items():
        made.update(str(name).encode())
        made.update(value.cpu().contiguous().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return made.hexdigest()
