"""What has been measured, in memory and on disk, so that each machine measures each convolution once.

Every key has a file of its own in a folder for this version, kernels, processor and PyTorch: written whole or not at
all, so any number of processes can write at once without a lock and none loses what another has found.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..data.cache import cache_folder
from ..files import write_atomically
from . import cpu

SCHEMA = 1  # of the files
NOISE = 0.95
DENSE = "as_is"  # the usual route on a GPU: PyTorch, with its operands where they are
KERNELS = {
    "forward": "masked_conv2d",
    "input gradient": "masked_conv2d_input_grad",
    "weight gradient": "masked_conv2d_weight_grad",
}


class Key(NamedTuple):
    """What a time depends on, besides the machine."""

    operation: str  # one of KERNELS, or "norm_act_pool"
    images: tuple[int, ...]  # [T?, N, C, H, W] of the convolution's input
    weight: tuple[int, ...]
    block: tuple[int, ...]
    density: float  # kept fraction in two digits: which weights are kept matters little
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    dtype: str
    threads: int  # 0 on a GPU
    gpu: str = ""
    layout: str = ""  # "channels_last" where they are, on a GPU
    products: str = ""  # "tf32" or "ieee", of float32 on a GPU

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Key:
        """Inverse of `_asdict`, after JSON has made lists of tuples."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


Times = dict[str, float]  # seconds by route


@dataclass
class Store:
    """Times by key. `folder`: None for those that live as long as the process.

    Attributes:
        times: what is known; the fastest route of a key is its choice.
        gains: GPUs on which some choice is not dense.
    """

    folder: Path | None
    times: dict[Key, Times] = field(default_factory=dict)
    choices: dict[Key, str] = field(default_factory=dict)
    gains: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path in sorted(self.folder.glob("*.json")) if self.folder else ():
            if entry := _read(path):
                self._keep(*entry)

    def add(self, key: Key, times: Times) -> None:
        """Remember; what cannot be written to disk costs a warning, and time at the next start."""
        self._keep(key, times)
        if self.folder is None:
            return
        content = {"schema": SCHEMA, "key": key._asdict(), "seconds": times}
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{name}.json", json.dumps(content).encode())
        except OSError as error:
            advice = "set SPARSEMETA_CACHE to a folder you can write to"
            warnings.warn(f"could not keep the measured times: {error}; {advice}", stacklevel=2)
            self.folder = None

    def clear(self) -> None:
        """Forget everything, what other versions have measured too."""
        self.times.clear()
        self.choices.clear()
        self.gains.clear()
        if self.folder:
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _keep(self, key: Key, times: Times) -> None:
        self.times[key], self.choices[key] = times, fastest(times)
        if key.gpu and self.choices[key].partition(" ")[0] in ("triton", "cuda"):
            self.gains.add(key.gpu)


def fastest(times: Times) -> str:
    """Route with the least seconds; the usual one unless another is faster by more than the noise of a machine.

    On a CPU that is the sparse kernel, on a GPU dense PyTorch.
    """
    return min(times, key=lambda route: times[route] * (NOISE if route in ("cpu", DENSE) else 1.0))


def _read(path: Path) -> tuple[Key, Times] | None:
    try:
        content = json.loads(path.read_bytes())
        key, times = Key.from_json(content["key"]), {str(r): float(s) for r, s in content["seconds"].items()}
        if content["schema"] != SCHEMA or not times:
            raise ValueError(f"schema {content['schema']} with {len(times)} times")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"ignored the damaged file {path.name} of measured times ({error!r}); "
                      "it is written anew when that convolution is measured again", stacklevel=2)  # fmt: skip
        return None
    return key, times


@cache
def store() -> Store:
    """That of this process: read from disk at its first use."""
    try:
        return Store(cache_folder() / "tuning" / fingerprint())
    except RuntimeError:  # this user has no home folder
        return Store(None)


def fingerprint() -> str:
    """Name of what makes all times void when it changes."""
    from .. import __version__  # here: the package is complete only after its backends are

    kernels = zlib.crc32(Path(cpu.extension().__file__).read_bytes()) if cpu.extension() else 0
    facts = __version__, torch.__version__, cpu.isa(), processor(), kernels
    return f"{__version__}-{cpu.isa()}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


def processor() -> str:
    """Model name of the processor, as its maker gives it where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return name[1] if name else platform.processor() or platform.machine()
