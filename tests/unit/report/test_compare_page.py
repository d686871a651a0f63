"""The page of a comparison needs no network and no script, and filters its examples all the same."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.evaluation.comparison import Comparison, compare_sides
from tunesmith.evaluation.flips import Flip
from tunesmith.evaluation.results import Evaluation, ShownInput
from tunesmith.evaluation.sides import open_side
from tunesmith.report import compare_page, compare_words
from tunesmith.runs import Run


def comparison(run: Run) -> Comparison:
    side = open_side(run.path)
    flips = [
        Flip("1", "broken", "cat", "dog", "cat", 0.9, 0.8, [ShownInput("text", "text", "<script>alert(1)</script>")]),
        Flip("2", "fixed", "dog", "dog", "cat", None, None),
    ]
    return replace(compare_sides(side, side), examples=flips)


def test_examples_can_be_filtered_without_a_script(judged: tuple[Run, Evaluation]) -> None:
    page = compare_page.render(comparison(judged[0]))
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "#k-broken:checked ~ .cards .card:not(.broken) { display: none; }" in page
    assert '<label for="r-r0">cat</label>' in page
    assert 'class="card broken r0"' in page
    assert "&lt;script&gt;" in page
    assert "Whether groups are treated alike" not in page, "the suite was not run"


def test_the_sentence_says_what_the_verdict_is_about(judged: tuple[Run, Evaluation]) -> None:
    found = comparison(judged[0])
    assert compare_words.sentence(replace(found, verdict="equivalent", metrics=["accuracy"])).startswith(
        "A is as good as B: accuracy"
    )
    assert compare_words.sentence(replace(found, verdict="worse", metrics=["ece", "accuracy"])).startswith(
        "A is worse than B: calibration error (ECE) and 1 more"
    )
