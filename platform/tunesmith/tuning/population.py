"""Population-based training: trials that fall behind take over a better one's checkpoint, with changed values.

Jaderberg et al. 2017, arXiv:1711.09846. A training is cut into generations. After each, the worst quarter copies weights and
optimizer of a random member of the best quarter (truncation selection), and changes its values: each is drawn anew with a
chance of a quarter, and else multiplied by 0.8 or 1.2. The rest goes on as it was. A member's stretch of one generation is a
trial; it begins with the last checkpoint of its parent.

All members wait for the slowest at the end of a generation: what comes out then follows from the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.recipe.search_space import Dimension, active
from tunesmith.tuning.sampling import suggest
from tunesmith.tuning.trials import FINISHED, Trial

if TYPE_CHECKING:
    from tunesmith.recipe.search import SearchSection

QUANTILE = 0.25
RESAMPLE = 0.25
FACTORS = (0.8, 1.2)
"""The values of the paper (section 4.1) and of Ray Tune."""


@dataclass(frozen=True)
class Stretch:
    """The next thing that a member of the population does."""

    generation: int
    member: int
    values: dict[str, Any]
    parent: int | None
    """The trial whose last checkpoint it begins with; None begins with the base model."""


def next_stretch(settings: SearchSection, space: Sequence[Dimension], trials: Sequence[Trial]) -> Stretch | None:
    """What is done next; None where a generation has to end first, or nothing is left."""
    trials = [trial for trial in trials if trial.origin in ("recipe", "sampled")]
    now = max((trial.generation for trial in trials), default=0)
    begun = [trial for trial in trials if trial.generation == now]
    if len(begun) < settings.num_samples:
        return _stretch(settings, space, trials, now, len(begun))
    if any(trial.status not in FINISHED for trial in begun) or now + 1 >= settings.generations:
        return None
    return _stretch(settings, space, trials, now + 1, 0)


def is_over(settings: SearchSection, trials: Sequence[Trial]) -> bool:
    """Whether the last generation has begun to its last member."""
    last = [trial for trial in trials if trial.generation == settings.generations - 1 and trial.origin in ("recipe", "sampled")]
    return len(last) >= settings.num_samples


def _stretch(
    settings: SearchSection, space: Sequence[Dimension], trials: Sequence[Trial], generation: int, member: int
) -> Stretch:
    rng = np.random.default_rng((settings.seed, generation, member))
    if generation == 0:
        values = suggest(settings.model_copy(update={"algorithm": "random"}), space, trials, member)
        # Where all values are tried already, members begin with equal ones: they part in later generations.
        return Stretch(0, member, drawn_values(space, rng) if values is None else values, None)
    before = sorted((trial for trial in trials if trial.generation == generation - 1), key=lambda trial: trial.member)
    ranked = sorted(before, key=lambda trial: (_score(trial), -trial.member))
    quarter = max(1, int(len(ranked) * QUANTILE))
    worst, best = ranked[:quarter], [trial for trial in ranked[-quarter:] if _score(trial) > float("-inf")]
    mine = before[member]
    if (mine in worst or _score(mine) == float("-inf")) and best:
        donor = best[rng.integers(len(best))]
        return Stretch(generation, member, perturbed(space, dict(donor.values), rng), donor.number)
    return Stretch(generation, member, dict(mine.values), mine.number)


def perturbed(space: Sequence[Dimension], values: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Values a step away from others, within their ranges."""
    changed: dict[str, Any] = {}
    for one in space:
        if not active(one, changed):
            continue
        value = values.get(one.key)
        changed[one.key] = drawn(one, rng) if value is None or rng.random() < RESAMPLE else _moved(one, value, rng)
    return changed


def drawn_values(space: Sequence[Dimension], rng: np.random.Generator) -> dict[str, Any]:
    """A random value of every key that is there."""
    values: dict[str, Any] = {}
    for one in space:
        if active(one, values):
            values[one.key] = drawn(one, rng)
    return values


def drawn(one: Dimension, rng: np.random.Generator) -> Any:
    """A random value of a dimension."""
    named = one.all_values()
    if named is not None:
        return named[rng.integers(len(named))]
    if one.log:
        return float(np.exp(rng.uniform(np.log(one.low), np.log(one.high))))
    return float(rng.uniform(one.low, one.high))


def _moved(one: Dimension, value: Any, rng: np.random.Generator) -> Any:
    """The value times 0.8 or 1.2; of a list of values, the one before or behind it, or any where it is not in the list."""
    named = one.all_values()
    if named is None:
        return float(np.clip(value * FACTORS[rng.integers(2)], one.low, one.high))
    if value not in named:  # the recipe's own
        return drawn(one, rng)
    at = named.index(value) + (-1, 1)[rng.integers(2)]
    return named[min(max(at, 0), len(named) - 1)]


def _score(trial: Trial) -> float:
    """What a trial's last evaluation said: it is the last checkpoint that would be taken over."""
    return trial.reports[-1].score if trial.reports and trial.status != "failed" else float("-inf")
