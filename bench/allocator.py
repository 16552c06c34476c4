"""Takes the cost of fresh memory out of the times, for dense and sparse alike.

glibc gives freed buffers of some megabytes back to the system, so each output pays for its pages anew: on a virtual
machine about 1.6 microseconds for 4 KB, a large part of a fast convolution. A training loop pays it too, unless its
allocator keeps memory (jemalloc, tcmalloc, or glibc told so as here).
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # from malloc.h


def keep_freed_memory() -> bool:
    """Make glibc keep what is freed, for the rest of the process. False where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    # No threshold for mmap is high enough for every glibc (some refuse above 32 MB), so: no mmap at all.
    return bool(mallopt(_TRIM_THRESHOLD, -1)) and bool(mallopt(_MMAP_MAX, 0))
