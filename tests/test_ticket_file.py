"""Ticket files: round trip, size, atomic writing, and files that are damaged or made to harm."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save, save_file

from sparsemeta import ticket_file
from sparsemeta.ticket import Ticket, TicketError


def some_ticket() -> Ticket:
    masks = {"features.0.weight": torch.rand(4, 2, 3, 3) < 0.3, "head.weight": torch.zeros(6, 10) > 0}
    masks["head.weight"][2:4, 5:] = True
    return Ticket.from_masks(masks, block={"head.weight": (2, 5)}, provenance={"method": "test", "seed": 1})


def test_round_trip(tmp_path):
    ticket, path = some_ticket(), tmp_path / "t.safetensors"
    ticket.save(path, provenance={"accuracy": [0.5, "é"], "seed": 2})
    loaded = Ticket.load(str(path))
    assert loaded == ticket and list(loaded) == list(ticket)
    assert loaded.provenance == {"method": "test", "seed": 2, "accuracy": [0.5, "é"]}
    assert ticket.provenance == {"method": "test", "seed": 1}


@pytest.mark.parametrize("masks", [{}, {"0.weight": torch.zeros(3, 5) > 0}], ids=["no layer", "no weight"])
def test_empty_tickets(tmp_path, masks):
    Ticket.from_masks(masks).save(tmp_path / "t")
    assert Ticket.load(tmp_path / "t") == Ticket.from_masks(masks)


def test_a_file_is_about_one_bit_for_each_block(tmp_path):
    Ticket.from_masks({"0.weight": torch.rand(640, 64, 3, 3) < 0.2}).save(tmp_path / "one")
    Ticket.from_masks({"0.weight": torch.ones(640, 64, 3, 3) > 0}, block=(16, 16)).save(tmp_path / "blocks")
    assert (tmp_path / "one").stat().st_size < 640 * 64 * 9 / 8 + 1000
    assert (tmp_path / "blocks").stat().st_size < 1000


def test_it_is_safetensors(tmp_path):
    some_ticket().save(tmp_path / "t")
    with safe_open(tmp_path / "t", framework="numpy") as file:
        assert set(file.keys()) == {"features.0.weight", "head.weight"}
        assert file.metadata()["format"] == "sparsemeta.ticket" and file.metadata()["version"] == "1"
        assert json.loads(file.metadata()["layers"])["head.weight"] == {"shape": [6, 10], "block": [2, 5]}
        assert file.get_tensor("head.weight").tolist() == [0b00010000]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    ticket, path = some_ticket(), tmp_path / "t"
    ticket.save(path)

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        Ticket({}).save(path)
    assert Ticket.load(path) == ticket and os.listdir(tmp_path) == ["t"]


def test_provenance_is_checked_before_anything_is_written(tmp_path):
    with pytest.raises(TicketError, match="provenance that JSON can hold"):
        some_ticket().save(tmp_path / "t", provenance={"model": torch.ones(1)})
    assert not os.listdir(tmp_path)


def test_no_file(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match="expected a ticket file.*check the path"):
            Ticket.load(path)


def write(path, bits=None, digest=True, **changed) -> None:
    """A ticket file with the changed metadata (`None` leaves an entry out), with a checksum that agrees."""
    bits = {"0.weight": np.array([0b10010000], np.uint8)} if bits is None else bits
    metadata = {
        "format": "sparsemeta.ticket", "version": "1", "provenance": "{}",
        "layers": json.dumps({"0.weight": {"shape": [2, 2], "block": [1, 1]}}),
    }
    metadata["sha256"] = "0" * 64
    metadata |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in changed.items()}
    if digest:
        metadata["sha256"] = ticket_file._digest(metadata, bits)
    save_file(bits, path, {key: value for key, value in metadata.items() if value != "null"})


def layer(shape, block=(1, 1)) -> dict:
    return {"layers": {"0.weight": {"shape": shape, "block": block}}}


DEEP = "[" * 100_000
CLAIMS = {
    "format": ({"format": "pt"}, "format 'sparsemeta.ticket' in its metadata, got 'pt'"),
    "version": ({"version": "2"}, "expected version 1, got '2'; a newer version needs a newer sparsemeta"),
    "no version": ({"version": None}, "expected version 1, got None"),
    "no provenance": ({"provenance": None, "digest": False}, "expected provenance"),
    "checksum": ({"digest": False}, "expected contents of sha256 0000"),
    "provenance": ({"provenance": "{seed: 1}"}, "expected provenance in JSON"),
    "provenance list": ({"provenance": []}, "expected provenance as a JSON object"),
    "deep provenance": ({"provenance": DEEP}, "expected provenance in JSON"),
    "long number": ({"provenance": '{"a": ' + "1" * 10_000 + "}"}, "expected provenance in JSON"),
    "layers": ({"layers": "{"}, "expected layers in JSON"),
    "layers list": ({"layers": [1]}, "expected layers as a JSON object"),
    "layer list": ({"layers": {"0.weight": [2, 2]}}, "expected a shape and a block for '0.weight'"),
    "other layer": ({"layers": {"1.weight": {"shape": [2, 2], "block": [1, 1]}}}, "got them for .'0.weight'"),
    "text sizes": (layer(["2", "2"]), "expected integer sizes"),
    "true sizes": (layer([True, 2]), "expected integer sizes"),
    "real sizes": (layer([2.0, 2]), "expected integer sizes"),
    "negative": (layer([-2, -2]), "expected integer sizes"),
    "one axis": (layer([4], [1]), "expected a mask of shape"),
    "many axes": (layer([1] * 70, [1] * 70), "expected"),
    "huge": (layer([2**40, 2**40], [2**40, 2**40]), "expected integer sizes of at most 268435456 weights"),
    "huge product": (layer([2**20, 2**20], [2**20, 2**20]), "at most 268435456 weights"),
    "huge and empty": (layer([0, 2**70], [1, 2**70]), "at most 268435456 weights"),
    "zero block": (layer([2, 2], [0, 1]), "expected a block that divides"),
    "block": (layer([2, 2], [2, 3]), r"expected a block that divides the shape \(2, 2\) on every axis, got \(2, 3\)"),
    "block axes": (layer([2, 2], [1, 1, 1, 1]), "expected a block that divides"),
    "too many bits": (layer([2, 2], [2, 2]), "expected only zeros after the 1 bits"),
    "too few bits": (layer([4, 4]), r"expected uint8 bits of shape \(2,\) for the 16 blocks"),
    "claim": (layer([2**14, 2**14]), r"expected uint8 bits of shape \(33554432,\)"),
    "dtype": ({"bits": {"0.weight": np.array([1], np.int8)}}, "expected tensors of U8, got {'0.weight': 'I8'}"),
    "axes": ({"bits": {"0.weight": np.array([[1]], np.uint8)}}, "expected uint8 bits"),
}


@pytest.fixture
def _little_memory():
    """512 MiB more than now: a loader that believes what a file claims would need far more."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux tells, and limits, the memory of a process")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize(("claim", "message"), CLAIMS.values(), ids=CLAIMS)
