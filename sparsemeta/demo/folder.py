"""The folder of a demo: what it writes, and whether what lies there can be continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsemeta.demo.report import report
from sparsemeta.files import write_atomically
from sparsemeta.ticket import Ticket


class DemoFolder:
    """The files of one demo.

    Attributes:
        path: the folder.
        checkpoints: the folder of the training stages' checkpoints.
    """

    def __init__(self, path: Path):
        self.path, self.checkpoints = path, path / "checkpoints"
        self._configuration = path / "configuration.json"

    def begin(self, configuration: dict[str, Any]) -> None:
        """Make the folder; nothing of an earlier demo there will be continued.

        Raises ``NotADirectoryError`` if there is a file of its name.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"expected a folder to write to; got the file {self.path}. Pass another --out")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for checkpoint in self.checkpoints.glob("*.safetensors"):
            checkpoint.unlink()
        self._write_json(self._configuration, configuration)

    def check(self, configuration: dict[str, Any]) -> None:
        """Raise unless a demo of this configuration began here.

        Raises:
            FileNotFoundError: none began.
            ValueError: one of another configuration, or its record is damaged.
        """
        if not self._configuration.is_file():
            raise FileNotFoundError(
                f"expected an interrupted demo in {self.path}; got no {self._configuration.name} there. "
                "Check --out, or start without --resume"
            )
        try:
            then = dict(json.loads(self._configuration.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"expected the configuration of a demo in {self._configuration}; got {error}. Start without --resume"
            ) from error
        if different := [name for name in {**then, **configuration} if then.get(name) != configuration.get(name)]:
            was, now = ({name: side.get(name) for name in different} for side in (then, configuration))
            raise ValueError(
                f"expected the options that the demo in {self.path} began with, {was}; got {now}. "
                "Pass the same, or start without --resume"
            )

    def save(self, figures: dict[str, Any], ticket: Ticket) -> None:
        """Write the three results."""
        keep = ("configuration", "machine", "accuracy")
        ticket.save(self.path / "ticket.safetensors", {"demo": {name: figures[name] for name in keep}})
        self._write_json(self.path / "figures.json", figures)
        write_atomically(self.path / "report.html", report(figures, ticket).encode())

    @staticmethod
    def _write_json(path: Path, content: dict[str, Any]) -> None:
        write_atomically(path, json.dumps(content, indent=2).encode())
