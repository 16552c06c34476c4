"""Two hundred convolutions that nobody thought of. The number of a failing test is its seed."""

from __future__ import annotations

import random

import pytest
import torch
from conv_cases import BACKENDS, Case
from layouts import LAYOUTS
from problem import assert_equals_definition, derivatives, masked, problem

COMPILED = [name for name in BACKENDS if name != "dense"]


def random_case(seed: int) -> Case:
    """A case whose kernel fits into the padded image."""
    draw = random.Random(seed)

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw.randint(low, high), draw.randint(low, high)

    groups, kernel, dilation, padding = draw.choice((1, 1, 2, 3)), pair(1, 5), pair(1, 3), pair(0, 5)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    image = tuple(max(1, r - 2 * p) + draw.randint(0, 12) for r, p in zip(reach, padding, strict=True))
    block = draw.choice(((1, 1), (1, 1), (2, 1), (2, 2), (1, 1, *kernel)))
    outputs, inputs = 2 * groups * draw.randint(1, 5), 2 * draw.randint(1, 4)
    return Case(
        f"random-{seed}", (outputs, inputs, *kernel), image, draw.choice((1, 2, 5, 17)), stride=pair(1, 4),
        padding=padding, dilation=dilation, groups=groups, density=draw.choice((1e-9, 0.05, 0.2, 0.5, 1)), block=block,
        bias=draw.random() < 0.5, x=draw.choice(list(LAYOUTS)), g=draw.choice(list(LAYOUTS)),
        tasks=draw.choice((None, None, 1, 3)), shared=draw.choice(((), ("x",), ("bias",))),
    )  # fmt: skip


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("seed", range(200))
def test_random_geometry(seed, backend):
    case = random_case(seed)
    assert_equals_definition(case, derivatives(masked(case, backend), problem(case, torch.float64)), torch.float64)
