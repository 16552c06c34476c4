"""sdist and wheel hold everything that they need and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from environment import ROOT, run

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]  # one process, so that each builds once


def files(folder: Path, *suffixes: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix in suffixes}


def site(python: Path) -> Path:
    [folder] = python.parents[1].glob("lib/python*/site-packages")
    return folder


@pytest.mark.parametrize("folder", ["csrc", "kernels", "bench", "configs", "docs", "sparsemeta", "tests"])
def test_sdist_has_every_source_file(sdist, folder):
    suffixes = (".py", ".pyi", ".h", ".cpp", ".cu", ".md", ".toml", ".typed")
    assert files(sdist / folder, *suffixes) == files(ROOT / folder, *suffixes) != set()


@pytest.mark.parametrize(
    "name",
    [
        *("pyproject.toml", "setup.py", "constraints.txt", "Makefile", ".ci/run"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    ],
)
def test_sdist_can_be_built_and_tested(sdist, name):
    assert (sdist / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize(
    ("folder", "installed"),
    [("sparsemeta", "sparsemeta"), ("kernels", "sparsemeta/kernels"), ("bench", "sparsemeta/bench")],
)
def test_wheel_has_every_module(full, folder, installed):
    assert files(ROOT / folder, ".py", ".pyi", ".typed") <= files(site(full) / installed, ".py", ".pyi", ".typed")


def test_wheel_has_the_extension_and_its_types(full):
    package = site(full) / "sparsemeta"
    assert list(package.glob("_C.*.so")) and (package / "_C.pyi").exists() and (package / "_CUDA.pyi").exists()


@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not in PATH")
def test_wheel_has_the_cuda_extension_where_nvcc_is(full):
    [extension] = (site(full) / "sparsemeta").glob("_CUDA.*.so")
    libraries = run("ldd", extension, cwd=extension.parent)
    assert "libcudart" not in libraries and "libtorch" not in libraries and "libcuda.so" not in libraries


def test_wheel_installs_one_package(full):
    names = {path.name for path in site(full).iterdir() if "dist-info" not in path.name}
    assert names == {"sparsemeta", "borrowed.pth"}


def test_wheel_carries_the_licence(full):
    [licence] = site(full).glob("*.dist-info/**/LICENSE")
    assert "Apache License" in licence.read_text()


def test_bare_wheel_has_no_extension_from_an_earlier_build(bare):
    assert not list(site(bare).rglob("*.so"))
