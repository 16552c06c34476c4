"""The package as its users get it: an sdist of this tree, installed wheels with and without the extension."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from environment import ROOT, build_wheel, create, run

BUILT = shutil.ignore_patterns(
    ".git", ".*_cache", "build", "dist", "runs", "*.egg-info", "__pycache__", "_C*.so", "_build_info.json"
)


def _not_source(folder: str, names: list[str]) -> set[str]:
    return BUILT(folder, names) | {name for name in names if Path(folder, name, "pyvenv.cfg").exists()}


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    source = shutil.copytree(ROOT, folder / "source", ignore=_not_source)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, cwd=source)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    unpacked = next(folder.glob("sparsemeta-*/"))
    # Objects compiled from these very sources: the build takes them over and only links, which saves a minute.
    for objects in (ROOT / "build").glob("objects-*"):
        shutil.copytree(objects, unpacked / "build" / objects.name)
    return unpacked


@pytest.fixture(scope="session")
def full(sdist, tmp_path_factory) -> Path:
    """Python of an environment with the wheel that was built from the sdist."""
    return create(tmp_path_factory.mktemp("full"), build_wheel(sdist, tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="session")
def bare(sdist, full, tmp_path_factory) -> Path:
    """The same without the extension; built second, so that leftovers of the first build would show."""
    wheel = build_wheel(sdist, tmp_path_factory.mktemp("wheel"), SPARSEMETA_NO_EXTENSION="1")
    return create(tmp_path_factory.mktemp("bare"), wheel)
