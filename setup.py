"""Builds the optional extensions `sparsemeta._C` and `sparsemeta._CUDA`; the rest of the package is in pyproject.toml.

The files of csrc/cpu are compiled once per instruction set, and the module chooses among them at run time; those of
csrc/cuda by nvcc for every GPU at once, where nvcc is found.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
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

# Code for these GPUs, and PTX of the last one for what comes after; an older nvcc leaves out what it does not know.
GPUS = ["80", "86", "89", "90", "100"]
NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden"]


def sources(pattern: str) -> list[str]:
    return sorted(map(str, Path("csrc").glob(pattern)))


# CUDA kernels run by the CPU
EMULATED = [f"csrc/cuda/{name}.cpp" for name in ("conv_source", "conv_table", "emulate", "emulated")]
HOST = sources("*.cpp") + EMULATED
KERNELS = sources("cpu/*.cpp")
CUDA_HOST = [f"csrc/cuda/{name}.cpp" for name in ("conv_source", "conv_table", "module")]
CUDA = sources("cuda/*.cu")
HEADERS, CUDA_HEADERS = sources("*.h") + sources("cpu/*.h"), sources("cuda/*.h")
GENERATED = [f"csrc/cuda/{name}.h" for name in ("portable", "conv_index", "masked_conv2d", "generated_conv2d")]
EMBEDDED = "embedded_headers.inc"  # those, in the extension, so that code compiled at run time fits it
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
        try:
            if os.environ.get("SPARSEMETA_NO_EXTENSION", "0") != "0":  # for tests of an installation without them
                raise CompileError("SPARSEMETA_NO_EXTENSION was set when sparsemeta was installed")
            self._embed_headers()
            done = self._build_cuda(target) if extension.name.endswith("_CUDA") else self._build_cpu(target)
        except Exception as error:
            done = {"error": str(error)}
            raise
        finally:
            self.record = getattr(self, "record", {}) | {extension.name: done}
            target.with_name(RECORD).write_text(json.dumps(self.record))

    def copy_extensions_to_source(self) -> None:
        """Editable: the new extensions, or the reasons why there are none, replace what the source tree has."""
        for extension in self.extensions:
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        super().copy_extensions_to_source()
        in_place = Path(self.get_ext_fullpath("sparsemeta._C")).with_name(RECORD)
        self.copy_file(os.path.join(self.build_lib, "sparsemeta", RECORD), str(in_place))

    def _embed_headers(self) -> None:
        text = "".join(f'{{"{Path(h).name}", R"~~~({Path(h).read_text()})~~~"}},\n' for h in GENERATED)
        Path(self.build_temp).mkdir(parents=True, exist_ok=True)
        Path(self.build_temp, EMBEDDED).write_text(text)

    def _build_cpu(self, target: Path) -> dict:
        jobs = [("baseline", source) for source in HOST] + [(isa, source) for isa in VARIANTS for source in KERNELS]
        objects = self._compile_all(lambda job: self._compile(*job, include=_pybind11_include()), jobs)
        self.compiler.link_shared_object(objects, str(target), target_lang="c++")
        return {"variants": list(VARIANTS)}

    def _build_cuda(self, target: Path) -> dict:
        nvcc = _nvcc()
        gpus = [gpu for gpu in GPUS if f"sm_{gpu}" in _run(nvcc, "--list-gpu-code").split()]
        if not gpus:
            raise CompileError(f"{nvcc} compiles for none of the GPUs sm_{', sm_'.join(GPUS)}; CUDA 11 and newer do")
        objects = self._compile_all(lambda source: self._compile_cuda(nvcc, gpus, source), CUDA)
        objects += [self._compile("baseline", source, include=_pybind11_include()) for source in CUDA_HOST]
        _run(nvcc, "-shared", "-cudart", "static", *objects, "-o", str(target))
        return {"gpus": [*(f"sm_{gpu}" for gpu in gpus), f"compute_{gpus[-1]}"]}

    def _compile_all(self, compile_one, jobs: list) -> list[str]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(compile_one, jobs))

    def _compile_cuda(self, nvcc: str, gpus: list[str], source: str) -> str:
        built = Path(self.build_temp, "cuda", source).with_suffix(".o")
        if not _is_newer(str(built), [source, "setup.py", *CUDA_HEADERS]):
            built.parent.mkdir(parents=True, exist_ok=True)
            # `-t 0`: the GPUs side by side
            _run(nvcc, "-t", "0", *NVCC_FLAGS, *_targets(gpus), "-c", source, "-o", str(built))
        return str(built)

    def _compile(self, isa: str, source: str, include: str) -> str:
        folder = os.path.join(self.build_temp, isa)
        [built] = self.compiler.object_filenames([source], output_dir=folder)
        headers = HEADERS if "cuda" not in Path(source).parts else HEADERS + CUDA_HEADERS
        if _is_newer(built, [source, "setup.py", *headers]):
            return built
        options = {
            "macros": [("SPARSEMETA_ISA", isa)],
            "include_dirs": ["csrc", self.build_temp, include, *self.include_dirs],
            "extra_postargs": FLAGS + VARIANTS[isa],
        }
        try:
            return self.compiler.compile([source], output_dir=folder, **options)[0]
        except CompileError as error:
            why = re.sub(r"Command '\[.*\]'", "the compiler", str(error))  # newer setuptools quote the whole command
            raise CompileError(f"{source} for {isa}: {why.rstrip('.')}") from error


def _nvcc() -> str:
    if os.environ.get("SPARSEMETA_CUDA", "1") == "0":  # for machines whose nvcc is not to be used
        raise CompileError("SPARSEMETA_CUDA=0 was set when sparsemeta was installed")
    home = os.environ.get("CUDA_HOME")  # where PyTorch looks too
    found = shutil.which("nvcc", path=os.path.join(home, "bin")) if home else shutil.which("nvcc")
    if not found:
        raise CompileError(f"nvcc was not found in {'CUDA_HOME' if home else 'PATH'} when sparsemeta was installed")
    return found


def _targets(gpus: list[str]) -> list[str]:
    code = [f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in gpus]
    return [*code, f"-gencode=arch=compute_{gpus[-1]},code=compute_{gpus[-1]}"]


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:  # what is called nvcc is no program
        raise CompileError(f"nvcc failed: {error}") from error
    if done.returncode:
        raise CompileError(f"nvcc failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


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
    ext_modules=[
        Extension("sparsemeta._C", HOST + KERNELS, depends=HEADERS + CUDA_HEADERS, language="c++", optional=True),
        Extension("sparsemeta._CUDA", CUDA_HOST + CUDA, depends=CUDA_HEADERS, language="c++", optional=True),
    ],
    cmdclass={"build_ext": BuildExtension},
)
