"""Whether a model betrays which examples it was trained on: membership inference on its training rows and its test rows.

- *loss threshold* (Yeom et al. 2018, arXiv:1709.01604): a row is taken for a training row where the model's loss on it is low.
  ``attack_advantage`` is their membership advantage, the true- less the false-positive rate at the mean training loss
- *LiRA*, offline (Carlini et al. 2022, arXiv:2112.03570): low for this row? Shadow models trained without it say how sure a
  model is of it anyway: the logit of the right answer's probability, as a Gaussian for each row. The score is how far above
  that the model is. Each row's mean is its own; the variance is too from 64 shadow models on, and is pooled below, which
  the paper found better there

Rows are equally likely to be of either kind under no knowledge, so that an AUC of 0.5, and a true-positive rate of 1 % at 1 %
false positives, is chance. That rate is what matters: an attacker who is sure of few rows does harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.evaluation import shadow_scores
from tunesmith.evaluation.judges import records_at
from tunesmith.evaluation.results import Estimates, SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Estimate, wilson
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.rates import Rate, difference
from tunesmith.evaluation.suites.separation import auroc, curve, tpr_at_fpr
from tunesmith.evaluation.suites.training_rows import training_data
from tunesmith.tasks.base import Chart

if TYPE_CHECKING:
    from tunesmith.data.prepared import PreparedData, Split
    from tunesmith.evaluation.shadow_scores import Shadow
    from tunesmith.tasks.base import Record

TITLE = "Privacy"
FPR = 0.01
OWN_VARIANCE = 64
"""Shadow models from which each row's variance is its own (Carlini et al. 2022, section VI)."""
TINY = 1e-12

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sides:
    """The rows of both kinds: their indices, and what the model made of them."""

    data: PreparedData
    others: Split
    members: npt.NDArray[np.int64]
    """Indices into the training split."""
    outsiders: npt.NDArray[np.int64]
    """Indices into ``others``."""
    member_loss: Array
    other_loss: Array
    member_right: npt.NDArray[np.bool_]
    other_right: npt.NDArray[np.bool_]


@suite("scores")
def privacy(bench: Bench) -> SuiteResult:
    """Both attacks, each with its intervals."""
    sides = _sides(bench)
    if isinstance(sides, str):
        return SuiteResult(TITLE, skipped=sides)
    sure, settings = bench.settings.confidence, bench.settings
    scores = {"loss": (-sides.member_loss, -sides.other_loss)}
    shadows = _shadows(bench, sides)
    if shadows:
        scores["lira"] = lira(shadows, sides, settings.seed)
    measures: Estimates = {}
    for name, (inside, outside) in scores.items():
        measures[f"{name}/attack_auc"] = auroc(inside, outside, sure)
        measures[f"{name}/attack_tpr"] = tpr_at_fpr(inside, outside, FPR, sure)
    measures["loss/attack_advantage"] = advantage(sides.member_loss, sides.other_loss, sure)
    titles = {"loss": "Loss threshold", "lira": f"LiRA, {len(shadows)} shadow models"}
    columns = ["attack_auc", "attack_tpr", "attack_advantage"]
    rows = {titles[name]: [measures.get(f"{name}/{column}") for column in columns] for name in scores}
    tables = [SuiteTable("Attacks", columns, rows), _accuracies(sides, sure)]
    lines = [  # they end in one point, so that their names cannot tell them apart there: the strongest attack stands out
        {"label": titles[name], "points": curve(*sides_of), "strong": name == [*scores][-1]}
        for name, sides_of in scores.items()
    ]
    axes = {"x": "false-positive rate", "y": "true-positive rate", "log": True, "diagonal": True}
    chart = Chart("lines", "Training rows found, by how many others are taken for some", {**axes, "series": lines})
    n = len(sides.members) + len(sides.outsiders)
    return SuiteResult(TITLE, _summary(measures, shadows), n, measures, tables, [chart], notes=_notes(bench, sides, shadows))


def advantage(inside: Array, outside: Array, confidence: float) -> Estimate:
    """True- less false-positive rate of the attacker who takes losses up to the mean training loss for training rows'."""
    threshold = float(inside.mean())
    hit, false = (Rate(int((side <= threshold).sum()), len(side)) for side in (inside, outside))
    low, high = difference(hit, false, confidence)
    return Estimate(hit.value - false.value, low, high, hit.n + false.n, "newcombe")


def logit_of(loss: Array) -> Array:
    """The logit of the right answer's probability, from its negative logarithm.

    >>> logit_of(np.array([np.log(2.0)])).round(6).tolist()
    [0.0]
    """
    return np.asarray(-loss - np.log(np.maximum(-np.expm1(-loss), TINY)))


