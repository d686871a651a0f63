"""Behavioural tests count what fails, and a file with mistakes is refused with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.bench import Ruled, bench
from tunesmith.errors import RecipeError, UserError
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.suites.behaviour import behaviour, check
from tunesmith.recipe import Recipe
from tunesmith.recipe.behaviour import parse
from tunesmith.tasks.base import Answer, Example

FILE = """\
lexicons:
  name: [Ada, Ben, Cleo]
  good: [fine, great]
tests:
  - name: praise
    type: minimum_functionality
    template: "{name} finds it {good}."
    expect: pos
  - name: names
    type: invariance
    template: "{name} finds it {good}."
    change: {vary: name}
  - name: capitals
    type: INV
    from: data
    change: {replace: {good: [GOOD, Good]}}
  - name: more praise
    type: directional
    examples: [It is a film., It is long.]
    change: {append: " A fine one."}
    label: pos
    direction: up
    tolerance: 0.1
"""
ROWS = [{"text": f"a {'good' if k % 2 else 'bad'} film", "label": "pos" if k % 2 else "neg"} for k in range(20)]


class Praise(Ruled):
    """Says pos of praise in small letters, but never of Ben's."""

    def __init__(self) -> None:
        super().__init__(lambda example: "pos" if self.praised(example) else "neg", ["neg", "pos"])

    @staticmethod
    def praised(example: Example) -> bool:
        text = example["text"]
        return any(word in text for word in ("good", "fine", "great")) and "Ben" not in text

    def answer(self, example: Example) -> Answer:
        return super().answer(example)


def run(tmp_path: Path, text: str = FILE) -> SuiteResult:
    place = tmp_path / "tests.yaml"
    place.write_text(text)
    ready = bench(Praise(), ROWS, behaviour=str(place))
    check(ready.split, ready.target.task, ready.target.state, ready.settings)
    return behaviour(ready)


def test_each_test_has_its_failure_rate(tmp_path: Path) -> None:
    found = run(tmp_path).measures
    assert found["praise/failure_rate"].value == pytest.approx(2 / 6), "Ben's two"
    assert found["names/failure_rate"].value == 1, "each differs from Ben's, or is Ben's"
    assert found["capitals/failure_rate"].value == 1
    assert found["capitals/failure_rate"].n == 10, "where there is nothing to replace there is no case"
    assert found["more praise/failure_rate"].value == 0
    assert found["failure_rate"].n == 6 + 6 + 10 + 2
    assert found["invariance/failure_rate"].value == 1
    assert 0 < found["praise/failure_rate"].low < 2 / 6 < found["praise/failure_rate"].high


def test_failures_are_shown(tmp_path: Path) -> None:
    shown = [one for one in run(tmp_path).examples if one["test"] == "praise"]
    assert {one["text"] for one in shown} == {"Ben finds it fine.", "Ben finds it great."}
    assert shown[0]["said"] == "neg"
    assert shown[0]["expected"] == "pos"


def test_a_large_lexicon_is_drawn_from(tmp_path: Path) -> None:
    many = ", ".join(f"w{k}" for k in range(300))
    test = "{name: t, type: mft, template: '{a} {b} {a} fine', expect: pos, max_cases: 50}"
    text = f"lexicons: {{a: [{many}], b: [{many}]}}\ntests:\n  - {test}\n"
    assert run(tmp_path, text).measures["t/failure_rate"].n == 50
    assert run(tmp_path, text).examples == run(tmp_path, text).examples


@pytest.mark.parametrize(
    ("test", "line", "words"),
    [
        (
            "{name: t, type: mft, template: 'It is {god}.', expect: pos}",
            3,
            r"nothing fills the slot \{god\}.*\n.*mean \{good\}",
        ),
        ("{name: t, type: mft, template: 'It is {good', expect: pos}", 3, "is no template"),
        ("{name: t, type: mtf, template: x, expect: pos}", 3, "there is no type of test mtf"),
        ("{name: t, type: mft, template: x}", 3, "needs expect"),
        ("{name: t, type: mft, expect: pos}", 3, "it has no texts"),
        ("{name: t, type: mft, template: x, examples: [y], expect: pos}", 3, "template and examples"),
        ("{name: t, type: mft, template: 3, expect: pos}", 3, "found 3"),
        ("{name: t, type: mft, template: x, expect: pos, change: {append: y}}", 3, "has no key change"),
        ("{name: t, type: inv, template: x, change: {vary: name}}", 3, "no template has a slot"),
        ("{name: t, type: inv, template: x, change: {perturb: tipos}}", 3, "no perturbation tipos.*\n.*mean typos"),
        ("{name: t, type: inv, template: x, change: {append: y, prepend: z}}", 3, "a change is one of"),
        ("{name: t, type: dir, template: x, change: {append: y}, label: pos, direction: upp}", 3, "found 'upp'"),
        ("{name: invariance, type: mft, template: x, expect: pos}", 3, "invariance is a type of test.*\n.*what it tests"),
        ("{name: t, type: inv, from: data, change: {perturb: no_damages.blot}}", 3, "t: .*no_damages cannot be imported"),
        ("just text", 3, "a test is a mapping"),
    ],
)
def test_mistakes_are_refused_with_their_line(tmp_path: Path, test: str, line: int, words: str) -> None:
    with pytest.raises(UserError, match=rf"tests.yaml:{line}: [^\n]*{words}"):
        run(tmp_path, f"lexicons: {{good: [fine], name: [Ada, Ben]}}\ntests:\n  - {test}\n")


@pytest.mark.parametrize("text", ["", "tests: 3", "tests: []", "- a", "tests: [", "lexicons: {a: b}\ntests: [{}]", "test: []"])
def test_what_is_no_file_of_tests_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"tests\.yaml"):
        run(tmp_path, text)


def test_all_mistakes_are_told_at_once() -> None:
    _, flaws = parse("tests:\n  - {name: a, type: x}\n  - {name: b, type: mft, template: '{q}', expect: c}\n")
    assert [flaw.line for flaw in flaws] == [2, 3]


def test_names_that_are_one_in_the_measures_are_refused() -> None:
    same = "type: mft, template: x, expect: c"
    _, flaws = parse(f"tests:\n  - {{name: a/b, {same}}}\n  - {{name: a-b, {same}}}\n")
    assert [(flaw.line, flaw.what) for flaw in flaws] == [(3, "two tests are called a-b")]


def test_an_unknown_label_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tests.yaml:5: praise: the model has no class 'poss'\n    → Did you mean pos"):
        run(tmp_path, FILE.replace("expect: pos", "expect: poss"))


def test_a_recipe_is_refused_with_the_lines_of_its_tests(tmp_path: Path) -> None:
    (tmp_path / "tests.yaml").write_text("tests:\n  - {name: a, type: x}\n")
    values = {"task": "text-classification", "model": {"model_name_or_path": "a/b"}, "data": {"train": "hf://a/b"}}
    with pytest.raises(RecipeError, match=r"evaluation.behaviour: .*tests.yaml:2: tests\[0\].type: there is no type of test x"):
        Recipe.from_dict({**values, "evaluation": {"behaviour": "tests.yaml"}}, base_dir=tmp_path)


def test_directional_tests_need_probabilities(tmp_path: Path) -> None:
    place = tmp_path / "tests.yaml"
    place.write_text(FILE)
    target = Praise()
    target.provides = frozenset({"labels"})
    found = behaviour(bench(target, ROWS, behaviour=str(place)))
    assert "more praise was not run: the target tells no probabilities." in found.notes
