"""Kernels compiled at run time: by NVRTC for the GPU at hand, kept on disk, launched through the driver.

Both are reached through NVIDIA's cuda-bindings, which PyTorch for CUDA requires from 2.10 on. Not yet run on a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from ..data.cache import cache_folder
from ..files import write_atomically

_lock = threading.Lock()  # two threads would write the same file


@functools.cache
def missing() -> list[str]:
    """Why nothing can be compiled here, and what to do."""
    try:
        _version()
    except ImportError:
        return ["cuda-bindings is not installed (pip install cuda-bindings)"]
    except RuntimeError as error:  # of its loader: no such library
        return [f"NVRTC cannot be loaded ({error}); pip install nvidia-cuda-nvrtc"]
    return []


def device_reasons(device: torch.device) -> list[str]:
    """Why nothing can be compiled for that GPU."""
    if found := missing():
        return list(found)
    major, minor = torch.cuda.get_device_capability(device)
    known = _checked(_nvrtc().nvrtcGetSupportedArchs())
    return [] if 10 * major + minor in known else [f"NVRTC {_version()} does not know sm_{major}{minor}; update it"]


@dataclass(frozen=True)
class Kernel:
    """A kernel with one argument, loaded on one GPU. It stays loaded: unloading would have to wait for its launches."""

    context: Any
    function: Any

    def launch(self, blocks: int, threads: int, shared_bytes: int, argument: bytes, stream: int) -> None:
        """Raises `RuntimeError` with the driver's words if it cannot be launched."""
        if not blocks:
            return
        if blocks >= 2**31:
            raise RuntimeError("expected at most 2^31 - 1 blocks, got more; split the batch")
        driver, memory = _driver(), ctypes.create_string_buffer(argument, len(argument))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(memory))
        _checked(driver.cuCtxSetCurrent(self.context))  # a thread that only launches may have none
        size = blocks, 1, 1, threads, 1, 1, shared_bytes
        _checked(driver.cuLaunchKernel(self.function, *size, driver.CUstream(stream), ctypes.addressof(pointers), 0))


def load(name: str, source: str, headers: Mapping[str, str], defines: Mapping[str, str], device: int) -> Kernel:
    """The kernel of that name, compiled for the GPU unless it was before.

    Raises:
        RuntimeError: the compiler or the driver refuses it; with their words.
    """
    major, minor = torch.cuda.get_device_capability(device)
    code = compiled(source, headers, defines, f"sm_{major}{minor}")
    driver = _driver()
    context = _checked(driver.cuDevicePrimaryCtxRetain(_checked(driver.cuDeviceGet(device))))
    _checked(driver.cuCtxSetCurrent(context))
    module = _checked(driver.cuModuleLoadData(code))
    return Kernel(context, _checked(driver.cuModuleGetFunction(module, name.encode())))


def compiled(source: str, headers: Mapping[str, str], defines: Mapping[str, str], gpu: str) -> bytes:
    """Code for `gpu` (`"sm_90"`): from the cache folder, or else compiled now and put there."""
    facts = source, sorted(headers.items()), sorted(defines.items()), gpu, _version()
    name = f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.cubin"
    with _lock:
        try:
            return (cache_folder() / "cuda" / name).read_bytes()
        except (OSError, RuntimeError):  # not there yet, or no home folder
            code = _compile(source, headers, defines, gpu)
        try:
            (cache_folder() / "cuda").mkdir(parents=True, exist_ok=True)
            write_atomically(cache_folder() / "cuda" / name, code)
        except (OSError, RuntimeError) as error:
            advice = "set SPARSEMETA_CACHE to a folder you can write to"
            warnings.warn(f"could not keep the compiled kernel: {error}; {advice}", stacklevel=2)
    return code


def _compile(source: str, headers: Mapping[str, str], defines: Mapping[str, str], gpu: str) -> bytes:
    nvrtc = _nvrtc()
    names, texts = [n.encode() for n in headers], [t.encode() for t in headers.values()]
    program = _checked(nvrtc.nvrtcCreateProgram(source.encode(), b"generated.cu", len(names), texts, names))
    flags = ["-std=c++17", f"-arch={gpu}", *(f"-D{name}={value}" for name, value in defines.items())]
    try:
        [status] = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        if status:
            log = bytes(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise RuntimeError(f"NVRTC cannot compile for {gpu}: {log.decode().rstrip(chr(0)).strip()}")
        code = bytes(_checked(nvrtc.nvrtcGetCUBINSize(program)))
        _checked(nvrtc.nvrtcGetCUBIN(program, code))
        return code
    finally:
        nvrtc.nvrtcDestroyProgram(program)


@functools.cache
def _version() -> str:
    return ".".join(map(str, _checked(_nvrtc().nvrtcVersion())))


def _nvrtc() -> ModuleType:
    from cuda.bindings import nvrtc  # optional

    return nvrtc


def _driver() -> ModuleType:
    from cuda.bindings import driver  # optional

    return driver


def _checked(answer: tuple) -> Any:
    """What a call answered besides its status; raises `RuntimeError` with the name of a status that is no success."""
    status, *rest = answer
    if status:
        raise RuntimeError(status.name)
    return rest[0] if len(rest) == 1 else rest
