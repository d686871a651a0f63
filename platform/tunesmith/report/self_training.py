"""The report's section on self-training: what the teacher labelled, how right it was, and whether the student is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunesmith.evaluation.results import Evaluation, estimate
from tunesmith.report import plots, words
from tunesmith.report.page import Section, stored
from tunesmith.runs.run import TEACHER
from tunesmith.training.self_training import RECORD

if TYPE_CHECKING:
    from tunesmith.runs import Run

SHOWN = ("accuracy", "f1_macro", "loss", "ece")
"""Metrics of teacher and student, beside the one that decided."""


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """Teacher against student; None where the run has no unlabelled rows."""
    record = stored(run, RECORD)
    if "kept" not in record:
        return None
    settings = run.recipe_values.get("data", {}).get("unlabelled", {})
    parts = [Markup("<p>{}</p>").format(line) for line in sentences(run)]
    parts.append(Markup('<p class="note">{}</p>').format(_left_out(record["left_out"])))
    parts += [_compared(record, split, evaluation.headline) for split in ("test", "validation") if split in record]
    threshold = f"a row is taken from {settings.get('threshold', 0.9):g}"
    parts.append(Markup("<h3>How sure the teacher was</h3>") + plots.histogram(record["histogram"], "confidence", threshold))
    if record["taken"]:
        parts.append(Markup("<h3>Pseudo-labels of each class</h3>") + plots.shares(record["per_class"]))
    teacher = f"{TEACHER}/report.html"
    parts.append(Markup('<p class="note">The teacher is a run of its own: <a href="{0}">{0}</a>.</p>').format(teacher))
    return Section("Self-training", Markup("").join(parts))


def sentences(run: Run) -> list[str]:
    """What self-training came to, for people, in the terminal and in the report; empty where there was none."""
    record = stored(run, RECORD)
    if "kept" not in record:
        return []
    said = [_labelled(record)]
    if record["why"]:
        return [*said, f"There was no student: {record['why']}. The model is the teacher's."]
    name = record["metric"]
    by = _change(record["validation"], name)
    verdict = "better than its teacher" if record["kept"] == "student" else "not better than its teacher"
    kept = f"The student is {verdict} on the validation rows ({by}): the model is the {record['kept']}'s."
    if beyond := record.get("beyond"):
        kept = f"The {beyond} is beyond the retention ceiling, so the model is the {record['kept']}'s (validation: {by})."
    told, shown = record.get("test"), run.verdict.get("headline", name)
    if told and shown in told["difference"]:
        kept += f" On the test rows the student has {_change(told, shown)} against the teacher."
    return [*said, kept]


def _labelled(record: Mapping[str, Any]) -> str:
    text = f"The teacher labelled {record['rows']:,} rows and was sure enough of {record['taken']:,}"
    right = (record["truth"] or {}).get("taken")
    if right:
        ends = f"{100 * right['low']:.1f} to {100 * right['high']:.1f}"
        text += f", of which {100 * right['value']:.1f} % ({ends}) have the right label"
    return text + "."


def _change(told: Mapping[str, Any], name: str) -> str:
    """``accuracy +1.2 points, −0.3 to +2.7``."""
    found = estimate(told["difference"][name])
    ends = words.change_interval(name, found)
    return f"{words.in_sentence(name)} {words.change(name, found)}" + (f", {ends}" if ends else "")


def _left_out(record: Mapping[str, Any]) -> str:
    """Which rows were not asked about."""
    ways = {
        ("exact", "near"): "in the {} rows",
        ("group",): "of the groups of the {} rows",
        ("time",): "as late as the {} rows",
    }
    counts = {"copies of each other": record["copies"]} | {
        what.format(name): sum(record[name].get(one, 0) for one in kinds)
        for name in ("train", "validation", "test")
        if name in record
        for kinds, what in ways.items()
    }
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    whole = f"Of {record['seen']:,} unlabelled rows were left out: {said}." if said else "No unlabelled row had to be left out."
    return whole if record["near_looked_for"] else f"{whole} Near copies were not looked for."


def _compared(record: Mapping[str, Any], split: str, headline: str) -> Markup:
    """A table of both on the same rows."""
    told = record[split]
    names = [name for name in dict.fromkeys((record["metric"], headline, *SHOWN)) if name in told["student"]]
    head: Sequence[str] = ("Metric", "Teacher", "Student", "Change")
    note = "" if split == "test" else " (these rows decided)"
    cells = Markup("").join(Markup("<th>{}</th>").format(one) for one in head)
    title = Markup("<h3>On the {} rows, n = {:,}{}</h3>").format(split, told["n"], note)
    table = Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>')
    return title + table.format(cells, Markup("").join(_row(told, name) for name in names))


def _row(told: Mapping[str, Any], name: str) -> Markup:
    one, other, more = (estimate(told[key][name]) for key in ("teacher", "student", "difference"))
    values = Markup("").join(
        Markup('<td class="n"><b>{}</b><small>{}</small></td>').format(
            words.number(name, each.value), words.interval(name, each)
        )
        for each in (one, other)
    )
    return Markup('<tr><td class="name">{}</td>{}<td><span class="{}">{}</span><small>{}</small></td></tr>').format(
        words.metric_title(name), values, words.tone_of(name, more), words.change(name, more), words.change_interval(name, more)
    )
