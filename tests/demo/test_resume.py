"""An interrupted demo goes on, but only where it belongs; bad input ends before anything is written."""

from __future__ import annotations

import json
import sys

import pytest

from sparsemeta import backends, cli, data
from sparsemeta.demo import Settings, tasks
from sparsemeta.demo.stages import Stages

pytestmark = pytest.mark.xdist_group("demo")  # one process makes the demo that all look at


def interrupt(monkeypatch, stage: str) -> None:
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stages, stage, interrupted)


@pytest.mark.parametrize("stage", ["train_dense", "train_ticket"])
def test_resumed_demo_ends_as_one_that_was_never_stopped(run, finished, tmp_path, monkeypatch, stage):
    with monkeypatch.context() as patch:
        interrupt(patch, stage)
        assert run(tmp_path).exit_code != 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    assert len(kept) == {"train_dense": 1, "train_ticket": 2}[stage]
    assert run(tmp_path, "--resume").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing was trained again
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["accuracy"] == finished.figures["accuracy"]
    for name, curve in figures["training"].items():
        assert curve["loss"] == finished.figures["training"][name]["loss"]


def test_start_without_resume_forgets_the_old_checkpoints(run, tmp_path, monkeypatch):
    interrupt(monkeypatch, "train_early")
    stale = tmp_path / "checkpoints" / "dense.safetensors"
    stale.parent.mkdir()
    stale.write_bytes(b"of another demo")
    run(tmp_path)
    assert not stale.exists()


def test_resume_needs_the_options_it_began_with(run, tmp_path, monkeypatch):
    interrupt(monkeypatch, "train_early")
    run(tmp_path)
    error = run(tmp_path, "--resume", "--seed", "3").exception
    assert isinstance(error, ValueError) and "{'seed': 0" in str(error) and "without --resume" in str(error)


@pytest.mark.parametrize("record", [None, "{", "[1, 2]"])
def test_resume_needs_a_demo_that_began(run, tmp_path, record):
    if record:
        (tmp_path / "configuration.json").write_text(record, encoding="utf-8")
    error = run(tmp_path, "--resume").exception
    assert isinstance(error, ValueError if record else FileNotFoundError) and "without --resume" in str(error)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("kind", ["no such folder", "empty folder", "other files", "file"])
def test_folder_without_the_data(tmp_path, monkeypatch, kind):
    """Through `main`, whose message is what a user sees."""
    folder, out = tmp_path / "data", tmp_path / "out"
    if kind == "file":
        folder.write_text("no folder", encoding="utf-8")
    elif kind != "no such folder":
        folder.mkdir()
    if kind == "other files":
        (folder / "cifar100.zip").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["sparsemeta", "demo", "--quick", "--data", str(folder), "--out", str(out)])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    message = str(exit.value)
    assert "expected images_background.zip" in message and str(folder) in message and "Download" in message
    assert ("cifar100.zip" in message) == (kind == "other files")
    assert not out.exists()


def test_says_when_the_kernels_are_missing(run, tmp_path, monkeypatch):
    interrupt(monkeypatch, "train_early")
    monkeypatch.setattr(backends, "available", lambda: {"cpu": ["it was never compiled [at all]"], "dense": []})
    assert "saves no time: it was never compiled [at all]" in run(tmp_path).output


def test_out_that_is_a_file(run, tmp_path):
    (tmp_path / "out").write_text("", encoding="utf-8")
    error = run(tmp_path / "out").exception
    assert isinstance(error, NotADirectoryError) and "Pass another --out" in str(error)


@pytest.mark.parametrize(
    ("wrong", "named"), [({"steps": 1}, "steps"), ({"sparsity": 1.0}, "sparsity"), ({"seed": -1}, "seed"),
                         ({"data": "mnist"}, "omniglot")]
)  # fmt: skip  one case a line would be longer than what it tests
def test_settings_out_of_range(wrong, named):
    with pytest.raises(ValueError, match=f"expected .*{named}.*; got"):
        Settings(**wrong)


def test_omniglot_comes_from_the_folder_given(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(data, "omniglot", lambda root: asked.append(root) or "splits")
    assert tasks.load(Settings(data="omniglot"), tmp_path) == "splits" and asked == [tmp_path]
