"""Meta-learning: MAML, its batch-norm modes, training and evaluation."""

from .batch_norm import BN_MODES
from .checkpoint import CheckpointError
from .config import TrainConfig
from .evaluate import Evaluation, evaluate
from .lambda_adapt import LambdaAdaptation
from .lambda_pattern import LambdaPattern
from .lambda_records import LambdaSearch
from .lambda_search import lambda_search
from .maml import MAML
from .meta_step import DivergenceError, make_learner, make_optimizer, meta_step
from .run import StepRecord
from .train import TrainResult, train

__all__ = [
    "BN_MODES",
    "MAML",
    "CheckpointError",
    "DivergenceError",
    "Evaluation",
    "LambdaAdaptation",
    "LambdaPattern",
    "LambdaSearch",
    "StepRecord",
    "TrainConfig",
    "TrainResult",
    "evaluate",
    "lambda_search",
    "make_learner",
    "make_optimizer",
    "meta_step",
    "train",
]
