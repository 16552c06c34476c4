"""What was measured outlives the process, and nothing that happens to its files can do harm."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sparsemeta.backends import tune_store
from sparsemeta.backends.tune_store import Key, Store, fastest, fingerprint


def key(threads: int = 1) -> Key:
    geometry = (1, 1), (1,) * 4, (1, 1), 1  # stride, padding, dilation, groups
    return Key("forward", (5, 64, 14, 14), (64, 64, 3, 3), (1,) * 4, 0.2, *geometry, "float32", threads)


TIMES = {"cpu": 2.0, "contiguous": 1.0}


def test_the_next_process_knows_it(tmp_path):
    Store(tmp_path / "a").add(key(), TIMES)
    again = Store(tmp_path / "a")
    assert again.times == {key(): TIMES} and again.choices == {key(): "contiguous"}
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".json"]


@pytest.mark.parametrize(("dense", "chosen"), [(1.2, "cpu"), (1.0, "cpu"), (0.97, "cpu"), (0.9, "contiguous")])
def test_the_sparse_kernels_are_left_only_for_more_than_noise(dense, chosen):
    assert fastest({"contiguous": dense, "cpu": 1.0}) == chosen


def test_a_newer_time_replaces_the_old(tmp_path):
    for seconds in (1.0, 3.0):
        Store(tmp_path).add(key(), {"cpu": seconds})
    assert Store(tmp_path).times == {key(): {"cpu": 3.0}} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"schema": 1, "key": {"a": 1}, "seconds": {"cpu": 1.0}}']
)
def test_a_damaged_file_is_ignored_with_a_warning_and_written_anew(tmp_path, damage):
    store = Store(tmp_path)
    store.add(key(1), TIMES)
    [file] = tmp_path.iterdir()
    store.add(key(2), TIMES)
    file.write_bytes(damage)
    with pytest.warns(UserWarning, match=f"ignored the damaged file {file.name}"):
        store = Store(tmp_path)
    assert list(store.times) == [key(2)]
    store.add(key(1), TIMES)
    assert Store(tmp_path).times == {key(1): TIMES, key(2): TIMES}


@pytest.mark.parametrize("change", [{"schema": 99}, {"seconds": {}}, {"seconds": {"cpu": "fast"}}, {"seconds": 1}])
def test_other_content_is_ignored_too(tmp_path, change):
    Store(tmp_path).add(key(), TIMES)
    [file] = tmp_path.iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.warns(UserWarning, match="ignored the damaged file"):
        assert not Store(tmp_path).times


WRITER = """
import sys
from pathlib import Path
from test_tune_store import TIMES, key
from sparsemeta.backends.tune_store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for threads in range(int(sys.argv[2]), 60, 2):
    store.add(key(threads), TIMES)
    store.add(key(100), TIMES)
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path):
    here = str(tmp_path / "shared")
    options = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=__file__.rpartition("/")[0])
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, here, first], **options) for first in "01"]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # both have read the empty folder: now they write
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for writer in writers:
        writer.stdin.close()
        writer.stdout.close()
    found = Store(tmp_path / "shared")
    assert {k.threads for k in found.times} == {*range(60), 100}
    assert all(path.suffix == ".json" and not path.name.startswith(".") for path in found.folder.iterdir())


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "folder")
    with pytest.warns(UserWarning, match="set SPARSEMETA_CACHE to a folder you can write to"):
        store.add(key(), TIMES)
    assert store.choices == {key(): "contiguous"}


def test_a_user_without_home_has_a_store_in_memory(monkeypatch):
    def no_home():
        raise RuntimeError("no home")

    monkeypatch.setattr(tune_store, "cache_folder", no_home)
    tune_store.store.cache_clear()
    tune_store.store().add(key(), TIMES)
    assert tune_store.store().choices == {key(): "contiguous"}


def test_another_machine_or_version_starts_anew(monkeypatch):
    before = fingerprint()
    monkeypatch.setattr(tune_store, "processor", lambda: "another")
    other = fingerprint()
    monkeypatch.setattr("sparsemeta.__version__", "9.9")
    assert len({before, other, fingerprint()}) == 3 and fingerprint().startswith("9.9-")


def test_clear_forgets_every_version(tmp_path):
    old, new = Store(tmp_path / "tuning" / "old"), Store(tmp_path / "tuning" / "new")
    old.add(key(), TIMES)
    new.add(key(), TIMES)
    new.clear()
    assert not new.choices and not (tmp_path / "tuning").exists()
