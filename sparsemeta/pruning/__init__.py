"""Pruning: scores, distributions, schedules and kinds of sparsity, apart from each other; rewinding; ticket algebra."""

from . import anp, mwt, scores_obs, scores_synflow  # noqa: F401  they register methods and scores
from .algebra import Overlap, intersection, overlap, reinitialise, shuffle, union
from .cost import Cost, meta_passes, sample_flops, supervised_passes
from .dead_units import DeadUnits, dead_units
from .distributions import DISTRIBUTIONS, erk, masks_from_scores, ticket_from_scores
from .find import find_ticket
from .kinds import Kind
from .probe import Probe
from .rewind import RewindStore, Snapshot
from .schedules import SCHEDULES, schedule
from .scores import SCORES, score
from .search import METHODS, Found, Search, method
from .supervised import SupervisedRun
from .training import MetaRun, Trained, TrainingRun

__all__ = [
    "method",
    "find_ticket",
    "TrainingRun",
    "Trained",
    "SupervisedRun",
    "Search",
    "MetaRun",
    "Found",
    "METHODS",
    "DISTRIBUTIONS",
    "SCHEDULES",
    "SCORES",
    "Cost",
    "DeadUnits",
    "Kind",
    "Overlap",
    "Probe",
    "RewindStore",
    "Snapshot",
    "dead_units",
    "erk",
    "intersection",
    "masks_from_scores",
    "meta_passes",
    "overlap",
    "reinitialise",
    "sample_flops",
    "schedule",
    "score",
    "shuffle",
    "supervised_passes",
    "ticket_from_scores",
    "union",
]
