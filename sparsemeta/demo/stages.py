"""The demo's meta-training: dense, with an early state kept aside, and the ticket from that state on.

Every stage writes a checkpoint and goes on from the one it finds, so that running all again continues what was
interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sparsemeta import backends
from sparsemeta.data import ImageClasses, TaskSampler
from sparsemeta.demo.settings import KEPT_DENSE, Settings
from sparsemeta.demo.tasks import draw
from sparsemeta.files import write_atomically
from sparsemeta.meta import StepRecord, TrainConfig, train
from sparsemeta.meta.seeds import seeded
from sparsemeta.models import Conv4
from sparsemeta.nn import sparsify
from sparsemeta.ticket import Ticket


@dataclass(frozen=True)
class Stages:
    """The stages of one demo on the training classes ``images``, with their checkpoints in ``folder``."""

    settings: Settings
    images: ImageClasses
    folder: Path

    def train_early(self) -> None:
        """Dense, up to the step that the ticket will rewind to."""
        model, sampler = self._beginning()
        self._train(model, sampler, self._early_config, self._early)

    def train_dense(self) -> tuple[nn.Module, list[StepRecord]]:
        """Dense, from there to the end. Needs ``train_early``."""
        model, sampler = self._beginning()
        checkpoint = self.folder / "dense.safetensors"
        if not checkpoint.exists():
            write_atomically(checkpoint, self._early.read_bytes())
        return model, self._train(model, sampler, self._dense_config, checkpoint)

    def draw_ticket(self, dense: nn.Module) -> Ticket:
        """The largest weights of all convolutions together."""
        return Ticket.magnitude(dense, self.settings.sparsity, scope="global", exclude=KEPT_DENSE)

    def train_ticket(self, ticket: Ticket) -> tuple[nn.Module, list[StepRecord]]:
        """The ticket with the early weights, on the tasks that dense saw from there on. Needs ``train_early``."""
        model, sampler = self._beginning()
        train(model, sampler, self._early_config, self._early, resume=True, progress=False)  # only loads: it is done
        config = replace(self.settings.config(), steps=self.settings.steps - self.settings.rewind)
        sparse = sparsify(model, ticket)
        return sparse, self._train(sparse, sampler, config, self.folder / "ticket.safetensors")

    @property
    def _early(self) -> Path:
        return self.folder / "rewind.safetensors"

    @property
    def _early_config(self) -> TrainConfig:
        return replace(self._dense_config, steps=self.settings.rewind)

    @property
    def _dense_config(self) -> TrainConfig:
        """With the kernels that the ticket has, in half of PyTorch's time; only the timing compares the two."""
        if backends.cpu.missing():
            return self.settings.config("channels_last")  # the faster layout for most shapes
        return replace(self.settings.config(), engine="chain")

    def _beginning(self) -> tuple[nn.Module, TaskSampler]:
        config = self.settings.config()
        channels, *size = self.images.image_shape
        with seeded(config.seed, torch.device("cpu")):
            model = Conv4(config.ways, channels, self.settings.hidden, size)
        return model, draw(self.images, config)

    @staticmethod
    def _train(model: nn.Module, sampler: TaskSampler, config: TrainConfig, checkpoint: Path) -> list[StepRecord]:
        return train(model, sampler, config, checkpoint, resume=checkpoint.exists()).history
