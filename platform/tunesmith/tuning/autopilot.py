"""The recipe and the gate that ``tunesmith auto`` writes: every choice a line, with its reason beside it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.errors import UserError
from tunesmith.recipe.starting import Counted, Start, family_of, start
from tunesmith.recipe.task_names import KNOWN
from tunesmith.recipe.template import BATCH, WIDTH, inline, template
from tunesmith.tuning.autopilot_space import UNEVEN, Searched, space, unfreezing
from tunesmith.tuning.looking import COUNTED, Seen
from tunesmith.tuning.pace import EVALUATIONS, TRIALS, Pace, Part, Size, part

FEW_JUDGES = 200
"""Validation rows below which a rate moves in steps of half a point and more: the loss tells trials apart more finely."""

RESERVED, LEAST_RESERVED = 0.1, 45.0
"""Share of the time, and at least so many seconds, kept for preparing, the start of Ray, the last verdict."""

PREPARED = 2e-4
"""Seconds of preparing a row."""

SHORT_GRACE = 2
"""Evaluations that a trial has before it is stopped, where its time is short."""

MOST_TRIALS = 200

TRAINED, JUDGED = "data.max_train_samples", "data.max_validation_samples"
"""Keys of the most rows that a trial is trained on, and is judged by."""


def write_recipe(
    seen: Seen,
    *,
    name: str,
    data: str,
    models: Sequence[str],
    configs: Sequence[Mapping[str, Any] | None],
    sizes: Sequence[Size],
    seconds: float,
    speed: float | None,
    schema: str | None = None,
) -> str:
    """The recipe as YAML.

    Args:
        name: of the runs.
        data: as the recipe's folder sees it.
        models: the pre-trained models to choose from, the first one to begin with; ``configs`` are their ``config.json``.
        sizes: of each of them (:func:`tunesmith.tuning.looking.size_up`).
        seconds: time for everything.
        speed: of what a trial trains on (:func:`tunesmith.tuning.pace.machine_speed`); None is unknown: the training is whole.

    Raises:
        UserError: not one trial would be judged in the time.
    """
    plan = _planned(seen, models, configs[0], sizes, seconds, speed)
    families = [family_of(model, config)[0] for model, config in zip(models, configs, strict=True)]
    metric, why_metric = _metric(seen, plan.judged)
    chosen: dict[str, Any] = {
        "name": name,
        "training.metric_for_best_model": metric,
        "data.split.test": plan.test,
        **{key: most for key, (most, _) in plan.limits.items()},
        **_steps(plan.short),
    }
    why = {
        "task": f"{seen.task}, because {seen.why_task}.",
        "data.train": _rows(seen),
        "data.split.validation": plan.why_split,
        "training.metric_for_best_model": why_metric,
        **{key: reason for key, (_, reason) in plan.limits.items()},
        **plan.begin.why,
    }
    if "validation" not in seen.splits:  # a share of 0 is refused: a recipe's check does not see what a folder brings
        chosen["data.split.validation"] = plan.validation
    if seen.columns:
        chosen["data.columns"] = dict(seen.columns)
        why["data.columns"] = "Told by what the columns hold: their names are not the usual ones."
    text = template(seen.task, data=data, model=models[0], schema=schema, begin=replace(plan.begin, why=why), chosen=chosen)
    joining = unfreezing([one.layers for one in sizes], plan.epochs_before_a_stop)
    lines = _search(space(seen, models, families, plan.begin.learning_rate, joining), plan, seconds, speed)
    return text.replace("# A recipe of Tunesmith.", "# A recipe of Tunesmith, written by `tunesmith auto`.") + "\n".join(
        ["", *lines, ""]
    )


@dataclass(frozen=True)
class _Plan:
    """What a trial is made of, so that some fit into the time."""

    begin: Start
    validation: float
    test: float
    why_split: str
    judged: int
    """Validation rows."""
    budget: int
    """Seconds of the search."""
    short: Part | None = None
    """The part of a training that a trial has where the time is short."""
    limits: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Keys of the most rows, each with its reason."""

    @property
    def grace(self) -> int:
        """Evaluations that a trial has before it is stopped."""
        return max(1, self.begin.num_train_epochs // 8) if self.short is None else SHORT_GRACE

    @property
    def epochs_before_a_stop(self) -> float:
        """Passes over its rows that a trial has made by then."""
        short = self.short
        return self.grace if short is None else self.grace * short.epochs * short.eval_steps / short.updates


def _planned(
    seen: Seen,
    models: Sequence[str],
    config: Mapping[str, Any] | None,
    sizes: Sequence[Size],
    seconds: float,
    speed: float | None,
) -> _Plan:
    """The whole training, or the part of it that the time allows. Raises :class:`UserError` where it allows none."""
    validation, test, why_split = _shares(seen)
    begin = start(models[0], config, Counted(seen.rows, 1 - validation - test), BATCH)
    trained, judged = round(seen.rows * (1 - validation - test)), seen.splits.get("validation", round(seen.rows * validation))
    budget = _budget(seen, seconds)
    whole = _Plan(begin, validation, test, why_split, judged, budget)
    if speed is None:
        return whole
    pace = Pace.of(seen, sizes, BATCH, speed)
    if pace.first_verdict > budget:
        raise UserError(_too_short(models, pace, budget, seconds))
    short = part(pace, trained, judged, begin.num_train_epochs, BATCH, budget)
    limits = _limits(seen, short, trained, judged)
    if short is None:
        return replace(whole, limits=limits)
    validation, test = _smaller(seen, validation, test, short, pace, seconds - budget)
    why_split += " The time is short, and judging takes of it: no larger shares." * bool(validation or test)
    begin = _shortened(begin, short, limits, pace, budget)
    return _Plan(begin, validation, test, why_split, short.judged, budget, short, limits)


def _too_short(models: Sequence[str], pace: Pace, budget: float, seconds: float) -> str:
    """Why the time is too short for even one trial."""
    enough = math.ceil((seconds - budget + TRIALS * EVALUATIONS * pace.first_verdict) / 60)
    return (
        f"{seconds:g} s are too few for {' or '.join(models)} on this machine: of the {budget:g} s for searching about "
        f"{pace.first_verdict:.0f} s would pass before a first trial is judged\n"
        f"    → Give --time {enough}m, or a smaller --model"
    )


def _budget(seen: Seen, seconds: float) -> int:
    """Seconds of the search: the rest is for preparing, starting and judging."""
    kept = max(RESERVED * seconds, min(LEAST_RESERVED, seconds / 2))
    return round(seconds - kept - min(PREPARED * seen.rows, seconds / 4))


def _smaller(seen: Seen, validation: float, test: float, short: Part, pace: Pace, left: float) -> tuple[float, float]:
    """Shares of validation and test that can be judged in the time; ``left`` are the seconds after the search."""
    tested = max(FEW_JUDGES, left / 4 / (2 * pace.judged))  # the winner, and the model before it
    return min(validation, _share(short.judged / seen.rows)), min(test, _share(tested / seen.rows))


def _share(value: float) -> float:
    """With two digits that matter, and no more than half."""
    return min(0.5, float(f"{value:.1e}"))


def _limits(seen: Seen, short: Part | None, trained: int, judged: int) -> dict[str, tuple[int, str]]:
    """Keys that keep a split as small as the time was reckoned with, each with its reason.

    ``trained`` and ``judged`` are the rows of both splits, as far as they were counted.
    """
    counted = f"Rows were counted up to {COUNTED:,}, and the time was reckoned with so many."
    limits: dict[str, tuple[int, str]] = {}
    if short is not None and short.rows:
        limits[TRAINED] = short.rows, "So many as the time allows, see training.num_train_epochs."
    elif seen.rows >= COUNTED:
        limits[TRAINED] = trained, counted
    most = judged if short is None else short.judged
    if "validation" in seen.splits and most < judged:
        limits[JUDGED] = most, "So many of the data's own as the time allows: every evaluation judges all of them."
    elif seen.splits.get("validation", seen.rows) >= COUNTED:
        limits[JUDGED] = most, counted
    return limits


def _shortened(begin: Start, short: Part, limits: Mapping[str, tuple[int, str]], pace: Pace, budget: float) -> Start:
    """What to begin with where the whole training does not fit into the time."""
    many = f"{limits[TRAINED][0]:,} rows" if TRAINED in limits else "all rows"
    why = {
        **begin.why,
        "training.num_train_epochs": (
            f"An update takes about {pace.update:.2g} s here, by the model's size and the machine's speed: of {budget:g} s a "
            f"trial gets a quarter at most, which is about {short.updates:,} updates, on {many}. More --time gives more."
        ),
        "training.eval_strategy": "By updates, for an epoch may not end in the time.",
        "training.eval_steps": f"About {EVALUATIONS} times in a trial.",
    }
    return replace(begin, num_train_epochs=short.epochs, why=why)


def _steps(short: Part | None) -> dict[str, Any]:
    """The keys of a training whose time is short."""
    if short is None:
        return {}
    return {"training.eval_strategy": "steps", "training.eval_steps": short.eval_steps}


def _rows(seen: Seen) -> str:
    """What the data is like, in a sentence."""
    many = f"{'at least ' * (seen.rows >= COUNTED)}{seen.rows:,}"
    said = f"{many} rows"
    if seen.classes:
        common, *_, rare = [*seen.classes, *seen.classes]
        said += (
            f" of {len(seen.classes)} classes; the commonest ({common}) has {seen.classes[common]:,}, the rarest ({rare}) "
            f"{seen.classes[rare]:,} of those looked at"
        )
    if seen.words[1]:
        said += f"; texts have {seen.words[0]} words at the median, {seen.words[1]} at the 99th percentile"
    return said + "."


def _shares(seen: Seen) -> tuple[float, float, str]:
    """Shares of validation and test, and why. A split that the data brings is not cut off."""
    validation = 0.0 if "validation" in seen.splits else (0.2 if seen.rows < 1000 else 0.15 if seen.rows < 5000 else 0.1)
    test = 0.0 if "test" in seen.splits else (0.2 if seen.rows < 5000 else 0.15)
    brought = [name for name in ("validation", "test") if name in seen.splits]
    if len(brought) == 2:
        return validation, test, "The data brings its own validation and test splits: these shares are not used."
    own = f" ({brought[0]} is the data's own, whose share here is not used)" if brought else ""
    return (
        validation,
        test,
        (
            f"Of {seen.rows:,} rows{own}: trials are chosen on validation and the verdict comes from test, so that both must "
            "be large enough to tell models apart; small data gives up larger shares."
        ),
    )


def _metric(seen: Seen, judges: int) -> tuple[str, str]:
    """What trials are compared by on so many validation rows, and why."""
    facts = KNOWN[seen.task]
    if judges < FEW_JUDGES:
        return "loss", (
            f"About {judges} validation rows: the loss tells trials apart more finely than {facts.metric}, which moves in "
            f"steps of {100 / max(judges, 1):.1f} points."
        )
    if facts.metric == "accuracy" and seen.imbalance >= UNEVEN:
        return "f1_macro", (
            f"The commonest class has {seen.imbalance:.0f} times the rows of the rarest: F1 counts every class alike, accuracy "
            "would hardly see the rare ones."
        )
    return facts.metric, f"The metric of {seen.task}; there are validation rows enough for it."


def _search(searched: Sequence[Searched], plan: _Plan, seconds: float, speed: float | None) -> list[str]:
    """The lines of the ``search`` section."""
    pace = (
        "How fast the cluster trains was not measured: the training is whole, however short the time."
        if speed is None
        else f"A trial's part of this machine was taken to make {speed:.1e} products and sums a second."
    )
    times = f"{plan.grace} evaluation{'s' * (plan.grace > 1)}"
    lines = [
        "search:",
        "  # Trials are drawn by TPE (Bergstra et al. 2011), which learns from the earlier ones and takes conditions.",
        "  algorithm: tpe",
        f"  # Trials that lag behind after {times} or later are stopped (ASHA, Li et al. 2020).",
        "  scheduler: asha",
        f"  grace_period: {plan.grace}",
        f"  # Of the {seconds:g} s that were given; the rest is for preparing, starting and judging.",
        f"  # {pace}",
        f"  time_budget_s: {plan.budget:g}",
        "  # More than the time allows: the clock ends it. The first trial has the values written above.",
        f"  num_samples: {MOST_TRIALS}",
        "  space:",
    ]
    for key, reason, told in searched:
        lines += [*textwrap.wrap(reason, WIDTH, initial_indent="    # ", subsequent_indent="    # ")]
        lines += [f"    {key}: {inline(told)}"]
    return lines


def write_gate(seen: Seen, headline: str) -> str:
    """A gate as YAML, which asks the least of a model that is worth releasing."""
    lines = [
        "# The gate that `tunesmith auto` writes: the least that a model must be. Write down what you need.",
        "undecided: fail",
        "baseline: base        # margins are against the pre-trained model",
        "rules:",
        f"  - {{measure: {headline}, margin: 0}}    # not worse than before fine-tuning, for certain",
    ]
    if seen.classes and KNOWN[seen.task].one_label:
        share = math.ceil(1000 * seen.commonest) / 1000
        lines.append(f"  - {{measure: accuracy, min: {share:g}}}    # better than always saying the commonest class")
    return "\n".join([*lines, ""])
