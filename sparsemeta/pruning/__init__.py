"""Pruning: scores, distributions, schedules and kinds of sparsity, apart from each other; rewinding; ticket algebra."""

from . import anp, mwt, scores_obs, scores_synflow  # noqa: F401  they register methods and scores
from .algebra import Overlap, intersection, overlap, reinitialise, shuffle, union
from .block_tickets import block_ticket
from .channel_permutation import permute_channels
from .cost import Cost, meta_passes, sample_flops, supervised_passes
from .dead_units import DeadUnits, dead_units
from .distributions import DISTRIBUTIONS, erk, masks_from_scores, ticket_from_scores
from .elastic import squeeze, stretch
from .elastic_controls import control
from .elastic_transfer import transfer
from .find import find_ticket
from .kinds import Kind
from .probe import Probe
from .rewind import RewindStore, Snapshot
from .schedules import SCHEDULES, schedule
from .scores import SCORES, score
from .search import METHODS, Found, Search, method
from .supervised import SupervisedRun
from .training import MetaRun, Trained, TrainingRun
from .units import UnitRule

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
    "UnitRule",
    "block_ticket",
    "control",
    "dead_units",
    "erk",
    "intersection",
    "masks_from_scores",
    "meta_passes",
    "overlap",
    "permute_channels",
    "reinitialise",
    "sample_flops",
    "schedule",
    "score",
    "shuffle",
    "squeeze",
    "stretch",
    "supervised_passes",
    "ticket_from_scores",
    "transfer",
    "union",
]
