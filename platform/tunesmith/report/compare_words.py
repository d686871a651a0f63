"""A comparison in words: the verdict's sentence, what it rests on, and what would settle it."""

from __future__ import annotations

from tunesmith.evaluation.comparison import Compared, Comparison
from tunesmith.evaluation.paired_log import Agreement
from tunesmith.report import words


def sentence(found: Comparison) -> str:
    """The verdict, about the first metric."""
    name, one = found.metrics[0], found.measures[found.metrics[0]]
    title, gap = words.in_sentence(name), words.change(name, one.difference)
    if len(found.metrics) > 1:
        title = f"{title} and {len(found.metrics) - 1} more"
    return {
        "better": f"A is better than B: {title} {gap}.",
        "worse": f"A is worse than B: {title} {gap}.",
        "equivalent": f"A is as good as B: {title} {gap}, within the margin of {margin(name, found.margin)}.",
        "inconclusive": f"Nothing is settled: {title} {gap} of A against B may be chance.",
    }[found.verdict]


def details(found: Comparison) -> list[str]:
    """Who they are, what the verdict rests on, and how many examples would settle it."""
    said = [f"A is {found.a}, B is {found.b}; {found.n:,} examples, the same for both."]
    flips, churn = found.flips, words.number("accuracy", found.flips.churn / max(found.n, 1))
    said.append(
        f"A is right on {flips.fixed:,} that B has wrong, and wrong on {flips.broken:,} that B has right "
        f"(exact McNemar p = {flips.p:.2g}); the answer differs on {flips.churn:,} ({churn})."
    )
    said += [text for name in found.metrics if (text := open_question(name, found.measures[name], found))]
    return said


def open_question(name: str, one: Compared, found: Comparison) -> str:
    """What would settle an inconclusive metric; nothing of one that is settled."""
    if one.verdict != "inconclusive":
        return ""
    seen = margin(name, one.detectable)
    enough = (
        f"About {examples(one.needed)} would settle it (4 times in 5), if the difference is what it looks like."
        if one.needed and one.needed > found.n
        else "More examples would settle it."
        if one.needed
        else "No number of examples would settle it, if the difference is what it looks like: it lies at the margin."
    )
    return f"{words.metric_title(name)}: {found.n:,} examples show a difference of {seen} or more. {enough}"


def margin(name: str, value: float) -> str:
    """A margin, or the size of a difference, without its sign.

    >>> margin("accuracy", 0.01), margin("log_loss", 0.01)
    ('1.0 points', '0.010')
    """
    return f"{100 * value:.1f} points" if words.is_percent(name) else f"{value:.3f}"


def examples(n: int | None) -> str:
    """A number of examples, as rough as it is.

    >>> examples(10589), examples(83)
    ('11,000 examples', '83 examples')
    """
    if n is None:
        return "no number of examples"
    digits = max(len(str(n)) - 2, 0)
    return f"{-(-n // 10**digits) * 10**digits:,} examples"


def p_value(p: float) -> str:
    """As papers have it.

    >>> p_value(0.0431), p_value(7e-12)
    ('0.043', '< 0.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def agreement(found: Agreement) -> str:
    """How far two versions say the same."""
    share, ends = words.number("accuracy", found.agreed.value), words.interval("accuracy", found.agreed)
    return (
        f"{found.a[:1].upper()}{found.a[1:]} and {found.b} give the same answer to {share} of {found.n:,} examples ({ends}); "
        f"{found.churn:,} differ."
    )
