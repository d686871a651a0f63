"""Two versions of one model at once: who answers whom, what is mirrored, whether they agree. Pure: no clock, no network."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["all", "canary", "shadow"]
CLOSE = 1e-3
"""Numbers closer than this, relative or absolute, are the same answer, where an answer has no words."""


@dataclass(frozen=True)
class Rollout:
    """A new version of a model beside the one that answers where none is named.

    >>> canary = Rollout("2", "canary", 50.0, id="r")
    >>> [canary.answers("1", who) for who in ("shop", "inn", "shop", "inn")]
    ['1', '2', '1', '2']
    >>> Rollout("2", "shadow", 100.0).answers("1", "shop"), Rollout("2", "all").answers("1", "shop")
    ('1', '2')
    """

    candidate: str
    """The new version."""
    kind: Kind
    """``all``: it answers everyone. ``canary``: a share of the callers. ``shadow``: nobody; it hears a share of requests."""
    percent: float = 100.0
    id: str = ""
    """Told apart from the rollout before it: another id, and other callers come first."""

    def answers(self, stable: str, sticky: str) -> str:
        """The version that answers this caller: always the same one, and with a larger share only ever the candidate."""
        if self.kind == "shadow":
            return stable
        return self.candidate if self.kind == "all" or self._share(sticky) < self.percent else stable

    def mirrors(self, stable: str, answered: str, request: str) -> str | None:
        """The version that hears a request too, after ``answered`` has answered it; None where none does.

        What the candidate answers in a canary goes to the old version, so that there are pairs there as well.
        """
        if self.kind == "shadow" and answered == stable and self._share(request) < self.percent:
            return self.candidate
        return stable if self.kind == "canary" and answered == self.candidate else None

    def words(self) -> str:
        """What it is, for people.

        >>> Rollout("2", "canary", 12.5).words(), Rollout("2", "all").words()
        ('canary 12.5 %', 'all traffic')
        """
        return "all traffic" if self.kind == "all" else f"{self.kind} {self.percent:g} %"

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def _share(self, what: str) -> float:
        """A point in [0, 100) that is this string's in this rollout, on every machine."""
        digest = hashlib.sha256(f"{self.id}\0{what}".encode("utf-8", "surrogatepass")).digest()
        return 100 * int.from_bytes(digest[:8], "big") / 2**64


@dataclass
class Tally:
    """What has come of a rollout so far."""

    answered: Counter[str] = field(default_factory=Counter)
    """Requests that each version has answered to callers."""
    mirrored: int = 0
    """Requests that the other version has heard too."""
    dropped: int = 0
    """Those that it was not given, as too many were under way."""
    failed: int = 0
    """Those that it gave no answer to."""
    pairs: int = 0
    """Examples that both have answered."""
    agreed: int = 0
    """Those of them with the same answer."""

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "answered": dict(self.answered)}


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two answers say the same: their words and whole numbers, and where they have none, their numbers about.

    >>> agree({"label": "a", "probabilities": [0.9, 0.1]}, {"label": "a", "probabilities": [0.6, 0.4]})
    True
    >>> agree({"tags": ["O", "PER"]}, {"tags": ["O", "O"]}), agree({"value": 1.0}, {"value": 1.0001})
    (False, True)
    """
    words = _words(one), _words(other)
    return words[0] == words[1] if any(map(_has_words, words)) else _close(one, other)


def _words(value: Any) -> Any:
    """The value with every number that is not whole taken out."""
    if isinstance(value, Mapping):
        return {key: _words(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_words(inner) for inner in value]
    return None if isinstance(value, float) else value


def _has_words(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_words, value.values()))
    return any(map(_has_words, value)) if isinstance(value, list) else value is not None


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(one == other)
