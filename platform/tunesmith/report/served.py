"""The report's section on a served model: whether it answers as it should, there and here, and how fast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup

from tunesmith.evaluation.results import Evaluation
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report.page import Section

if TYPE_CHECKING:
    from tunesmith.runs import Run

_MEASURE = Markup('<tr><td class="name">{}</td><td class="n"><b>{}</b></td><td>{}</td></tr>')
_TITLES = {
    "p50_ms": "Half of the answers within",
    "p90_ms": "90\u202f% within",
    "p99_ms": "99\u202f% within",
    "throughput": "Requests a second",
    "samples_per_second": "Samples a second",
    "error_rate": "Not answered",
    "goodput": "Answered within the limit",
}
_ROW = Markup("<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>")


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """What was asked, and the samples that were answered in two ways; None where no server was."""
    found = evaluation.suites.get("parity")
    if not evaluation.target or found is None:
        return None
    notes = Markup("").join(Markup("<li>{}</li>").format(note) for note in found.notes)
    html = Markup('<p class="note">The answers are those of <code>{}</code>.</p><ul>{}</ul>').format(evaluation.target, notes)
    if found.examples:
        rows = Markup("").join(_ROW.format(one["id"], one["served"], one["other"], one["beside"]) for one in found.examples)
        html += Markup(
            '<div class="scroll"><table><thead><tr><th>Sample</th><th>Served</th><th>Otherwise</th><th>How</th></tr></thead>'
            "<tbody>{}</tbody></table></div>"
        ).format(rows)
    return Section("Served as it should be?", html + _latency(evaluation))


def _latency(evaluation: Evaluation) -> Markup:
    """How long answers took."""
    found = evaluation.suites.get("latency")
    if found is None or found.skipped:
        return Markup("")
    rows = Markup("").join(
        _MEASURE.format(_TITLES.get(name, name), *_numbers(name, one)) for name, one in found.measures.items()
    )
    notes = Markup("").join(Markup('<p class="note">{}</p>').format(note) for note in found.notes)
    table = (
        '<div class="scroll"><table><thead><tr><th></th><th class="n">Value</th><th>Interval</th></tr></thead>{}</table></div>'
    )
    return Markup("<h3>How fast it answers</h3>") + Markup(table).format(rows) + notes


def _numbers(name: str, one: Estimate) -> tuple[str, str]:
    scale, unit = (100, "\u202f%") if name in ("error_rate", "goodput") else (1, "\u202fms" if name.endswith("_ms") else "")
    value, low, high = (f"{scale * end:,.4g}" if math.isfinite(end) else "–" for end in (one.value, one.low, one.high))
    return value + unit, "" if low == high == "–" else f"{low} to {high}"
