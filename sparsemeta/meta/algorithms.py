"""The algorithms by name, for configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .alfa import ALFA
from .anil import ANIL
from .boil import BOIL
from .cavia import CAVIA
from .config import TrainConfig
from .maml import MAML
from .maml_plus_plus import MAMLPlusPlus
from .meta_sgd import MetaSGD
from .reptile import Reptile

ANY = ("allow_unused", "adapt_only")
OWN_PARTS = ("allow_unused",)  # of those that choose themselves what adapts


@dataclass(frozen=True)
class Algorithm:
    """An entry of ``ALGORITHMS``.

    Attributes:
        learner: its class.
        options: arguments of the class that a configuration may give in ``algorithm_options``.
        fixed: arguments of the class that make it this algorithm.
    """

    learner: type[MAML]
    options: tuple[str, ...] = ANY
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def make(self, model: nn.Module, config: TrainConfig, options: Mapping[str, Any]) -> MAML:
        """The learner with rate, order, batch-norm mode and number of steps of ``config``, and ``options``.

        Raises:
            ValueError: options that it does not have; what the class raises.
        """
        if strangers := options.keys() - set(self.options):
            raise ValueError(
                f"expected algorithm_options among {list(self.options)} for {self.learner.__name__}; got "
                f"{sorted(strangers)}. Leave them out, or choose another algorithm"
            )
        general = {
            "lr": config.inner_lr,
            "first_order": config.first_order,
            "bn_mode": config.bn_mode,
            "second_order": config.second_order,
            "steps": config.inner_steps,
        }
        return self.learner(model, **{**general, **options, **self.fixed})


ALGORITHMS = {
    "maml": Algorithm(MAML),
    "fomaml": Algorithm(MAML, fixed={"first_order": True}),
    "anil": Algorithm(ANIL, (*OWN_PARTS, "head")),
    "boil": Algorithm(BOIL, (*OWN_PARTS, "head")),
    "reptile": Algorithm(Reptile),
    "meta_sgd": Algorithm(MetaSGD),
    "maml++": Algorithm(MAMLPlusPlus, (*ANY, "multi_step_until", "first_order_until")),
    "alfa": Algorithm(ALFA, (*ANY, "weight_decay")),
    "cavia": Algorithm(CAVIA, (*OWN_PARTS, "context")),
}


def as_learner(model: nn.Module, config: TrainConfig) -> MAML:
    """The learner that ``config`` describes for ``model``; a learner itself, also one of your own kind, as it is.

    Args:
        config: gives ``algorithm`` and ``algorithm_options``.

    Raises:
        ValueError: an unknown algorithm, options that it does not have, or a learner of another algorithm.
    """
    name = config.algorithm
    if name not in ALGORITHMS:
        raise ValueError(f"expected algorithm to be one of {', '.join(ALGORITHMS)}; got {name!r}")
    algorithm = ALGORITHMS[name]
    if not isinstance(model, MAML):
        return algorithm.make(model, config, config.algorithm_options)
    if type(model) is not algorithm.learner and type(model) in {known.learner for known in ALGORITHMS.values()}:
        raise ValueError(
            f"expected a learner of {name!r}, {algorithm.learner.__name__}; got {type(model).__name__}. Give the "
            "config that the learner was made with"
        )
    return model
