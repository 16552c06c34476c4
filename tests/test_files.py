"""Writing files whole or not at all."""

from __future__ import annotations

import os

import pytest

from sparsemeta.files import replacing, write_atomically


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "ticket.bin"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["ticket.bin"]


def test_new_file_has_the_permissions_that_the_user_asks_for(tmp_path):
    path, plain = tmp_path / "a.json", tmp_path / "b.json"
    write_atomically(path, b"{}")
    plain.write_bytes(b"{}")
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_path_that_no_file_can_have_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder for .*none.a, got none at .*make it first"):
        write_atomically(tmp_path / "none" / "a", b"")
    with pytest.raises(IsADirectoryError, match="expected a file to write, got the folder"):
        write_atomically(tmp_path, b"")
