"""One run on several processes: the tasks of a meta-batch are shared out, the meta-gradient is summed once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..data.tasks import Tasks


class RankError(RuntimeError):
    """Another process of the run has ended, does not answer, or runs something else."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; ``Ranks()`` is a run of one."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Of the default process group; one process where there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def span(self, tasks: int) -> slice:
        """This rank's of ``tasks`` tasks: contiguous, and as many as the others have, or one more."""
        return slice(self.rank * tasks // self.world, (self.rank + 1) * tasks // self.world)

    def share(self, tasks: Any) -> Any:
        """This rank's tasks of a batch; none where there are fewer than ranks."""
        if self.world == 1:
            return tasks
        fields = tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y
        return Tasks(*(field[self.span(len(field))] for field in fields))

    def reduce(self, optimizer: torch.optim.Optimizer, tasks: int, loss: float, accuracy: float) -> tuple[float, float]:
        """Means over this rank's ``tasks`` tasks become means over all: loss and accuracy, and the gradients in place.

        One all-reduce. Gradients, weighted by the tasks they are of, are summed in float64 where they are float64.
        """
        if self.world == 1:
            return loss, accuracy
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        own = grads[0].new_tensor([1, loss, accuracy])
        summed = self.sum(torch.cat([own, *(grad.flatten() for grad in grads)]) * tasks)
        (_, loss, accuracy), *means = (summed / summed[0]).split([3, *(grad.numel() for grad in grads)])
        for grad, mean in zip(grads, means, strict=True):
            grad.copy_(mean.view(grad.shape))
        return float(loss), float(accuracy)

    def sum(self, tensor: Tensor) -> Tensor:
        """``tensor``, now the sum over all ranks. Raises ``RankError`` if one of them is gone."""
        if self.world > 1:
            with answered():
                dist.all_reduce(tensor)
        return tensor

    def check_same(self, numbers: Tensor, what: str) -> None:
        """Raise ``RankError`` unless all ranks hold the same ``numbers``."""
        gathered = [torch.empty_like(numbers) for _ in range(self.world)]
        with answered():
            dist.all_gather(gathered, numbers)
        if not all(torch.equal(other, numbers) for other in gathered):
            raise RankError(f"expected {what} on all {self.world} processes; they differ. Start all with the same")


@contextmanager
def answered() -> Iterator[None]:
    """Errors of the process group, which come in many types and words, as ``RankError``."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what gloo and NCCL raise when a peer is gone or late
        raise RankError(
            "another process of the run has ended or does not answer; the run stops. "
            f"Look for its own error above, then start all again with --resume ({str(error).splitlines()[0]})"
        ) from error


@contextmanager
def joined(device: str, timeout: float) -> Iterator[Ranks]:
    """The run that ``torchrun`` started this process for, by its environment variables; else a run of one.

    Args:
        device: ``"cuda"`` for NCCL, else gloo.
        timeout: seconds after which a silent process counts as gone; longer than a meta-step, a validation or a
            checkpoint takes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # set by torchrun
        yield Ranks()
        return
    backend = "nccl" if device == "cuda" else "gloo"
    with answered():
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield Ranks.current()
    finally:
        dist.destroy_process_group()
