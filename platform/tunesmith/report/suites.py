"""The report's section of each suite of the test bench, and its line in the terminal.

Tables, charts and notes are shown alike for every suite, a third party's too; samples are shown by the suite's own renderer
where it has one, else as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from markupsafe import Markup

from tunesmith.evaluation.results import Evaluation, SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import behaviour, damage, line_chart, page, plots, words

Shower = Callable[[SuiteResult], Markup]

OF_SERVING = ("parity", "latency")
"""Suites that the section on a served model shows."""

EXAMPLES: dict[str, Shower] = {"robustness": damage.samples, "behaviour": behaviour.samples}
"""Suite → how its samples are shown."""


DRAWN: dict[str, Callable[[Any], Markup]] = {**plots.RENDERERS, "lines": line_chart.lines}
"""How a suite's charts are drawn, by their kind."""


def sections(evaluation: Evaluation) -> list[page.Section]:
    """A section for each suite that was asked for, in the order in which they ran."""
    return [page.Section(one.title, _section(name, one)) for name, one in _asked(evaluation).items()]


def lines(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """For the terminal: each suite's title, and what it found or why it was not run."""
    for one in _asked(evaluation).values():
        yield one.title, f"not run: {one.skipped}" if one.skipped else one.summary or f"{one.n:,} examples, see the report"


def _asked(evaluation: Evaluation) -> dict[str, SuiteResult]:
    return {name: one for name, one in evaluation.suites.items() if name not in OF_SERVING}


def _section(name: str, one: SuiteResult) -> Markup:
    if one.skipped:
        return Markup('<p class="note">This was asked for, and not run: {}.</p>').format(one.skipped)
    template = page.environment().get_template("suite.html.j2")
    show = EXAMPLES.get(name, _plainly)
    return Markup(
        template.render(
            suite=one,
            tables=[_table(table) for table in one.tables],
            charts=[(chart.title, DRAWN[chart.kind](chart.data)) for chart in one.charts if chart.kind in DRAWN],
            examples=show(one) if one.examples else Markup(""),
        )
    )


def _table(table: SuiteTable) -> dict[str, Any]:
    """A table with its numbers in words."""
    sizes = {name: max((cell.n for cell in row if cell), default=0) for name, row in table.rows.items()}
    heads = [column if table.metric else words.metric_title(column) for column in table.columns]
    rows = [
        {
            "name": name,
            "mark": table.marks.get(name, ""),
            "n": sizes[name],
            "cells": [_cell(table, column, cell) for column, cell in zip(table.columns, row, strict=True)],
        }
        for name, row in table.rows.items()
    ]
    differ = len(set(sizes.values())) > 1
    return {"title": table.title, "note": table.note, "heads": heads, "rows": rows, "sizes": differ, "folded": table.folded}


def _cell(table: SuiteTable, column: str, one: Estimate | None) -> dict[str, str]:
    if one is None or not math.isfinite(one.value):
        return {"value": "–", "interval": "", "tone": ""}
    metric = table.metric or column
    if not table.change:
        return {"value": words.number(metric, one.value), "interval": words.interval(metric, one), "tone": ""}
    value, ends = words.change(metric, one), words.change_interval(metric, one)
    return {"value": value, "interval": ends, "tone": words.tone_of(metric, one)}


def _value(value: Any) -> Markup:
    """A cell of a sample: a picture, or words."""
    if isinstance(value, str) and value.startswith("data:image/"):
        return Markup('<td><img class="small" src="{}" alt=""></td>').format(value)
    return Markup("<td>{}</td>").format(value)


def _plainly(one: SuiteResult) -> Markup:
    """Samples as a table of their values."""
    keys = list(dict.fromkeys(key for example in one.examples for key in example))
    head = Markup("<th>{}</th>")
    rows = (
        Markup("<tr>{}</tr>").format(Markup("").join(_value(example.get(key, "–")) for key in keys)) for example in one.examples
    )
    start = Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>')
    heads = Markup("").join(head.format(key.capitalize()) for key in keys)
    return start.format(heads) + Markup("").join(rows) + Markup("</tbody></table></div>")
