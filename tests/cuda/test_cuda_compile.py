"""nvcc accepts the kernels for every GPU without a warning, and they take no more than their table allows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sparsemeta import _build

SOURCES = sorted((Path(__file__).parents[2] / "csrc" / "cuda").glob("*.cu"))
TABLE = json.loads(Path(__file__).with_name("resources.json").read_text())
GPUS = sorted({gpu for kernel in TABLE.values() for gpu in kernel})
NVCC = shutil.which("nvcc", path=f"{os.environ.get('CUDA_HOME', '')}/bin:{os.environ['PATH']}")

pytestmark = [
    pytest.mark.skipif(not NVCC, reason="nvcc is neither in CUDA_HOME nor in PATH"),
    pytest.mark.xdist_group("nvcc"),  # one process, so that the sources are compiled once
]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[tuple[str, str], dict[str, int]]:
    """What ptxas says of each kernel on each GPU."""
    gpus = [f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in GPUS]
    flags = ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v", "-t", "0"]
    text = ""
    for source in SOURCES:
        built = tmp_path_factory.mktemp("cuda") / "object.o"
        done = subprocess.run([NVCC, *flags, *gpus, "-c", source, "-o", built], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        text += done.stdout + done.stderr
    return usage(text)


def usage(text: str) -> dict[tuple[str, str], dict[str, int]]:
    found = {}
    for part in text.split("Compiling entry function ")[1:]:
        name, gpu = re.match(r"'(\w+)' for 'sm_(\w+)'", part).groups()
        numbers = {
            "stack": r"(\d+) bytes stack", "stores": r"(\d+) bytes spill stores", "loads": r"(\d+) bytes spill loads",
            "registers": r"Used (\d+) registers", "shared": r"(\d+) bytes smem",
        }  # fmt: skip
        matches = {key: re.search(pattern, part) for key, pattern in numbers.items()}
        found[readable(name), gpu] = {key: int(match[1]) if match else 0 for key, match in matches.items()}
    return found


def readable(name: str) -> str:
    """`masked_conv2d<bf16, 8>` for a mangled name."""
    kernel, element, pixels = re.search(r"\d((?:masked|inner)_[a-z0-9_]+)I(f|NS0_4Bf16E)(?:Li(\d)E)?E", name).groups()
    return f"{kernel}<{', '.join(filter(None, ({'f': 'fp32'}.get(element, 'bf16'), pixels)))}>"


def test_table_has_every_kernel_and_gpu(report):
    assert set(report) == {(kernel, gpu) for kernel, gpus in TABLE.items() for gpu in gpus}
    assert GPUS == ["100", "80", "86", "89", "90"]


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("kernel", TABLE)
def test_resources_are_within_the_table(kernel, gpu, report):
    """Registers at most those of the table; nothing spilled; the only shared memory is what a launch asks for."""
    used = report[kernel, gpu]
    assert used.pop("registers") <= TABLE[kernel][gpu]
    assert used == {"stack": 0, "stores": 0, "loads": 0, "shared": 0}


@pytest.mark.skipif(bool(_build.missing("_CUDA")), reason=f"no CUDA extension: {_build.missing('_CUDA')}")
def test_extension_is_for_every_gpu():
    assert _build.gpus() == [*(f"sm_{gpu}" for gpu in sorted(GPUS, key=int)), "compute_100"]