def test_false_claims(tmp_path, claim, message):
    write(tmp_path / "t", **claim)
    with pytest.raises(TicketError, match=message) as caught:
        Ticket.load(tmp_path / "t")
    assert str(tmp_path / "t") in str(caught.value) and "copy or make it again" in str(caught.value)


def test_the_claims_are_false_only_where_changed(tmp_path):
    write(tmp_path / "t")
    assert Ticket.load(tmp_path / "t").masks()["0.weight"].tolist() == [[True, False], [False, True]]


@pytest.mark.usefixtures("_little_memory")
def test_many_large_layers_of_one_block_each(tmp_path):
    side = 2**13
    names = [f"{i}.weight" for i in range(5)]
    layers = {name: {"shape": [side, side], "block": [side, side]} for name in names}
    write(tmp_path / "t", {name: np.zeros(1, np.uint8) for name in names}, layers=layers)
    with pytest.raises(TicketError, match=f"at most 268435456 weights, got {5 * side * side}"):
        Ticket.load(tmp_path / "t")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 8, b"\xff" * 4000, b"{}" * 4000, os.urandom(4000)])
def test_other_files(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(TicketError, match="written by Ticket.save"):
        Ticket.load(tmp_path / "t")


def test_other_safetensors(tmp_path):
    for metadata in (None, {"format": "pt"}):
        (tmp_path / "t").write_bytes(save({"weight": np.ones(3, np.float32)}, metadata))
        with pytest.raises(TicketError, match="expected format 'sparsemeta.ticket'"):
            Ticket.load(tmp_path / "t")


@pytest.mark.usefixtures("_little_memory")
def test_truncated_files(tmp_path):
    some_ticket().save(tmp_path / "t")
    whole = (tmp_path / "t").read_bytes()
    for size in range(0, len(whole), 8):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(TicketError):
            Ticket.load(tmp_path / "cut")
    (tmp_path / "long").write_bytes(whole + b"\0")
    with pytest.raises(TicketError):
        Ticket.load(tmp_path / "long")


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF], ids=hex)
def test_flipped_bytes(tmp_path, flip):
    ticket = some_ticket()
    ticket.save(tmp_path / "t")
    whole = (tmp_path / "t").read_bytes()
    for position in range(len(whole)):
        (tmp_path / "flipped").write_bytes(
            whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]
        )
        try:
            loaded = Ticket.load(tmp_path / "flipped")
        except TicketError:
            continue
        assert loaded == ticket and loaded.provenance == ticket.provenance, position
