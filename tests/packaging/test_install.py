"""What was installed runs, with the extension and without."""

from __future__ import annotations

import json
import sys

import pytest
from environment import run

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]

CONVOLVE = """
import torch, sparsemeta as sm, sparsemeta.kernels, sparsemeta.bench
mask = torch.rand(8, 4, 3, 3) < 0.2
pattern = sm.Pattern.from_mask(mask)
x, weight = torch.rand(2, 4, 9, 9), torch.rand(8, 4, 3, 3)
y = sm.masked_conv2d(x, pattern.compress(weight), pattern, padding=1)
torch.testing.assert_close(y, torch.nn.functional.conv2d(x, weight * mask, padding=1))
print(sm.__file__)
"""


WITHOUT_EXTRAS = """
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(["tensorboard", "pytest", "pytest_benchmark", "ruff", "build"])  # None: not to be imported
import sparsemeta
for module in pkgutil.walk_packages(sparsemeta.__path__, "sparsemeta."):
    if not module.name.rpartition(".")[2].startswith(("test_", "conftest", "__main__")):
        importlib.import_module(module.name)
"""


def info(python, *options: str, cwd) -> str:
    return run(python.with_name("sparsemeta"), "info", *options, cwd=cwd, COLUMNS="400")


@pytest.mark.parametrize("installation", ["full", "bare"])
def test_it_answers(installation, request, tmp_path):
    python = request.getfixturevalue(installation)
    assert run(python, "-c", CONVOLVE, cwd=tmp_path).startswith(str(python.parents[1]))


def test_every_module_can_be_imported_without_the_extras(full, tmp_path):
    run(full, "-c", WITHOUT_EXTRAS, cwd=tmp_path)
    assert "an experiment" in run(full, "-m", "sparsemeta.bench.experiments", "--help", cwd=tmp_path).lower()


def test_info_says_ready(full, tmp_path):
    facts = json.loads(info(full, "--json", cwd=tmp_path))
    assert facts["backends"]["cpu"] == []
    assert facts["isa"] in facts["extension"]
    assert len(facts["openmp"]) <= 1  # none where they cannot be counted


def test_info_says_what_is_missing_and_what_to_do(bare, tmp_path):
    facts = json.loads(info(bare, "--json", cwd=tmp_path))
    assert facts["backends"]["dense"] == []
    [reason] = facts["backends"]["cpu"]
    assert "extension" in reason and "g++" in reason
    table = info(bare, cwd=tmp_path)
    assert "SPARSEMETA_NO_EXTENSION was set" in table and "pip install -v --force-reinstall" in table


def test_a_missing_compiler_is_recorded_and_no_error(sdist, tmp_path):
    (sdist / "csrc" / "module.cpp").touch()  # so that there is something to compile
    build = (sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path)
    run(*build, cwd=sdist, CC="no-such-compiler", CXX="no-such-compiler")
    record = json.loads((tmp_path / "sparsemeta" / "_build_info.json").read_text())
    assert "no-such-compiler" in record["sparsemeta._C"]["error"]
    assert not list(tmp_path.rglob("_C.*.so"))


@pytest.mark.parametrize(
    ("setting", "why"),
    [({"SPARSEMETA_CUDA": "0"}, "SPARSEMETA_CUDA=0 was set"), ({"CUDA_HOME": "nowhere"}, "not found in CUDA_HOME")],
)
def test_without_nvcc_the_rest_is_built_and_the_reason_recorded(setting, why, full, sdist, tmp_path):
    """After `full`, whose objects the build takes over."""
    run(sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path, cwd=sdist, **setting)
    record = json.loads((tmp_path / "sparsemeta" / "_build_info.json").read_text())
    assert why in record["sparsemeta._CUDA"]["error"]
    assert list(tmp_path.rglob("_C.*.so")) and not list(tmp_path.rglob("_CUDA.*.so"))


def test_info_says_what_the_cuda_extension_is_for_or_why_there_is_none(full, bare, tmp_path):
    """It is imported, and says what is missing, whether or not the machine has a driver."""
    facts = json.loads(info(full, "--json", cwd=tmp_path))
    assert facts["cuda extension"] or any("nvcc" in reason for reason in facts["backends"]["cuda"])
    assert "SPARSEMETA_NO_EXTENSION" in json.loads(info(bare, "--json", cwd=tmp_path))["backends"]["cuda"][0]
