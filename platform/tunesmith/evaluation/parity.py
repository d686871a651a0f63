"""Whether a model answers as it should, before anything is measured: alone as in a batch, and served as the run it comes from.

A mismatch is no error: it is reported with the first sample that differs, and is the suite ``parity`` for a gate to hold on to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.data.prepared import Split
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.statistics import Estimate, wilson
from tunesmith.evaluation.targets import Target
from tunesmith.tasks.base import Answer, Example
from tunesmith.tasks.classes import SAID

SAMPLE = 32
"""Examples that are compared; 32 that agree bound the share of those that do not by 11 % (95 %)."""
TOLERANCE = 1e-3
"""How far two probabilities of an example may be apart: float32 differs by 1e-6 between batches, bfloat16 by 1e-3 to 1e-2."""
MOST_SHOWN = 5

ALONE, IN_PROCESS = "alone", "in process"


@dataclass
class Comparison:
    """The same samples answered in two ways."""

    with_what: str
    distances: list[float] = field(default_factory=list)
    """Of each sample: the largest difference of a number, infinite where the answers themselves differ."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """The first that differ, with both answers."""

    def agreement(self, tolerance: float, confidence: float) -> Estimate:
        """The share of samples that agree."""
        n, share = len(self.distances), float(np.mean(np.asarray(self.distances) <= tolerance))
        return Estimate(share, *wilson(share, n, confidence), n, "wilson")

    def largest(self) -> Estimate:
        """The largest difference of a number; infinite ones count as 1, the most that two probabilities can be apart."""
        value = max((min(one, 1.0) for one in self.distances), default=math.nan)
        return Estimate(value, math.nan, math.nan, len(self.distances), "none")


def check(
    target: Target,
    split: Split,
    here: Target | None = None,
    *,
    sample: int = SAMPLE,
    tolerance: float = TOLERANCE,
    seed: int = 42,
    confidence: float = 0.95,
) -> SuiteResult:
    """Ask about a seeded sample, all together and each alone, and where ``here`` is the same model in this process, that too.

    Samples that one of them refuses are left out, and counted in a note.

    Raises:
        ServiceError: the server does not answer, or not in the terms of the task.
    """
    start = time.monotonic()
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:sample])
    examples, ids = split.examples(chosen), [split.ids[int(k)].as_py() for k in chosen]
    ways = {ALONE: _each(target, examples)} | ({IN_PROCESS: answered(here, examples)} if here is not None else {})
    together = answered(target, examples)
    kept = [k for k in range(len(examples)) if all(one[k] is not None for one in (together, *ways.values()))]
    if not kept:
        return SuiteResult(title="Parity", skipped=f"none of {len(examples)} samples was answered")
    ids = [ids[k] for k in kept]
    found = [
        _compare(name, [together[k] for k in kept], [one[k] for k in kept], ids, target, tolerance)
        for name, one in ways.items()
    ]
    worst = min(found, key=lambda one: one.agreement(tolerance, confidence).value)
    measures = {
        "agreement": worst.agreement(tolerance, confidence),
        "largest_difference": max((one.largest() for one in found), key=lambda one: one.value),
        **{f"{one.with_what.replace(' ', '_')}/agreement": one.agreement(tolerance, confidence) for one in found},
        **{f"{one.with_what.replace(' ', '_')}/largest_difference": one.largest() for one in found},
    }
    return SuiteResult(
        title="Parity",
        n=len(kept),
        measures=measures,
        examples=[example for one in found for example in one.examples],
        notes=[note(one, tolerance) for one in found] + _left_out(len(chosen) - len(kept)),
        seconds=round(time.monotonic() - start, 3),
    )


def answered(target: Target, examples: Sequence[Example]) -> list[Answer | None]:
    """The answers in the order of the examples; None for one that the target refuses."""
    replies = {reply.index: reply.answer for reply in target.replies(examples)}
    return [replies[index] for index in range(len(examples))]


def note(one: Comparison, tolerance: float) -> str:
    """A comparison in a sentence."""
    n, agree = len(one.distances), sum(distance <= tolerance for distance in one.distances)
    others = {ALONE: "alone as in a batch", IN_PROCESS: "as the run's model does in this process"}[one.with_what]
    apart = max((distance for distance in one.distances if math.isfinite(distance)), default=0.0)
    said = f"Of {n} samples {agree if agree < n else 'all'} were answered {others}, within {tolerance:g}"
    said += f" (numbers are at most {apart:.2g} apart)."
    if agree < n and one.examples:
        first = one.examples[0]
        said += f" The first that differs is {first['id']}: {first['served']}, and {one.with_what} {first['other']}."
    return said


def mismatch(found: SuiteResult) -> str | None:
    """What a reader must know before trusting the numbers; None where everything agrees."""
    if found.skipped or found.measures["agreement"].value == 1:
        return None
    differing = [one for one in found.notes if "The first that differs" in one]
    return "The model does not answer as it should. " + " ".join(differing)


def _each(target: Target, examples: Sequence[Example]) -> list[Answer | None]:
    return [answer for example in examples for answer in answered(target, [example])]


def _left_out(count: int) -> list[str]:
    return [f"{count} more were drawn and not answered; they are not compared."] if count else []


def _compare(
    with_what: str,
    served: Sequence[Answer | None],
    others: Sequence[Answer | None],
    ids: Sequence[str],
    target: Target,
    tolerance: float,
) -> Comparison:
    found = Comparison(with_what)
    scored = "scores" in target.provides
    for one, other, identity in zip(served, others, ids, strict=True):
        assert one is not None
        assert other is not None
        apart = distance(one, other, scored)
        found.distances.append(apart)
        if apart > tolerance and len(found.examples) < MOST_SHOWN:
            shown = {"id": identity, "beside": with_what, "served": _shown(one, scored), "other": _shown(other, scored)}
            found.examples.append(shown)
    return found


def distance(one: Answer, other: Answer, scored: bool) -> float:
    """How far two answers are apart: the largest difference of a number; infinite where words differ.

    Where there are probabilities they are all that counts: two labels of the same probability may be told in either order.

    >>> distance({"label": "a", "probabilities": [0.5, 0.5]}, {"label": "b", "probabilities": [0.5, 0.5]}, scored=True)
    0.0
    >>> distance({"label": "a", "probabilities": [1.0, 0.0]}, {"label": "b", "probabilities": [0.0, 1.0]}, scored=False)
    inf
    """
    if scored and "probabilities" in one and "probabilities" in other:
        return _apart(one["probabilities"], other["probabilities"])
    apart = 0.0
    for name in one.keys() & other.keys():
        if name in ("probabilities", SAID):
            continue
        value, beside = one[name], other[name]
        is_number = isinstance(value, list) and value and isinstance(value[0], float)
        apart = max(apart, _apart(value, beside) if is_number else (0.0 if value == beside else math.inf))
    return apart


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        return math.inf
    return float(np.max(np.abs(np.asarray(one) - np.asarray(other)), initial=0.0))


def _shown(answer: Answer, scored: bool) -> str:
    """An answer in a few words."""
    said = answer.get("label", answer.get("labels", answer.get("tags")))
    shares = answer.get("probabilities")
    text = ", ".join(map(str, said[:12])) if isinstance(said, list) else str(said)
    return f"{text} ({max(shares):.4f})" if scored and shares else text
