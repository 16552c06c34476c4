"""What the cases of one convolution, or of one block, have in common."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .choices import check_choices, check_names
from .conv_shapes import ConvShape
from .structures import block_of


@dataclass(frozen=True)
class LayerCase:
    """One shape, pattern, sparsity, pass and number of threads.

    `structure` is `"unstructured"` or a block such as `"16x1"` or `"1x1x3x3"`. A kind of case names itself, its passes,
    those that `every` takes unless told, and the peers it can be measured against.
    """

    shape: ConvShape
    structure: str
    sparsity: float
    passes: str
    threads: int
    backends: tuple[str, ...]
    peers: tuple[str, ...] = ()

    kind: ClassVar[str]
    known_passes: ClassVar[Sequence[str]]
    usual_passes: ClassVar[Sequence[str]]
    known_peers: ClassVar[Sequence[str]]
    tolerance: ClassVar[float]

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return {
            self.kind: str(self.shape),
            "pattern": self.structure,
            "pass": self.passes,
            "threads": self.threads,
            "sparsity": self.sparsity,
        }

    @classmethod
    def check_peers(cls, peers: Sequence[str]) -> None:
        """Raise `ValueError` for one that cannot be measured against."""
        check_names("peer", peers, cls.known_peers)

    @classmethod
    def every(
        cls,
        shapes: Sequence[ConvShape],
        structures: Sequence[str] = ("unstructured",),
        sparsities: Sequence[float] = (0.8, 0.9, 0.95),
        passes: Sequence[str] | None = None,
        threads: Sequence[int] = (1,),
        backends: Sequence[str] = ("cpu",),
        peers: Sequence[str] = (),
        **more: Any,
    ) -> list:
        """Every combination but blocks that do not divide the weight; `more` for each of them.

        Raises:
            ValueError: an unknown name, a number out of range, a backend that is not here, or nothing left to do.
        """
        passes = cls.usual_passes if passes is None else passes
        check_choices(sparsities, threads, backends)
        check_names("pass", passes, cls.known_passes)
        cls.check_peers(peers)
        found = [
            cls(shape, structure, sparsity, which, count, tuple(backends), tuple(peers), **more)
            for count, which, structure, shape, sparsity in itertools.product(
                threads, passes, structures, shapes, sparsities
            )
            if block_of(structure, shape.weight)
        ]
        if not found:
            weights = [shape.weight for shape in shapes]
            raise ValueError(f"expected a block that divides a weight of {weights}, got {list(structures)}")
        return found
