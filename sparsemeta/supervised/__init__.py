"""Experiments with tickets: elastic ones over a family of depths, and block shapes, each in one resumable run."""

from sparsemeta.supervised.experiment import experiment
from sparsemeta.supervised.experiment_config import Blocks, Experiment, Family

__all__ = ["Blocks", "Experiment", "Family", "experiment"]
