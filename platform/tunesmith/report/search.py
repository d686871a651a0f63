"""The report's section on a search: what was tried, what mattered, what stopping early saved, and how far to trust the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith.evaluation.results import Evaluation
from tunesmith.recipe.search import ALGORITHMS
from tunesmith.report import search_front, search_plots, svg, words
from tunesmith.report.page import Section, stored
from tunesmith.tuning.view import short

if TYPE_CHECKING:
    from tunesmith.evaluation.statistics import Estimate
    from tunesmith.runs import Run

RECORD = "search.json"
MOST_ROWS = 30
TWO_SIDED = 1.96


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """The part; None of a run that no search made, and where other data than its own test split was judged."""
    record = stored(run, RECORD)
    if not record:
        return None
    parts = [Markup("<p>{}</p>").format(sentence) for sentence in _told(record)]
    parts.append(_optimism(record, evaluation))
    if record["front"]:
        parts.append(search_front.front(record))
    parts.append(
        Markup("<h3>What was tried</h3>")
        + _note("A line is a trial; up is better on the last axis. The winner is thick, the best quarter coloured.")
        + Markup('<div class="scroll" style="--natural:{}px">{}</div>').format(
            search_plots.parallel_width(record), search_plots.parallel(record)
        )
    )
    legend = svg.legend([("to the end", "own"), ("stopped early", "base")]) if _stopped(record) else Markup("")
    parts.append(
        Markup('<div class="two"><div>{}</div><div>{}{}</div></div>').format(
            search_plots.curves(record), search_plots.best_so_far(record), legend
        )
    )
    if record["importances"]:
        parts.append(
            Markup("<h3>What mattered</h3>")
            + _note(
                "The share of the differences between trials that each hyperparameter explains (fANOVA, Hutter et al. 2014), "
                "within the range that was searched. Stopped trials count with what they had reached."
            )
            + search_plots.importance(record)
        )
    parts.append(_table(record))
    return Section("The search", Markup("").join(parts))


def _note(text: str) -> Markup:
    return Markup('<p class="note">{}</p>').format(text)


def _told(record: Mapping[str, Any]) -> list[str]:
    """What was done and what it cost, in sentences."""
    trials = [row for row in record["trials"] if row["origin"] != "seed"]
    stopped = _stopped(record)
    failed = sum(row["status"] == "failed" for row in trials)
    how = "by population-based training" if record["scheduler"] == "pbt" else f"chosen {ALGORITHMS[record['algorithm']]}"
    said = [
        f"{len(trials)} trials {how}, in {words.duration(record['elapsed'])}; {words.duration(record['cost'])} of computing. "
        + (f"{failed} failed. " if failed else "")
        + (f"It ended because {record['ended_by']}. " if record["ended_by"] else "")
        + f"Trials were compared by {words.in_sentence(record['metric'])} on {record['rows']:,} validation rows; the test rows "
        "were judged once, for the winner."
    ]
    planned, done = record["steps_planned"], record["steps_done"]
    if stopped and planned > done:
        said.append(
            f"Early stopping saved {1 - done / planned:.0%} of the updates: {stopped} trials were stopped, and all together "
            f"made {done:,} of {planned:,}."
        )
    if record["seeds"]:
        numbers = ", ".join(words.number(record["metric"], value) for value in record["seeds"])
        said.append(
            f"The winner's values trained with other seeds came to {numbers}; the winner itself to "
            f"{words.number(record['metric'], _winner(record)['value'])}. What is between them is luck."
        )
    left = record.get("seeds_planned", 0) - len(record["seeds"])
    if left > 0 and record["ended_by"]:
        more = " more" if record["seeds"] else ""
        said.append(
            f"The winner's values were to be trained with {left}{more} other seed{'s' * (left > 1)}, and were not: "
            "the budget was spent."
        )
    return said


def _stopped(record: Mapping[str, Any]) -> int:
    """How many trials did not go to their end."""
    return sum(row["status"] == "stopped" for row in record["trials"] if row["origin"] != "seed")


def _winner(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in record["trials"] if row["number"] == record["winner"])
    return found


def _optimism(record: Mapping[str, Any], evaluation: Evaluation) -> Markup:
    """The validation value that chose the winner beside its test value: the best of many looks better than it is."""
    judged = sum(row["value"] is not None and row["origin"] != "seed" for row in record["trials"])
    metric, value = record["metric"], _winner(record)["value"]
    found = evaluation.metrics.get("log_loss" if metric == "loss" and "loss" not in evaluation.metrics else metric)
    if found is None or value is None or evaluation.split != "test":
        return Markup("")
    ends = f" ({words.interval(metric, found)})" if words.interval(metric, found) else ""
    said = (
        f"The best of {judged} trials has {words.in_sentence(metric)} {words.number(metric, value)} on the validation rows "
        f"that chose it, and {words.number(metric, found.value)} on the test rows, which chose nothing"
        f"{ends}. Only the second is an estimate."
    )
    most = luck(judged, record["rows"], found)
    if most is not None:
        said += (
            f" Of {judged} trials that are all equally good, the best would look better than it is by up to about "
            f"{words.size(metric, most)} on {record['rows']:,} rows."
        )
    return Markup('<p class="warning">{}</p>').format(said)


def luck(trials: int, rows: int, test: Estimate) -> float | None:
    """How much better than it is the best of so many equal trials looks: their expected highest error.

    The error of one is that of the test value, scaled to the validation rows. The expected highest of n normal errors is Blom's
    approximation (1958). Trials err alike on the same rows, so this is a bound. None where the test value has no interval.

    >>> from tunesmith.evaluation.statistics import Estimate
    >>> round(luck(20, 100, Estimate(0.9, 0.88, 0.92, 400, "wilson")), 3)
    0.038
    """
    if trials < 2 or not rows or not (math.isfinite(test.low) and math.isfinite(test.high)):
        return None
    error = (test.high - test.low) / (2 * TWO_SIDED) * math.sqrt(test.n / rows)
    return error * NormalDist().inv_cdf((trials - 0.375) / (trials + 0.25))


def _table(record: Mapping[str, Any]) -> Markup:
    """The trials, the best first."""
    worst = -math.inf
    ranked = sorted(record["trials"], key=lambda row: -(record["sign"] * row["value"] if row["value"] is not None else worst))
    rows = Markup("").join(
        Markup(
            '<tr{}><td class="n">{}</td><td class="n">{}</td><td class="nowrap">{}</td><td class="n">{}</td>'
            '<td class="long">{}</td></tr>'
        ).format(
            Markup(' class="main"') if row["number"] == record["winner"] else "",
            row["number"],
            words.number(record["metric"], row["value"]),
            _status(row),
            words.duration(row["seconds"]),
            row["error"] if row["status"] == "failed" else short(row["values"]),
        )
        for row in ranked[:MOST_ROWS]
    )
    head = Markup(
        '<thead><tr><th class="n">Trial</th><th class="n">{}</th><th></th><th class="n">Time</th><th>Values</th></tr></thead>'
    ).format(words.metric_title(record["metric"]))
    left = len(ranked) - MOST_ROWS
    more = _note(f"The best {MOST_ROWS} of {len(ranked)}; all are in trials.parquet.") if left > 0 else Markup("")
    return Markup(
        '<details><summary>All trials</summary>{}<div class="scroll"><table>{}<tbody>{}</tbody></table></div></details>'
    ).format(more, head, rows)


def _status(row: Mapping[str, Any]) -> str:
    own = {"recipe": "the recipe's own values", "seed": "another seed"}.get(row["origin"], "")
    how = {"failed": "failed", "stopped": f"stopped at {row['done']:,} of {row['steps']:,} updates"}.get(row["status"], "")
    return ", ".join(part for part in (own, how) if part)
