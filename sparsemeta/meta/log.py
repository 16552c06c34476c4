"""What a run leaves to read: one JSON line a step, and TensorBoard's files for those who want them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from ..files import write_atomically


class Log(Protocol):
    """Takes the figures of a meta-step."""

    def write(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """``kind`` is ``"train"`` or ``"validation"``."""


class JsonLines:
    """A line ``{"kind": ..., "step": ..., <figures>}`` for each call, flushed.

    Args:
        path: the file; what it holds beyond ``done`` is cut off, with a last line that was not written to its end, so
            that a resumed run continues it as if it had never stopped.
        done: meta-steps behind.
    """

    def __init__(self, path: Path, done: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_lines(path) if line["step"] <= done] if done else []
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115  open as long as the run; close() ends it

    def write(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class TensorBoard:
    """Scalars ``train/loss``, ``validation/accuracy``, ... in ``folder``; those after step ``done`` are purged."""

    def __init__(self, folder: Path, done: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                'expected the package tensorboard; it is not installed. pip install "sparsemeta[tensorboard]", '
                "or leave TensorBoard out: the JSON lines hold the same figures"
            ) from error
        self.writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def write(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def read_lines(path: Path) -> list[dict]:
    """The whole lines of a log, from its beginning up to one that is none; empty where there is no file."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:  # the run was killed inside this line
            break
    return lines


@contextmanager
def logs(json_lines: str | Path | None, tensorboard: str | Path | None, done: int) -> Iterator[list[Log]]:
    """The logs that are asked for, open for a run that has ``done`` steps behind it."""
    with ExitStack() as stack:
        wanted = [(TensorBoard, tensorboard), (JsonLines, json_lines)]
        opened = [kind(Path(path), done) for kind, path in wanted if path is not None]
        for log in opened:
            stack.callback(log.close)
        yield opened
