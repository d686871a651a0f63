"""Whether sums that came from a site can be sums of a judgement: their form, their sizes, and that they add up.

Whatever passes here, :mod:`tunesmith_federated.sums` can merge and make metrics of. That a site counts wrongly on purpose
cannot be seen from its counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tunesmith.tasks.metrics import ECE_BINS, limits
from tunesmith_federated.sums_kinds import BINS, KINDS

_MOST = 2**53
"""Counts from which on floats no longer hold every whole number."""
MOST_TOTAL = 1e100
"""Of a sum that has no limit of its own (a loss): far above what is, and so far below the largest float that the sums of any
number of sites can be added up."""
_ROUNDING = 1e-6
"""By how much of its weight a mean may lie beyond its limits."""
_MOST_METRICS = 200
"""Metrics of a judgement: those of all classes together."""
_MOST_NAME, MOST_REASON = 200, 500
"""Letters of a metric's name, and of a reason."""


class _Wrong(ValueError):
    """What is wrong, in words."""


def check_sums(
    sums: Mapping[str, Any], classes: int | None = None, kinds: Collection[str] | None = None, own_metrics: bool = False
) -> str | None:
    """Why these sums cannot be, or None.

    Args:
        sums: what a site has sent.
        classes: how many there are, where that is settled.
        kinds: those that the task's judgements can have (:func:`tunesmith_federated.sums_kinds.kinds_of`); None allows each.
        own_metrics: whether the task is one of one's own: its accuracy may be in percent.

    >>> check_sums({"kind": "averaged", "n": 3, "metrics": {"wer": [0.3, 3]}})
    >>> check_sums({"kind": "averaged", "n": 3, "metrics": {"wer": [0.3, 4]}})
    'its sums cannot be: metrics: wer has weight 4, and n is 3'
    >>> check_sums({"kind": "averaged", "n": 3, "metrics": {"accuracy": [15.0, 3]}})
    'its sums cannot be: metrics: accuracy is 5, and lies between 0 and 1'
    """
    try:
        _check(sums, classes, kinds, own_metrics)
    except _Wrong as wrong:
        return f"its sums cannot be: {wrong}"[:MOST_REASON]
    return None


def _check(sums: Mapping[str, Any], classes: int | None, kinds: Collection[str] | None, own_metrics: bool) -> None:
    kind, n = sums.get("kind"), sums.get("n")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _Wrong(f"there is no kind {kind!r}")
    if kinds is not None and kind not in kinds:
        raise _Wrong(f"they are of kind {kind}, and those of this task are {' or '.join(sorted(kinds))}")
    if not _count(n) or not n:
        raise _Wrong(f"they are of {n!r} rows")
    wanted = {"kind", "n", "metrics", *KINDS[kind]}
    extra, missing = set(sums) - wanted - {"positives", "negatives"}, wanted - set(sums)
    if extra or missing:
        raise _Wrong(f"{kind} has no {min(extra)}" if extra else f"{kind} lacks {min(missing)}")
    _metrics(sums["metrics"], n, own_metrics)
    if kind == "classes":
        _confusion(sums["confusion"], n, classes)
    if "counts" in KINDS[kind]:
        _counts(sums["counts"], n if kind == "labels" else None, classes if kind == "labels" else None)
    if "calibration" in KINDS[kind]:
        _calibration(sums["calibration"], n * len(sums["counts"]) if kind == "labels" else n)
    if "positives" in sums or "negatives" in sums:
        shown = 1 if classes == 2 and kind == "classes" else classes
        _histograms(sums.get("positives"), sums.get("negatives"), n, shown)


