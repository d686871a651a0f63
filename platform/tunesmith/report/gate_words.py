"""A gate in words: the sentence on top, and a line for each rule; as Markdown for a pull request."""

from __future__ import annotations

from tunesmith.evaluation.gate import Check, GateResult, Outcome
from tunesmith.evaluation.measures import metric_of
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report import words
from tunesmith.report.compare_words import examples

SIGNS = {"passed": "✓", "failed": "✗", "not settled": "?"}
MARKS = {"passed": "pass", "failed": "**FAIL**", "not settled": "**not settled**"}
MOST_PARTS = 5
"""Further measures of a pattern that are told; all are in ``gate.json``."""


def sentence(found: GateResult) -> str:
    """How it ended."""
    total, held = len(found.outcomes), sum(one.status == "passed" for one in found.outcomes)
    blocking = [plain_line(one.name) for one in found.outcomes if one.blocks]
    if not found.passed:
        more = f" and {len(blocking) - 3} more" if len(blocking) > 3 else ""
        return f"The gate did not pass: {'; '.join(blocking[:3])}{more}"
    warned = total - held
    rest = f", {warned} not settled" if warned else ""
    return f"The gate passed: {held} of {total} rules hold{rest}"


def line(one: Outcome) -> str:
    """What a rule rests on: its worst check, and how many more there are."""
    if not one.checks:
        return f"nothing was judged: {_few(one)}"
    worst = one.checks[0]
    said = [check(worst)]
    if len({part.measure for part in one.checks}) > 1:
        not_held = [part.measure for part in one.checks[1:] if part.status != "passed"]
        names = ", ".join(not_held[:MOST_PARTS]) + (" …" if len(not_held) > MOST_PARTS else "")
        said[0] = f"{worst.measure}: {said[0]}"
        said.append(f"the worst of {len({part.measure for part in one.checks})}" + (f"; also {names}" if names else ""))
    said += [_few(one)] if one.few else []
    return plain_line("; ".join(said))


def check(one: Check) -> str:
    """A value with its interval, and what would settle it."""
    metric = metric_of(one.measure)
    said = _number(metric, one.value)
    if one.gain is not None and one.baseline is not None:
        change = words.change(metric, one.gain) + (f" ({ends})" if (ends := words.change_interval(metric, one.gain)) else "")
        said = f"{words.number(metric, one.value.value)} against {words.number(metric, one.baseline.value)}, gain {change}"
    if one.why:
        return f"{said}; {one.why}"
    if one.status != "not settled":
        return said
    if one.needed is None:
        return f"{said}; {one.judged.n:,} examples do not settle it"
    return f"{said}; {one.judged.n:,} examples do not settle it, about {examples(one.needed)} would"


def markdown(found: GateResult) -> str:
    """The gate as a comment of a pull request."""
    sign = "✅" if found.passed else "❌"
    about = f"`{_cell(found.target)}`, {found.n:,} examples of the {found.split} split"
    about += f" (hash `{found.data_hash}`)" if found.data_hash else ""
    if found.baseline:
        about += f", against `{_cell(found.baseline)}`"
    rows = [f"| {MARKS[one.status]} | {_cell(one.name)} | {_cell(line(one))} |" for one in found.outcomes]
    table = ["| | Rule | Found |", "| --- | --- | --- |", *rows]
    notes = [f"> {text}" for text in found.warnings]
    level = f"Intervals are at {100 * found.confidence:g} %; a rule passes where the pessimistic end of its interval does."
    return "\n".join([f"### {sign} {_cell(sentence(found))}", "", about, "", *table, "", *notes, level, ""])


def _number(metric: str, one: Estimate) -> str:
    if one.method == "count":
        return f"{one.value:,.0f}"
    ends = words.interval(metric, one)
    return words.number(metric, one.value) + (f" ({ends})" if ends else "")


def _few(one: Outcome) -> str:
    names = ", ".join(one.few[:MOST_PARTS]) + (" …" if len(one.few) > MOST_PARTS else "")
    return f"not judged, for want of {one.min_examples} examples: {names}"


def plain_line(text: str) -> str:
    """Text on one line, without what a terminal or a comment would break at."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cell(text: str) -> str:
    """Text inside a Markdown table: one line, without what would end a cell or begin HTML."""
    for letter, other in (("|", "/"), ("<", "‹"), (">", "›"), ("`", "'")):
        text = text.replace(letter, other)
    return " ".join(text.split())
