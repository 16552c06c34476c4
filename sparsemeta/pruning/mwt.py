"""Meta winning tickets by a light search, which prunes as soon as the pattern to keep has stopped moving."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path

from torch import nn

from .imp import check_beginning, check_length, check_search, identity
from .imp_state import ImpState
from .mwt_detection import Detector
from .mwt_search import LightSearch
from .score_rounds import ScoreRounds
from .search import Found, Search, method


@method("mwt")
def mwt(model: nn.Module, search: Search) -> Found:
    """Light search for a meta winning ticket (Gao et al., *Finding Meta Winning Ticket to Train Your MAML*, KDD 2022).

    A reconstruction from the abstract. Levels of .8^j down to the target; inside a level, every `every` steps, the
    largest weights of the whole network that the level would keep (at least one of each output unit), until their
    inter-layer and intra-layer patterns have stopped moving or the level's cap is reached; then the others are pruned,
    and training goes on with the weights and moments that stay, in sparse layers from the first pruning on. Meta-
    gradients are of first order. At the end the ticket is rewound once, to step `search.rewind` of the run.

    Options: those of `Detector`; by default a level's cap is an eighth of the run's steps. `light_order`, 1, or 2 for
    the run's own meta-gradients, where a short search learns too little with the first order. `search.keep_one` is
    `"unit"` whatever it says.

    Its trace has a record for each check: level, step, the ticket's kept weights and fractions, both distances, why the
    level is over, loss, accuracy, FLOPs and seconds.
    """
    check_search(model, search)
    own = {field.name: search.options[field.name] for field in fields(Detector) if field.name in search.options}
    every = own.get("every", Detector.every)
    detector = Detector(**{"cap": max(search.run.steps // 8, every), **own})
    if (order := search.options.get("light_order", 1)) not in (1, 2):
        raise ValueError(f"expected light_order, that of the search's meta-gradients, to be 1 or 2; got {order!r}")
    others = {key: value for key, value in search.options.items() if key not in (*own, "light_order")}
    rounds = ScoreRounds("magnitude", "iterative", replace(search, keep_one="unit", options=others))
    check_length(search, search.rewind + len(rounds.levels) * detector.cap)
    with tempfile.TemporaryDirectory() as temporary:
        state = ImpState(search.state or Path(temporary))
        settings = {"method": "mwt", "levels": rounds.levels, "detector": vars(detector), **identity(search)}
        state.open(settings, search.resume)
        check_beginning(model, state)
        return LightSearch(model, rounds, detector, state, order).found()
