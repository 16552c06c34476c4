"""Distances by hand, and levels with scripted distances."""

from __future__ import annotations

import pytest
import torch

from sparsemeta.pruning.mwt_detection import Detector, Distances, Level, distances, kept_fraction
from sparsemeta.ticket import Ticket


def ticket(**rows: list[int]) -> Ticket:
    return Ticket.from_masks({name: torch.tensor([row]).bool() for name, row in rows.items()})


def test_distances_by_hand():
    before = ticket(a=[1, 1, 0, 0], b=[1, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    now = ticket(a=[1, 0, 0, 0], b=[1, 0, 0, 1, 0, 0, 0, 0, 1, 0])
    assert kept_fraction(now) == {"a": 0.25, "b": 0.3}
    moved = distances(now, before)
    assert moved.inter == pytest.approx((0.25 + 0.1) / 2)  # mean over layers, however large they are
    assert moved.intra == pytest.approx(1 - 2 / 4)  # 2 of the 4 kept were kept before
    assert distances(now, now) == Distances(0, 0)


def follow(detector: Detector, moves: list[Distances | None]) -> tuple[int, str]:
    """How many checks a level has made when it is over, and why."""
    level = Level()
    for number, moved in enumerate(moves, 1):
        level = level.checked(detector, level.next_check(detector), moved)
        if why := level.over(detector):
            return number, why
    return len(moves), ""


CALM, LAYERS, INSIDE = Distances(0.01, 0.05), Distances(0.03, 0.05), Distances(0.01, 0.15)
DETECTOR = Detector(every=10, checks=3, cap=100)


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([None, CALM, CALM, CALM], (4, "stable")),
        ([None, CALM, CALM], (3, "")),
        ([None, CALM, CALM, LAYERS, CALM, CALM, CALM], (7, "stable")),
        ([None, CALM, CALM, INSIDE, CALM, CALM], (6, "")),
        ([None, *[INSIDE] * 20], (10, "cap")),
        ([None, *[Distances(0.02, 0.0)] * 20], (10, "cap")),  # under means below
    ],
)
def test_a_level_ends_when_both_distances_stayed_small_or_at_its_cap(moves, expected):
    assert follow(DETECTOR, moves) == expected


def test_the_last_check_is_at_the_cap():
    level, detector = Level(), Detector(every=10, cap=25)
    for _ in range(3):
        level = level.checked(detector, level.next_check(detector), None)
    assert level.steps == 25 and level.over(detector) == "cap"


@pytest.mark.parametrize("wrong", [{"every": 0}, {"checks": 1.5}, {"cap": 9, "every": 10}, {"inter": -1.0}])
def test_thresholds_out_of_range(wrong):
    with pytest.raises(ValueError, match="expected distances of at least 0"):
        Detector(**wrong)
