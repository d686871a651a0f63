"""The report is whole, self-contained, and safe to open whatever the data says."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tunesmith.evaluation.results import ClassResult, Evaluation, ShownExample, ShownInput, SliceResult
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report.html import render, write_report
from tunesmith.runs import Run
from tunesmith.tasks.base import Chart

Judged = tuple[Run, Evaluation]
EVIL = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, and whether tags are closed."""

    void = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_the_report_stands_beside_the_verdict_and_needs_no_network(judged: Judged) -> None:
    place = Path(write_report(*judged))
    text = place.read_text()
    assert place == Path(judged[0].path, "report.html")
    page = Page(text)
    assert not page.open, "every tag is closed"
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert all(value and value.startswith("data:") for name, value in page.attributes if name in ("src", "href"))
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 400_000


def test_it_has_every_part(judged: Judged) -> None:
    text = render(*judged)
    for part in ("Every metric", "How it learned", "Confusion matrix", "Reliability", "Class by class", "scanner", "Worst"):
        assert part in text
    assert judged[1].data_hash is not None
    assert judged[1].data_hash in text
    assert "tunesmith reproduce" in text
    shown = (*judged[1].worst, *judged[1].best, *judged[1].samples.shown)
    assert text.count("data:image/png") == len(shown)


def test_text_from_the_data_cannot_become_markup(judged: Judged) -> None:
    run, found = judged
    one = Estimate(0.5, 0.4, 0.6, 10, "wilson")
    shown = ShownExample(EVIL, [ShownInput("text", "text", EVIL)], EVIL, EVIL, False, 1.0, 0.5, [(EVIL, 0.5), ("b", 0.5)])
    words = ShownExample("1", [ShownInput("tokens", "strings", [EVIL])], [EVIL], ["O"], False, 1.0)
    evil = dataclasses.replace(
        found,
        source=EVIL,
        warnings=[EVIL],
        per_class={EVIL: ClassResult(3, {"f1": one, "precision": one, "recall": one}, 4)},
        slices={EVIL: {EVIL: SliceResult(3, {found.headline: one})}},
        charts=[Chart("confusion", EVIL, {"labels": [EVIL, "b"], "counts": [[1, 2], [3, 4]]})],
        worst=[shown, words],
        best=[shown],
    )
    stored = Path(run.file("data/report.json"))
    before = stored.read_text()
    try:
        stored.write_text(
            before.replace('"by_reason": {}', '"by_reason": {"<script>x</script>": 1}').replace('"total": 0', '"total": 1')
        )
        text = render(run, evil)
    finally:
        stored.write_text(before)
    page = Page(text)
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "&lt;script&gt;" in text


def test_undefined_numbers_and_missing_parts_are_shown_as_such(judged: Judged) -> None:
    run, found = judged
    nothing = Estimate(math.nan, math.nan, math.nan, 0, "none")
    bare = Evaluation(
        run.name, found.task, "test", 0, "f1", {"f1": nothing, "loss": nothing}, {"x": ClassResult(0, {"f1": nothing})}
    )
    text = render(run, bare)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower().split()
    assert "–" in text


@pytest.mark.parametrize("size", [2, 14, 50, 51])
def test_confusion_matrices_of_any_size_are_drawn(judged: Judged, size: int) -> None:
    counts = [[size - abs(a - b) for a in range(size)] for b in range(size)]
    chart = Chart("confusion", "Confusion", {"labels": [f"class {k}" for k in range(size)], "counts": counts})
    text = render(judged[0], dataclasses.replace(judged[1], charts=[chart]))
    assert text.count('class="cell') == (size * size if size <= 50 else 0)
    assert not Page(text).open


def test_a_chart_that_nobody_can_draw_is_left_out(judged: Judged) -> None:
    assert "mystery" not in render(judged[0], dataclasses.replace(judged[1], charts=[Chart("mystery", "mystery", {})]))
