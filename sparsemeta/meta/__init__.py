"""Meta-learning: MAML, its batch-norm modes, training and evaluation."""

from .batch_norm import BN_MODES
from .checkpoint import CheckpointError, best_path
from .config import TrainConfig
from .distributed import RankError, Ranks
from .evaluate import Evaluation, evaluate
from .maml import MAML
from .meta_step import DivergenceError, make_learner, make_optimizer, meta_step
from .records import StepRecord, ValidationRecord
from .train import TrainResult, train

__all__ = [
    "BN_MODES",
    "MAML",
    "CheckpointError",
    "DivergenceError",
    "Evaluation",
    "RankError",
    "Ranks",
    "StepRecord",
    "TrainConfig",
    "TrainResult",
    "ValidationRecord",
    "best_path",
    "evaluate",
    "make_learner",
    "make_optimizer",
    "meta_step",
    "train",
]
