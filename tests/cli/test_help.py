"""`--help` of every command: nothing is lost on the way to the screen, and one thing has one name."""

from __future__ import annotations

import re

import pytest
import torch
import typer

from sparsemeta import __version__
from sparsemeta.cli import app


def commands(group, name: str = "sparsemeta"):
    for key, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {key}")
        else:
            yield f"{name} {key}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_option_has_a_help_that_can_be_shown(command):
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} has no help"
        assert not re.search(r"\[[a-z]+\]", parameter.help), f"rich takes {parameter.help!r} for markup"


def test_an_option_means_the_same_everywhere():
    helps = {}
    for name, command in COMMANDS.items():
        for option in ("--device", "--dataset", "--set", "--config"):
            texts = [p.help for p in command.params if option in p.opts]
            helps.setdefault(option, {}).update({text: name for text in texts})
    assert len(helps["--set"]) == len(helps["--config"]) == len(helps["--device"]) == 1, helps


def test_version(call):
    assert call("--version").output == f"sparsemeta {__version__}\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize(("device", "message"), [
    ("cuda:0", "expected a GPU for --device cuda:0; PyTorch finds none"),
    ("gpu", "expected --device cpu or cuda; got 'gpu'"),
], ids=["cuda", "gpu"])
def test_a_device_that_is_not_there_is_named(call, device, message):
    assert message in str(call("eval", "--checkpoint", "none", "--device", device).exception)
