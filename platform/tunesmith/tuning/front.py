"""Which trial wins; of several objectives, the front of those that no other beats, and the rule that chooses from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.recipe.search_checks import lower_is_better
from tunesmith.tuning.trials import Trial

if TYPE_CHECKING:
    from tunesmith.recipe.search import SearchSection


def costs(settings: SearchSection, trial: Trial) -> tuple[float, ...] | None:
    """A trial's objectives such that less is better, the first by its score; None where one is missing or undefined.

    Nothing is better or worse than what is undefined, so that such a trial would be on every front.
    """
    if trial.score is None or not math.isfinite(trial.score):
        return None
    found = [-trial.score]
    for name in settings.objectives[1:]:
        value = trial.value(name)
        if value is None:
            return None
        found.append(value if lower_is_better(name) else -value)
    return tuple(found)


def front(settings: SearchSection, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats in one objective without losing in another, the best in the first objective first."""
    known = [(trial, found) for trial in trials if (found := costs(settings, trial)) is not None]
    kept = [(trial, mine) for trial, mine in known if not any(_beats(other, mine) for _, other in known)]
    return [trial for trial, _ in sorted(kept, key=lambda pair: (pair[1], pair[0].number))]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def winner(settings: SearchSection, trials: Sequence[Trial]) -> Trial | None:
    """The trial whose model is kept: the highest score; of equal ones the first.

    Of several objectives: of the front, those whose first objective is at most ``tolerance`` worse than the best; of them, the
    one with the best second objective.
    """
    if len(settings.objectives) < 2:
        scored = [trial for trial in trials if trial.score is not None]
        return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)
    best = front(settings, trials)
    if not best:
        return None
    first = costs(settings, best[0])
    assert first is not None
    near = [
        (found[1:], trial) for trial in best if (found := costs(settings, trial)) and found[0] <= first[0] + settings.tolerance
    ]
    return min(near, key=lambda pair: (pair[0], pair[1].number))[1]
