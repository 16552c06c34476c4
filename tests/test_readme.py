"""What the README shows runs: its Python blocks one after another, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

from sparsemeta.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_python_blocks_run(tmp_path, monkeypatch, _threads):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    names: dict[str, object] = {}
    assert len(blocks("python")) >= 5
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)


def test_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"demo", "test"} <= set(re.findall(r"(?:^|`)make (\w+)", README, re.M)) <= set(targets)


def commands() -> list[str]:
    """Every ``sparsemeta ...`` that the README or the change log names as code."""
    text = README + (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return sorted({match.strip() for match in re.findall(r"(?:^|`)(sparsemeta [^`\n#]+)", text, re.M)})


@pytest.mark.parametrize("line", commands())
def test_commands_and_their_options_exist(line):
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert not hasattr(command, "commands") and options.issuperset(word for word in words if word.startswith("-"))


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_linked_files_exist(link):
    assert (ROOT / link).is_file()