def lira(shadows: list[Shadow], sides: Sides, seed: int) -> tuple[Array, Array]:
    """The scores of the training rows and of the other rows, in standard deviations above models that have not seen them.

    A training row is unknown to half of the shadow models; of the others, which none has seen, one of each pair is asked, so
    that both are judged by as many models and nothing but membership tells them apart.
    """
    rng = np.random.default_rng((seed, len(shadows)))
    train = np.stack([logit_of(one.train[sides.members]) for one in shadows])
    other = np.stack([logit_of(one.others[sides.outsiders]) for one in shadows])
    unknown = np.stack([~one.member[sides.members] for one in shadows])
    first = rng.random((len(shadows) // 2, len(sides.outsiders))) < 0.5
    asked = np.stack([first, ~first], axis=1).reshape(len(shadows), -1)
    said = np.concatenate([_taken(train, unknown), _taken(other, asked)], axis=1)
    middle, k = said.mean(axis=0), len(said)
    spread = said.var(axis=0, ddof=1) if k > 1 else np.ones(said.shape[1])
    if len(shadows) < OWN_VARIANCE:
        spread = np.full_like(spread, spread.mean())
    own = logit_of(np.concatenate([sides.member_loss, sides.other_loss]))
    score = (own - middle) / np.sqrt(np.maximum(spread, TINY))
    return score[: len(sides.members)], score[len(sides.members) :]


def _taken(values: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """Of each column the values that the mask has, ``[half, n]``: as many in every column."""
    return values.T[mask.T].reshape(values.shape[1], -1).T


def _sides(bench: Bench) -> Sides | str:
    """A seeded sample of the rows of both kinds, asked; or why there is none."""
    data = training_data(bench)
    if isinstance(data, str):
        return data
    others, train = shadow_scores.other_rows(data), data.splits["train"]
    if others is None:
        return "the run has no rows that it was not trained on to tell its training rows from"
    most, seed = bench.settings.privacy.max_examples, bench.settings.seed
    known = {_content(name) for name in train.ids.to_pylist()}
    apart = np.flatnonzero([_content(name) not in known for name in others.ids.to_pylist()])
    if not len(apart):
        return f"every {others.name} row stands in the training data too"
    members = np.sort(np.random.default_rng((seed, 1)).permutation(len(train))[:most])
    outsiders = np.sort(np.random.default_rng((seed, 2)).permutation(apart)[:most])
    inside, outside = _asked(bench, train, members), _asked(bench, others, outsiders)
    if any(one is None for one in (*inside, *outside)):
        return f"{bench.target.name} did not answer all of the rows"
    answered = [[one for one in side if one is not None] for side in (inside, outside)]
    loss = [np.asarray([one["loss"] for one in side], dtype=np.float64) for side in answered]
    if not all(np.isfinite(one).all() for one in loss):
        return f"{bench.target.name} does not tell how likely the right answer is"
    right = [np.asarray([one["correct"] for one in side], dtype=bool) for side in answered]
    return Sides(data, others, members, outsiders, loss[0], loss[1], right[0], right[1])


def _content(name: str) -> str:
    """What an id says of its row's contents: further rows of the same have a number behind it."""
    return name.partition("-")[0]


def _asked(bench: Bench, split: Split, indices: npt.NDArray[np.int64]) -> list[Record | None]:
    """What the target says of some rows of a split, scored."""
    predictor: Any = getattr(bench.target, "predictor", None)
    if predictor is not None:
        return list(records_at(predictor, split, indices))
    task, state, examples = bench.target.task, bench.target.state, split.examples(indices)
    found: list[Record | None] = [None] * len(examples)
    for reply in bench.target.replies(examples):
        if reply.answer is not None:
            found[reply.index] = task.score(reply.answer, examples[reply.index], state)
    return found


def _shadows(bench: Bench, sides: Sides) -> list[Shadow]:
    wanted = bench.settings.privacy.shadow_models
    assert bench.run is not None
    found = list(shadow_scores.stored(bench.run, wanted, bench.settings.seed, sides.data))
    return found[: len(found) // 2 * 2]


def _accuracies(sides: Sides, confidence: float) -> SuiteTable:
    """What overfitting shows already."""
    rows: dict[str, list[Estimate | None]] = {}
    for name, right in (("training rows", sides.member_right), (f"{sides.others.name} rows", sides.other_right)):
        share = float(right.mean())
        rows[name] = [Estimate(share, *wilson(share, len(right), confidence), len(right), "wilson")]
    return SuiteTable("Right answers", ["accuracy"], rows, note="Where these differ, membership shows in the answers alone.")


def _summary(measures: Estimates, shadows: list[Shadow]) -> str:
    name = "lira" if shadows else "loss"
    area, rate = measures[f"{name}/attack_auc"], measures[f"{name}/attack_tpr"]
    by = f"LiRA with {len(shadows)} shadow models" if shadows else "Its loss"
    chance = " (chance is within the interval)" if area.low <= 0.5 <= area.high else ""
    return (
        f"{by} tells training rows from others with an AUC of {area.value:.3f} ({area.low:.3f} to {area.high:.3f}){chance}; "
        f"at 1 % false positives {100 * rate.value:.1f} % of them ({100 * rate.low:.1f} to {100 * rate.high:.1f}) are found, "
        "where chance finds 1 %."
    )


def _notes(bench: Bench, sides: Sides, shadows: list[Shadow]) -> list[str]:
    seed, m = bench.settings.seed, len(sides.outsiders)
    train = f"{len(sides.members):,} of {len(sides.data.splits['train']):,} training rows"
    others = f"{m:,} of {len(sides.others):,} {sides.others.name} rows"
    said = [f"{train} and {others} (drawn with seed {seed}); rows that stand in both are left out."]
    if sides.others.name == "validation":
        said.append("There is no test split: the validation rows chose the checkpoint, and are a little like training rows.")
    if m < 1 / FPR:
        said.append(f"One of {m} rows is more than 1 %: the rate at 1 % false positives is that at none.")
    wanted = bench.settings.privacy.shadow_models
    if not wanted:
        said.append("A stronger attack (LiRA) trains shadow models: evaluation.privacy.shadow_models=4 or more.")
    elif len(shadows) < wanted:
        said.append(f"{wanted} shadow models are asked for, and {len(shadows)} are there: tunesmith evaluate RUN trains them.")
    return said
