"""The shared fixtures do what they promise, else tests that rely on them prove nothing."""

from __future__ import annotations

import torch


def test_poison_fills_uninitialised_memory(poison):
    x = torch.zeros(3, 4)
    for empty in (
        torch.empty(3),
        torch.empty_like(x),
        torch.empty_strided((3, 2), (2, 1)),
        x.new_empty(3),
        x.new_empty_strided((2,), (1,)),
        torch.empty(3, dtype=torch.float64),
    ):
        assert empty.isnan().all()
    assert (torch.empty(3, dtype=torch.int64) == torch.iinfo(torch.int64).max).all()


def test_seeds_are_fixed():
    torch.testing.assert_close(torch.rand(1), torch.tensor([0.4962565899]))
