"""A trained learner put to use: adapt to a few labelled images, classify others, and say what it took."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from .maml import MAML
from .meta_step import adapted

REPEATS = 5  # of the adaptation; the first also builds kernel plans and touches memory


@dataclass(frozen=True, eq=False)
class Classified:
    """What classifying took and gave.

    Attributes:
        probabilities: ``[queries, ways]``.
        first_ms: milliseconds of the first adaptation in this process.
        adapt_ms: of the following ones, median.
        classify_ms: of the classification of all queries after that, median.
        peak_mb: most memory of the process so far, in MB, PyTorch itself included; on a GPU, of its tensors there.
            None where the system does not tell.
        extra_mb: by how much adapting and classifying raised it.
    """

    probabilities: Tensor
    first_ms: float
    adapt_ms: float
    classify_ms: float
    peak_mb: float | None
    extra_mb: float | None


def adapt_and_classify(learner: MAML, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int) -> Classified:
    """Adapt ``learner`` by ``steps`` inner steps and classify ``query_x``.

    Args:
        support_x, support_y: images ``[S, C, H, W]`` and labels int64 ``[S]``, on the learner's device.
        query_x: images ``[Q, C, H, W]``. In ``bn_mode="transductive"`` they are normalised together.
    """
    learner = learner.clone(first_order=True)
    learner.module.eval()
    before, times = peak_mb(query_x.device), []
    for _ in range(REPEATS):
        begin = clock(query_x.device)
        clone = adapted(learner, support_x, support_y, steps)
        middle = clock(query_x.device)
        with torch.no_grad():
            probabilities = F.softmax(clone(query_x), 1)
        times.append((middle - begin, clock(query_x.device) - middle))
    (first, _), *later = times
    adapt, classify = (1000 * median(part) for part in zip(*later, strict=True))
    peak = peak_mb(query_x.device)
    extra = None if peak is None or before is None else peak - before
    return Classified(probabilities, 1000 * first, adapt, classify, peak, extra)


def clock(device: torch.device) -> float:
    """Seconds, when all work given to ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_mb(device: torch.device) -> float | None:
    """Most memory used so far: of the process or, for a GPU, of PyTorch's tensors there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6
