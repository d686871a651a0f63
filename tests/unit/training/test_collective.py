"""What ranks exchange: where rank 0 fails, none waits."""

from __future__ import annotations

import pytest

from support.fits import on_ranks
from tunesmith.errors import DataError
from tunesmith.training.collective import from_first
from tunesmith.training.fit import FitContext

pytestmark = pytest.mark.unit


class Unsendable(Exception):
    """Cannot be made again from its words alone."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


def asked(context: FitContext) -> list[str]:
    """What :func:`from_first` gives or raises of a value, an error, and an error that does not pass between processes."""
    said = [from_first(lambda: f"made on {context.rank}")]
    for error in (DataError("no such class"), Unsendable("a hole", "the data")):
        try:
            from_first(lambda error=error: _fail(error))  # type: ignore[misc]  # lambda's default
        except Exception as caught:  # what comes is what is looked at
            said.append(f"{type(caught).__name__}: {caught}")
    return said


def _fail(error: Exception) -> None:
    raise error


def test_what_the_first_rank_makes_or_raises_comes_to_all() -> None:
    first, second = on_ranks(2, asked, timeout=60)
    assert first == ["made on 0", "DataError: no such class", "Unsendable: a hole in the data"]
    assert second == ["made on 0", "DataError: no such class", "RuntimeError: Unsendable: a hole in the data"]
