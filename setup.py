"""Builds the optional extension `sparsemeta._C`; everything else about the package is in pyproject.toml.

The files of csrc/cpu are compiled once per instruction set, and the module chooses among them at run time.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# -fopenmp is for the compiler only. Linking libgomp would put a second OpenMP runtime beside the one that torch loads.
FLAGS = ["-std=c++17", "-O3", "-g0", "-fopenmp", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=fast"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"]
# Oldest first: of a template compiled in several variants the linker keeps the first copy, and that one must run
# on every machine.
VARIANTS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    VARIANTS |= {"avx2": ["-mavx2", "-mfma"], "avx512": AVX512}

HOST = sorted(map(str, Path("csrc").glob("*.cpp")))
KERNELS = sorted(map(str, Path("csrc/cpu").glob("*.cpp")))
HEADERS = sorted(map(str, Path("csrc").rglob("*.h")))
RECORD = "_build_info.json"  # beside the extension, read by sparsemeta/_build.py


class BuildExtension(build_ext):
    """Compiles in parallel, recompiles only what changed, and records why an extension is missing."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # An editable build gets a new temporary folder each time; a lasting one is what makes rebuilding quick.
        self.build_temp = os.path.join("build", f"objects-{sys.implementation.cache_tag}-{platform.machine()}")

    def build_extension(self, extension: Extension) -> None:
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # otherwise a failed build would ship the result of an earlier one
        record = {"variants": list(VARIANTS)}
        try:
            self._compile_and_link(extension, target)
        except Exception as error:
            record = {"error": str(error)}
            raise
        finally:
            target.with_name(RECORD).write_text(json.dumps(record))

    def copy_extensions_to_source(self) -> None:
        """Editable: the new extension, or the reason why there is none, replaces what the source tree has."""
        in_place = Path(self.get_ext_fullpath("sparsemeta._C"))
        in_place.unlink(missing_ok=True)
        super().copy_extensions_to_source()
        self.copy_file(os.path.join(self.build_lib, "sparsemeta", RECORD), str(in_place.with_name(RECORD)))

    def _compile_and_link(self, extension: Extension, target: Path) -> None:
        if os.environ.get("SPARSEMETA_NO_EXTENSION", "0") != "0":  # for tests of an installation without it
            raise CompileError("SPARSEMETA_NO_EXTENSION was set when sparsemeta was installed")
        jobs = [("baseline", source) for source in HOST] + [(isa, source) for isa in VARIANTS for source in KERNELS]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda job: self._compile(*job, include=_pybind11_include()), jobs))
        self.compiler.link_shared_object(objects, str(target), target_lang="c++")

    def _compile(self, isa: str, source: str, include: str) -> str:
        folder = os.path.join(self.build_temp, isa)
        [built] = self.compiler.object_filenames([source], output_dir=folder)
        if _is_newer(built, [source, "setup.py", *HEADERS]):
            return built
        options = {
            "macros": [("SPARSEMETA_ISA", isa)],
            "include_dirs": ["csrc", include, *self.include_dirs],
            "extra_postargs": FLAGS + VARIANTS[isa],
        }
        try:
            return self.compiler.compile([source], output_dir=folder, **options)[0]
        except CompileError as error:
            why = re.sub(r"Command '\[.*\]'", "the compiler", str(error))  # newer setuptools quote the whole command
            raise CompileError(f"{source} for {isa}: {why.rstrip('.')}") from error


def _pybind11_include() -> str:
    try:
        import pybind11
    except ImportError as error:  # only where the user turned build isolation off
        raise CompileError("pybind11 was not installed when sparsemeta was built (pip install pybind11)") from error
    return pybind11.get_include()


def _is_newer(built: str, sources: list[str]) -> bool:
    return os.path.exists(built) and all(os.path.getmtime(built) > os.path.getmtime(source) for source in sources)


setup(
    license="Apache-2.0",
    packages=[
        *find_packages(include=["sparsemeta", "sparsemeta.*"]),
        "sparsemeta.kernels",
        *("sparsemeta." + name for name in find_packages(include=["bench", "bench.*"])),
    ],
    package_dir={"sparsemeta.kernels": "kernels", "sparsemeta.bench": "bench"},
    package_data={"sparsemeta": ["py.typed", "*.pyi"]},
    ext_modules=[Extension("sparsemeta._C", HOST + KERNELS, depends=HEADERS, language="c++", optional=True)],
    cmdclass={"build_ext": BuildExtension},
)
