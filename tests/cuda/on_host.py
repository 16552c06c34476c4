"""Compiles the source of a generated kernel with g++, and runs its blocks on the CPU, thread by thread."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc" / "cuda"
# Without optimisation: it is compiled longer than it runs. That a sum exceeds the registers means nothing here.
COMPILE = ["g++", "-std=c++17", "-O0", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
RUN = """
#include "emulate.h"
extern "C" int run(const sparsemeta::cuda::ConvArgs* args, std::int64_t blocks, int threads, int words) try {
  using namespace sparsemeta::cuda;
  using Registers = GeneratedRegisters<Code::rows, Code::pixels>;
  const Launch launch{blocks, threads, words, 0, false, 0, 0};
  run_blocks<Registers>(*args, launch, convolve_generated<SPARSEMETA_ELEMENT, Code, Team<Registers>>);
  return 0;
} catch (const std::exception&) { return 1; }
"""


class HostKernel:
    """In the place of `cuda_compile.Kernel`."""

    def __init__(self, library: Path):
        self.run = ctypes.CDLL(str(library)).run

    def launch(self, blocks: int, threads: int, shared_bytes: int, argument: bytes, stream: int) -> None:
        assert stream == 0
        failed = self.run(argument, ctypes.c_int64(blocks), threads, shared_bytes // 4)
        assert not failed, "a block wrote past its shared memory"


def loader(folder: Path) -> Callable[..., HostKernel]:
    """A `cuda_compile.load` that compiles into this folder."""

    def load(name, source, headers, defines, device) -> HostKernel:
        assert all((CSRC / header).read_text() == text for header, text in headers.items())
        assert f"{name}(" in headers["generated_conv2d.h"]
        path = folder / f"{hashlib.sha256(repr((source, defines)).encode()).hexdigest()[:16]}.cpp"
        path.write_text(source + RUN)
        flags = [f"-I{CSRC}", *(f"-D{key}={value}" for key, value in defines.items())]
        subprocess.run([*COMPILE, *flags, path, "-o", path.with_suffix(".so")], check=True)
        return HostKernel(path.with_suffix(".so"))

    return load
