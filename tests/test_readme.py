"""What README and pages show runs: their Python blocks one after another; their commands, options and links exist."""

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
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "bench/README.md", "csrc/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


def run_all(code: list[str], name: str) -> None:
    torch.set_num_threads(1)
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, name, "exec"), names)


def test_python_blocks_run(tmp_path, monkeypatch, _threads):
    monkeypatch.chdir(tmp_path)
    assert len(blocks(README)) >= 5
    run_all(blocks(README), "README.md")


@pytest.mark.parametrize("name", ["elastic.md", "lambda-patterns.md"])  # the others' tests look at what comes out
def test_python_blocks_of_pages_run(name, _threads):
    code = blocks((ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert code
    run_all(code, name)


def test_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"demo", "test"} <= set(re.findall(r"(?:^|`)make (\w+)", README, re.M)) <= set(targets)


def commands() -> list[str]:
    """Every ``sparsemeta ...`` that a page names as code."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return sorted({match.strip() for match in re.findall(r"(?:^|`)(sparsemeta [^`\n#]+)", text, re.M)})


@pytest.mark.parametrize("line", commands())
def test_commands_and_their_options_exist(line):
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert not hasattr(command, "commands") and options.issuperset(word for word in words if word.startswith("-"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page):
    links = re.findall(r"[^\"]\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).is_file()] == []
