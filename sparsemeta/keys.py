"""Names that a user has given, against those that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_keys(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise ``ValueError`` for the first of ``given`` that is not in ``known``, naming the nearest that is.

    Args:
        what: what a key is, with an article: ``"a key of [train]"``.
    """
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            choice = f"The nearest is {near[0]!r}; all: {', '.join(known)}" if near else "There is none"
            raise ValueError(f"expected {what}; got {key!r}. {choice}")
