"""The verdict of a run whose server has no test rows: what the sites' held-back rows say of the model that is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith_federated import sums
from tunesmith_federated.record import kept

if TYPE_CHECKING:
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task

SPLIT = "sites"
"""What the rows are called that the sites held back."""


def judge_by_sites(run: Run, task: Task) -> Evaluation:
    """Write ``metrics.json``, the report and the card from the sums over all sites; no row was seen here."""
    from tunesmith import storage
    from tunesmith.evaluation.judging import VERDICT
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.evaluation.statistics import Estimate
    from tunesmith.report.card import write_card
    from tunesmith.report.html import write_report

    told = kept(run.recipe, run.manifest["federation"]) | run.manifest["federation"]
    number = str(told["kept_round"])
    judged, about = told["judged"].get(number) or {}, told.get("judged_by", {}).get(number) or {}
    n, confidence = int(about.get("n", 0)), run.recipe.evaluation.confidence
    wanted = run.recipe.training.metric_for_best_model or task.metric
    headline = wanted if wanted in judged else next((name for name in judged if name != "loss"), wanted)
    nothing = {headline: Estimate(math.nan, math.nan, math.nan, 0, "none")}
    found = Evaluation(
        run=run.name,
        task=task.name,
        split=SPLIT,
        n=n,
        headline=headline,
        metrics=nothing | sums.estimates(judged, n, confidence),
        confidence=confidence,
        folder=run.file(""),
        warnings=list(_warnings(run, told, judged, about)),
    )
    storage.write_json(storage.join(run.path, VERDICT), found.to_json())
    write_report(run, found)
    write_card(run, found, task.pipeline)
    return found


def _warnings(run: Run, told: Mapping[str, Any], judged: Mapping[str, float], about: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the verdict must know."""
    if not judged:
        yield (
            "No site has judged this model: each holds back fewer rows than it may tell of "
            f"(federation.min_examples is {run.recipe.federation.min_examples}). Judge it by rows of your own: "
            f"`tunesmith evaluate {run.path} --data FILE`, or data.test in the recipe."
        )
        return
    chosen = " The round was chosen by them: expect a little less on new data." if told["chosen"] else ""
    yield (
        "These are sums over the rows that the sites held back; the server has seen none of them, and has no test rows of "
        f"its own.{chosen}"
    )
    if about.get("area_error") is not None and math.isfinite(judged.get("roc_auc", math.nan)):
        yield (
            f"ROC-AUC is made of histograms of scores with {sums.BINS:,} bins: it is at most {about['area_error']:.2g} away "
            "from that of the scores themselves."
        )
    if about.get("averaged"):
        yield f"Means of the sites' own metrics, weighed by their rows: {', '.join(about['averaged'])}."
