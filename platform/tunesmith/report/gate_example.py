"""A commented gate made from what a run has measured: ``tunesmith gate --example RUN``."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tunesmith.evaluation.decisions import detectable
from tunesmith.evaluation.measures import fitting, is_better_when_more, measures, metric_of
from tunesmith.evaluation.results import Estimates, Evaluation
from tunesmith.report import gate_words, words

DISCORDANT = 0.05
"""Share of the examples on which two trainings of one model often disagree; only a starting point for a margin."""


def render(found: Evaluation) -> str:
    """The gate as YAML: what the run holds today, a little below the pessimistic end of each interval."""
    known = measures(found)
    margin = math.ceil(100 * detectable(math.sqrt(DISCORDANT), found.n, found.confidence)) / 100
    parts = {column: f"slices/{column}=*/{found.headline}" for column in found.slices}
    lines = [
        f"# A release gate made from {found.run}: {found.n:,} examples of the {found.split} split.",
        f"#   tunesmith gate {found.run} --gate gate.yaml",
        f"# A rule passes where the pessimistic end of its {100 * found.confidence:g} % interval is on the right side. Limits",
        "# here are just beyond it, so that this run passes: write down what you need, not what you have.",
        "",
        "undecided: fail        # warn: let through what so few examples cannot settle, and say so",
        "# baseline: runs/NAME  # what margins are against; base is the run's own pre-trained model",
        "",
        "rules:",
        *_floor(found.headline, known, "the least of all examples"),
        f"# - measure: {found.headline}    # not more than so much below the baseline (non-inferiority)",
        f"#   margin: {margin:g}    # what {found.n:,} examples settle, where the two disagree on {DISCORDANT:.0%} of them",
        *_floor("recall/*", known, "the worst class"),
        *(line for column, name in parts.items() for line in _floor(name, known, f"the worst value of {column}")),
        *_floor(f"domains/*/{found.headline}", known, "the worst data set"),
        *_ceiling("ece", known, "how far its probabilities may be off"),
        *_ceiling("retention/*/drop", known, "what may be forgotten of old data"),
        *(line for name in known if name.partition("/")[0] in found.suites for line in _offered(name, known)),
    ]
    return "\n".join(lines) + "\n"


def _floor(pattern: str, known: Estimates, why: str) -> Iterator[str]:
    names = [name for name in fitting(pattern, known) if math.isfinite(known[name].low)]
    if names:
        worst = min(names, key=lambda name: known[name].low)
        yield f"  - measure: {_quoted(pattern)}    # {why}; now {_now(worst, known, pattern)}"
        yield f"    min: {math.floor(100 * known[worst].low) / 100:g}"


def _ceiling(pattern: str, known: Estimates, why: str) -> Iterator[str]:
    names = [name for name in fitting(pattern, known) if math.isfinite(known[name].high)]
    if names:
        worst = max(names, key=lambda name: known[name].high)
        yield f"  - measure: {_quoted(pattern)}    # {why}; now {_now(worst, known, pattern)}"
        yield f"    max: {math.ceil(100 * known[worst].high) / 100:g}"


def _offered(name: str, known: Estimates) -> Iterator[str]:
    """A suite's measure, to be uncommented."""
    if math.isfinite(known[name].value):
        yield f"# - measure: {_quoted(name)}    # now {_now(name, known, name)}"
        yield f"#   {'min' if is_better_when_more(name) else 'max'}: {known[name].value:.3g}"


def _now(name: str, known: Estimates, pattern: str) -> str:
    metric, one = metric_of(name), known[name]
    ends = words.interval(metric, one)
    which = "" if name == pattern else f"{gate_words.plain_line(name)}: "
    return f"{which}{words.number(metric, one.value)}" + (f" ({ends})" if ends else "")


def _quoted(pattern: str) -> str:
    """A measure as YAML."""
    safe = all(letter.isalnum() or letter in "_/-.=" for letter in pattern)
    return pattern if safe else '"' + pattern.replace("\\", "\\\\").replace('"', '\\"') + '"'