def _metrics(found: Any, n: int, own: bool) -> None:
    if not isinstance(found, Mapping):
        raise _Wrong("metrics is no mapping")
    if len(found) > _MOST_METRICS:
        raise _Wrong(f"there are {len(found):,} metrics, and may be {_MOST_METRICS}")
    for name, pair in found.items():
        if len(name) > _MOST_NAME:
            raise _Wrong(f"a metric's name has {len(name)} letters")
        value, weight = _row("metrics", pair, 2)
        if not _number(value) or abs(value) > MOST_TOTAL:
            raise _Wrong(f"metrics: {name} is {value!r}")
        most = n if name not in ("loss", "token_accuracy") else _MOST  # these two are means over words, where there are words
        if not _count(weight) or not 0 < weight <= most:
            raise _Wrong(f"metrics: {name} has weight {weight!r}, and n is {n}")
        low, high = (-math.inf, math.inf) if own else limits(name)
        bounded = math.isfinite(low) and math.isfinite(high)
        if bounded and not low - _ROUNDING <= value / weight <= high + _ROUNDING:
            raise _Wrong(f"metrics: {name} is {value / weight:g}, and lies between {low:g} and {high:g}")


def _confusion(found: Any, n: int, classes: int | None) -> None:
    total, cells = 0, set()
    for row in _rows("confusion", found):
        right, said, count = _row("confusion", row, 3)
        for place in (right, said):
            if not _count(place) or (classes is not None and place >= classes):
                raise _Wrong(
                    f"confusion has class {place!r}, and there are {classes if classes is not None else 'whole numbers'}"
                )
        if not _count(count):
            raise _Wrong(f"confusion has a count of {count!r}")
        total += count
        cells.add((right, said))
    if total != n or len(cells) < len(found):
        raise _Wrong(f"confusion has {total} rows, and n is {n}")


def _counts(found: Any, n: int | None, classes: int | None) -> None:
    rows = _rows("counts", found)
    if classes is not None and len(rows) != classes:
        raise _Wrong(f"counts has {len(rows)} classes, and there are {classes}")
    for row in rows:
        correct, said, right = _row("counts", row, 3)
        if not all(map(_count, (correct, said, right))) or correct > min(said, right):
            raise _Wrong(f"counts has {row!r}")
        if n is not None and max(said, right) > n:
            raise _Wrong(f"counts has {row!r}, and n is {n}")


def _calibration(found: Any, n: int) -> None:
    rows, total = _rows("calibration", found), 0
    if len(rows) != ECE_BINS:
        raise _Wrong(f"calibration has {len(rows)} bins, and there are {ECE_BINS}")
    for row in rows:
        count, gap = _row("calibration", row, 2)
        if not _count(count) or not _number(gap) or abs(gap) > count * (1 + 1e-9):
            raise _Wrong(f"calibration has {row!r}")
        total += count
    if total != n:
        raise _Wrong(f"calibration has {total} scores, and should have {n}")


def _histograms(positives: Any, negatives: Any, n: int, shown: int | None) -> None:
    pair = [_rows("positives", positives), _rows("negatives", negatives)]
    if len(pair[0]) != len(pair[1]) or (shown is not None and len(pair[0]) != shown):
        raise _Wrong(
            f"there are {len(pair[0])} and {len(pair[1])} histograms of {shown if shown is not None else 'all'} classes"
        )
    for up, down in zip(*pair, strict=True):
        total = 0
        for histogram in (up, down):
            if not isinstance(histogram, Mapping):
                raise _Wrong("a histogram is no mapping")
            for place, count in histogram.items():
                if not (
                    isinstance(place, str) and place.isascii() and place.isdigit() and len(place) < 9 and int(place) < BINS
                ):
                    raise _Wrong(f"a histogram has the bin {place}")
                if not _count(count):
                    raise _Wrong(f"a histogram has a count of {count!r}")
                total += count
        if total != n:
            raise _Wrong(f"the histograms of a class do not add up: {total} scores, and n is {n}")


def _rows(what: str, found: Any) -> Sequence[Any]:
    if not isinstance(found, list | tuple):
        raise _Wrong(f"{what} is no list")
    return found


def _row(what: str, row: Any, size: int) -> Sequence[Any]:
    if not isinstance(row, list | tuple) or len(row) != size:
        raise _Wrong(f"{what} has {row!r}")
    return row


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < _MOST
    return isinstance(value, float) and math.isfinite(value)
