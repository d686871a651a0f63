"""The verdict of a run whose server has no test rows: what the sites' held-back rows say of the model that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_federated import sums

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
    from tunesmith.report.card import write_card
    from tunesmith.report.html import write_report

    told = run.manifest["federation"]
    kept = told["best_round"] if told.get("best_round") is not None else told["rounds"]
    judged = told["judged"].get(str(kept), {})
    n = int(told.get("judged_rows", 0))
    wanted = run.recipe.training.metric_for_best_model or task.metric
    found = Evaluation(
        run=run.name,
        task=task.name,
        split=SPLIT,
        n=n,
        headline=wanted if wanted in judged else next(iter(judged), wanted),
        metrics=sums.estimates(judged, n, run.recipe.evaluation.confidence),
        confidence=run.recipe.evaluation.confidence,
        folder=run.file(""),
        warnings=[
            "These are sums over the rows that the sites held back; the server has seen none of them, and has no test rows of "
            "its own." + (" The round was chosen by them: expect a little less on new data." if told.get("best_round") else "")
        ],
    )
    storage.write_json(storage.join(run.path, VERDICT), found.to_json())
    write_report(run, found)
    write_card(run, found, task.pipeline)
    return found
