"""`sparsemeta ticket show`."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from sparsemeta.cli.ticket import app
from sparsemeta.ticket import Ticket, TicketError


@pytest.fixture
def file(tmp_path):
    masks = {"0.weight": torch.eye(4, dtype=torch.bool).view(4, 4, 1, 1), "head.weight": torch.ones(2, 4) > 0}
    Ticket.from_masks(masks, block={"head.weight": (2, 2)}).save(tmp_path / "t", {"method": "by hand", "seed": 3})
    return str(tmp_path / "t")


def test_table(file):
    result = CliRunner().invoke(app, ["show", file])
    assert result.exit_code == 0
    assert all(text in result.output for text in ("head.weight", "4x4x1x1", "12 of 24", "50.00 %", "method: by hand"))


def test_json(file):
    facts = json.loads(CliRunner().invoke(app, ["show", file, "--json"]).output)
    assert facts["kept"] == 12 and facts["sparsity"] == 0.5 and facts["provenance"] == {"method": "by hand", "seed": 3}
    assert facts["layers"]["head.weight"] == {"shape": [2, 4], "block": [2, 2], "kept": 8, "numel": 8, "sparsity": 0.0}


def test_errors_are_those_of_the_library(tmp_path):
    (tmp_path / "t").write_bytes(b"no ticket")
    assert isinstance(CliRunner().invoke(app, ["show", str(tmp_path / "t")]).exception, TicketError)
    assert isinstance(CliRunner().invoke(app, ["show", str(tmp_path / "none")]).exception, FileNotFoundError)
