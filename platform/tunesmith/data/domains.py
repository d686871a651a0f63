"""Several data sets with names (domains): which one each row is of, and what must hold where they are trained on together."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tunesmith.errors import DataError, nearest

log = logging.getLogger(__name__)

NAME = "domain"
"""What the column of names is called in ``predictions.parquet``."""

_SHOWN = 8
"""Classes named in a message."""


@dataclass(frozen=True)
class Domains:
    """The domain of each row."""

    names: tuple[str, ...]
    """As the recipe has them, in its order; one may have no row."""
    codes: np.ndarray
    """int32 ``[n]``, into ``names``."""

    def take(self, rows: np.ndarray) -> Domains:
        """The domains of these rows."""
        return Domains(self.names, self.codes[rows])

    def counts(self) -> dict[str, int]:
        """Rows of each domain, 0 included.

        >>> Domains(("clinic", "lab", "ward"), np.array([1, 0, 1], np.int32)).counts()
        {'clinic': 1, 'lab': 2, 'ward': 0}
        """
        counts = np.bincount(self.codes, minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def rows(self) -> dict[str, np.ndarray]:
        """The indices of each domain's rows, sorted; domains without any are left out."""
        found = {name: np.flatnonzero(self.codes == code) for code, name in enumerate(self.names)}
        return {name: rows for name, rows in found.items() if len(rows)}

    def column(self) -> pa.Array:
        """The names, one for each row."""
        return pa.array(self.names, pa.string()).take(pa.array(self.codes))


def check_roles(split: str, roles: Mapping[str, Collection[str]]) -> None:
    """That all domains have the same roles (domain → roles). Raises :class:`DataError` with the first that do not."""
    first = next(iter(roles), "")
    for name, held in roles.items():
        one, other = (first, name) if set(roles[first]) - set(held) else (name, first)
        lacking = sorted(set(roles[one]) - set(roles[other]))
        if lacking:
            raise DataError(
                f"data.{split}: the domain {one} has a column for the role {lacking[0]!r}, and the domain {other} has none\n"
                "    → Give both the same columns, or rename the column that only one has."
            )


def check_filled(split: str, domains: Domains | None, when: str) -> None:
    """That every domain has a row. Raises :class:`DataError`; ``when`` ends the sentence, and says what to do."""
    empty = [name for name, count in domains.counts().items() if not count] if domains is not None else []
    if empty:
        raise DataError(f"data.{split}: no row of the domain {' and of '.join(empty)} {when}")


def check_labels(labels: Mapping[str, Collection[str]], declared: bool) -> None:
    """Domains (→ classes of their training rows) have classes in common; what one lacks of the others' is told.

    Raises :class:`DataError` for a domain that shares no class with any other, unless the recipe declares the classes.
    """
    every = sorted(set(itertools.chain.from_iterable(labels.values())))
    for name, own in labels.items():
        others = sorted(set(itertools.chain.from_iterable(found for other, found in labels.items() if other != name)))
        if own and others and not set(own) & set(others) and not declared:
            raise DataError(
                f"data.train: the domain {name} has the classes {_listed(sorted(own))}, and shares none with the others, "
                f"which have {_listed(others)}\n    → Call the same classes the same in every domain; where they do differ, "
                "name all of them in data.labels."
            )
        lacking = [label for label in every if label not in own]
        if lacking and others:
            only = {label.casefold(): label for label in own if label not in others}
            near = nearest(lacking[0].casefold(), only)
            near = only[near] if near else None
            hint = f" (is {near!r} meant to be {lacking[0]!r}?)" if near else ""
            log.warning("the domain %s has no row of the class %s%s", name, _listed(lacking), hint)


def tell_unseen(domains: Domains | None) -> None:
    """Say which domains of the data have no row in the training split."""
    for name, count in domains.counts().items() if domains is not None else ():
        if not count:
            log.warning(
                "no row of the domain %s is in the training split: it is judged as one that training has not seen", name
            )


def shared_inputs(domains: Domains, inputs: np.ndarray) -> dict[str, int]:
    """How many different inputs (equal codes ``[n]``) stand in both of two domains, by ``one & other``, where there are any.

    >>> shared_inputs(Domains(("a", "b"), np.array([0, 0, 1, 1])), np.array([5, 6, 6, 6]))
    {'a & b': 1}
    """
    held = {name: np.unique(inputs[rows]) for name, rows in domains.rows().items()}
    pairs = {f"{a} & {b}": len(np.intersect1d(held[a], held[b])) for a, b in itertools.combinations(held, 2)}
    return {pair: count for pair, count in pairs.items() if count}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
