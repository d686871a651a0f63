"""Every suite has its section, a third party's too, and its line in the terminal; what was not run says why."""

from __future__ import annotations

import dataclasses

import pytest

from support.bench import Ruled, bench
from tunesmith.evaluation.results import Evaluation, SuiteResult, SuiteTable
from tunesmith.evaluation.statistics import Estimate
from tunesmith.evaluation.suites.robustness import robustness
from tunesmith.report import suites
from tunesmith.report.damage import marked


def evaluation(**found: SuiteResult) -> Evaluation:
    return Evaluation("run", "text-classification", "test", 10, "accuracy", {}, suites=found)


def test_a_third_partys_suite_is_shown_with_its_numbers_and_samples() -> None:
    one, small = Estimate(0.5, 0.25, 0.75, 12, "wilson"), Estimate(0.1, 0.0, 0.3, 4, "wilson")
    tables = [
        SuiteTable("Rates", ["accuracy", "f1"], {"all": [one, None], "few": [small, small]}, marks={"few": "a few"}),
        SuiteTable("Change", ["now"], {"all": [Estimate(-0.2, -0.3, -0.1, 12, "mover")]}, "accuracy", change=True, folded=True),
    ]
    found = SuiteResult("My <suite>", "It went <well>.", 12, tables=tables, examples=[{"text": "<b>", "said": "no"}])
    (section,) = suites.sections(evaluation(mine=found))
    assert section.title == "My <suite>"
    for words in (
        "50.0\u202f%",
        "25.0 to 75.0\u202f%",
        "a few",
        "−20.0 points",
        "It went &lt;well&gt;.",
        "&lt;b&gt;",
        "<details>",
    ):
        assert words in section.html
    assert 'class="worse"' in section.html
    assert list(suites.lines(evaluation(mine=found))) == [("My <suite>", "It went <well>.")]


def test_a_suite_that_was_not_run_says_why() -> None:
    found = evaluation(mine=SuiteResult("Mine", skipped="the model is <shy>"))
    assert "not run: the model is &lt;shy&gt;." in suites.sections(found)[0].html
    assert list(suites.lines(found)) == [("Mine", "not run: the model is <shy>")]


def test_damaged_texts_are_shown_with_what_changed_marked() -> None:
    rows = [{"text": f"a good film <{k}>", "label": "pos"} for k in range(20)]
    target = Ruled(lambda example: "pos" if "good" in example["text"] else "neg", ["neg", "pos"])
    result = robustness(bench(target, rows, robustness={"kinds": ["case", "word_drop"], "severities": [5]}))
    (section,) = suites.sections(evaluation(robustness=result))
    assert "<mark>GOOD</mark>" in section.html or "<mark>gOOD" in section.html
    assert "&lt;" in section.html
    assert "<0>" not in section.html


def test_what_a_behavioural_test_changed_is_marked() -> None:
    failed = [
        {
            "test": "names",
            "text": "Ada <b> came",
            "said": "pos",
            "changed": "Ben <b> came",
            "then": "neg",
            "expected": "the same",
        },
        {"test": "praise", "text": "It is good", "said": "neg", "expected": "pos"},
    ]
    (section,) = suites.sections(evaluation(behaviour=SuiteResult("Behaviour", examples=failed)))
    assert "<mark>Ben</mark> &lt;b&gt; came" in section.html
    assert "pos → neg" in section.html
    assert "It is good" in section.html


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("one two", "one two", "one two"),
        ("one two", "oen two", "<mark>oen</mark> two"),
        ("a b", "a  b", "a<mark>  </mark>b"),
        ("a b", "ab", "<mark>ab</mark>"),
    ],
)
def test_marks(before: str, after: str, expected: str) -> None:
    assert marked(before, after) == expected


def test_pictures_are_left_out_of_the_file() -> None:
    picture = "data:image/png;base64,AAAA"
    examples = [{"before": picture, "after": [{"value": picture, "severity": 1}], "id": "x"}]
    found = dataclasses.replace(evaluation(mine=SuiteResult("Mine", examples=examples)))
    assert found.to_json()["test"]["suites"]["mine"]["examples"] == [{"after": [{"severity": 1}], "id": "x"}]
