"""Meta-learning: the MAML family, batch-norm modes, training and evaluation."""

from .adapt_tasks import adapt_tasks, forward_tasks
from .alfa import ALFA
from .algorithms import ALGORITHMS, Algorithm, as_learner
from .anil import ANIL
from .batch_norm import BN_MODES
from .boil import BOIL
from .cavia import CAVIA
from .checkpoint import CheckpointError, best_path
from .config import TrainConfig
from .distributed import RankError, Ranks
from .evaluate import Evaluation, evaluate
from .lambda_adapt import LambdaAdaptation
from .lambda_pattern import LambdaPattern
from .lambda_records import LambdaSearch
from .lambda_search import lambda_search
from .maml import MAML
from .maml_plus_plus import MAMLPlusPlus
from .meta_sgd import MetaSGD
from .meta_step import DivergenceError, make_learner, make_optimizer, meta_step
from .prepare import prepare
from .recipe import Recipe
from .records import StepRecord, ValidationRecord
from .reptile import Reptile
from .train import TrainResult, train
from .trained import Trained, load_trained

__all__ = [
    "ALFA",
    "ALGORITHMS",
    "ANIL",
    "BN_MODES",
    "BOIL",
    "CAVIA",
    "MAML",
    "Algorithm",
    "CheckpointError",
    "DivergenceError",
    "Evaluation",
    "MAMLPlusPlus",
    "MetaSGD",
    "RankError",
    "Ranks",
    "Recipe",
    "Reptile",
    "LambdaAdaptation",
    "LambdaPattern",
    "LambdaSearch",
    "StepRecord",
    "TrainConfig",
    "TrainResult",
    "Trained",
    "ValidationRecord",
    "adapt_tasks",
    "as_learner",
    "best_path",
    "evaluate",
    "forward_tasks",
    "load_trained",
    "lambda_search",
    "make_learner",
    "make_optimizer",
    "meta_step",
    "prepare",
    "train",
]
