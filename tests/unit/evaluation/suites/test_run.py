"""Suites are found by name, path and entry point; one that cannot run says why and costs no other."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from support.bench import Ruled, bench
from tunesmith.errors import RecipeError, ServiceError, UserError
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.suites.base import Bench, suite
from tunesmith.evaluation.suites.run import check_suites, failures, load_suite, run_suites
from tunesmith.recipe import Recipe
from tunesmith.recipe.suite_names import SUITES, asked
from tunesmith.runs import Run

OWN = """
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.statistics import Estimate
from tunesmith.evaluation.suites.base import suite

@suite("labels")
def shout(bench):
    most = bench.settings.suite_args.get("shout", {}).get("most", 3)
    texts = [example["text"].upper() for example in bench.split.examples()][:most]
    answers = [reply.answer for reply in bench.target.replies([{"text": text} for text in texts])]
    return SuiteResult("Shouting", n=len(answers), measures={"answered": Estimate(float(len(answers)), 0, 0, most, "none")})

def plain(bench):
    return 3
"""
ROWS = [{"text": "good" if k % 2 else "bad", "label": "pos" if k % 2 else "neg"} for k in range(10)]


@pytest.fixture
def own_suite(tmp_path: Path) -> str:
    """A folder with a module of suites."""
    (tmp_path / "own_suites.py").write_text(OWN)
    sys.modules.pop("own_suites", None)
    return str(tmp_path)


def ready(folder: str, **settings: object) -> Bench:
    made = bench(Ruled(lambda example: "pos", ["neg", "pos"]), ROWS, **settings)
    return dataclasses.replace(made, folders=(folder,))


def test_every_suite_is_there_and_says_what_it_needs() -> None:
    for name in SUITES:
        assert load_suite(name).needs


def test_a_suite_beside_the_recipe_is_run_with_its_arguments(own_suite: str) -> None:
    found = run_suites(ready(own_suite, suite_args={"shout": {"most": 4}}), ["own_suites.shout"])
    assert found["shout"].title == "Shouting"
    assert found["shout"].n == 4
    assert found["shout"].seconds >= 0


def test_an_entry_point_brings_a_suite(own_suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.recipe.suite_names.brought", lambda group: {"loud": "own_suites:shout"})
    assert run_suites(ready(own_suite), ["loud"])["loud"].title == "Shouting"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("robustnes", "there is no suite robustnes: did you mean robustness"),
        ("own_suites.shut", "own_suites has no function shut\n    → Did you mean own_suites.shout"),
        ("nowhere.at_all", "the module nowhere cannot be imported"),
    ],
)
def test_a_suite_that_there_is_not_is_refused(own_suite: str, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        run_suites(ready(own_suite), [name])


def test_what_the_target_does_not_tell_is_a_reason_to_skip(caplog: pytest.LogCaptureFixture, own_suite: str) -> None:
    @suite("hidden")
    def inner(bench: Bench) -> SuiteResult:
        raise AssertionError

    @suite()
    def broken(bench: Bench) -> SuiteResult:
        raise ZeroDivisionError("oh")

    module = type(sys)("made_suites")
    module.inner, module.broken = inner, broken  # type: ignore[attr-defined]
    sys.modules["made_suites"] = module
    found = run_suites(ready(own_suite), ["made_suites.inner", "made_suites.broken", "own_suites.plain"])
    assert found["inner"].skipped == "ruled does not tell hidden"
    assert found["broken"].skipped == "it failed: ZeroDivisionError: oh"
    assert found["plain"].skipped == "it gave int, not a SuiteResult"
    assert "the suite made_suites.broken failed" in caplog.text


def test_a_suite_that_the_user_can_mend_costs_no_verdict_and_is_told(own_suite: str) -> None:
    @suite()
    def lacking(bench: Bench) -> SuiteResult:
        raise UserError("there is no column weather")

    @suite()
    def cut_off(bench: Bench) -> SuiteResult:
        raise ServiceError("gone")

    module = type(sys)("made_suites")
    module.lacking, module.cut_off = lacking, cut_off  # type: ignore[attr-defined]
    sys.modules["made_suites"] = module
    found = run_suites(ready(own_suite), ["made_suites.lacking", "own_suites.shout"])
    assert found["lacking"].skipped == "it failed: there is no column weather"
    assert failures(found) == ["The suite lacking failed, and says nothing: there is no column weather"]
    with pytest.raises(ServiceError, match="gone"):
        run_suites(ready(own_suite), ["made_suites.cut_off"])


def test_a_verdict_warns_of_a_suite_that_failed(text_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "failing_suites.py").write_text(
        "from tunesmith.errors import UserError\ndef refuse(bench):\n    raise UserError('no weather')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = text_run.recipe.override("evaluation.suites=[failing_suites.refuse]", check_paths=False).evaluation
    found = evaluate_run(text_run, split="test", settings=settings)
    assert found.warnings[0] == "The suite refuse failed, and says nothing: no weather"


def recipe(**evaluation: object) -> Recipe:
    values = {"task": "text-classification", "model": {"model_name_or_path": "a/b"}, "data": {"train": "hf://a/b"}}
    return Recipe.from_dict({**values, "evaluation": evaluation})


def test_suites_are_asked_for_by_name_or_by_their_subject() -> None:
    assert asked(recipe().evaluation) == []
    assert asked(recipe(suites=["a.b", "robustness"], fairness={"groups": ["sex"]}).evaluation) == [
        "robustness",
        "fairness",
        "a.b",
    ]


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"suites": ["fairnes"]}, "there is no suite fairnes\n.*did you mean fairness"),
        ({"suites": ["robustness", "robustness"]}, "named twice"),
        ({"suites": ["fairness"]}, "nobody is named to compare"),
        ({"suites": ["behaviour"]}, "behaviour has no tests"),
        ({"suites": ["out_of_distribution"]}, "out_of_distribution has no data"),
        ({"robustness": {"kinds": ["typos"]}}, "the suite robustness is not run"),
        ({"suites": ["robustness"], "robustness": {"kinds": ["fog"]}}, "fog does not fit the examples of text-classification"),
        ({"suites": ["robustness"], "robustness": {"kinds": ["typo"]}}, "did you mean typos"),
        ({"suites": ["robustness"], "robustness": {"severities": [6]}}, "severities"),
        ({"fairness": {"groups": ["sex", "sex"]}}, "named twice"),
        ({"fairness": {"min_group": 5}}, "the suite fairness is not run"),
        ({"weak_slices": {"pairs": False}}, "the suite weak_slices is not run"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(evaluation: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe(**evaluation)


def test_suites_stand_in_the_runs_verdict(text_run: Run) -> None:
    settings = text_run.recipe.override(
        "evaluation.suites=[robustness, calibration, weak_slices]", "evaluation.fairness.groups=scanner", check_paths=False
    ).evaluation
    found = evaluate_run(text_run, split="test", settings=settings)
    assert list(found.suites) == ["parity", "robustness", "fairness", "weak_slices", "calibration"]
    assert not any(one.skipped for one in found.suites.values())
    assert found.suites["robustness"].measures["clean/f1_macro"].value == pytest.approx(found.metrics["f1_macro"].value)
    assert type(found).from_json(found.to_json()).to_json() == found.to_json()


def test_columns_that_the_run_has_not_are_refused_before_it_is_asked(text_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = text_run.recipe.override("evaluation.fairness.groups=scaner", check_paths=False).evaluation
    monkeypatch.setattr("tunesmith.evaluation.judges.Here.records", lambda *_: pytest.fail("asked"))
    with pytest.raises(UserError, match="Did you mean 'scanner'"):
        evaluate_run(text_run, split="test", settings=settings)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [(["damages.blot"], "module damages cannot be imported"), (["own_suites.shut"], "Did you mean own_suites.shout")],
)
def test_perturbations_that_there_are_not_are_refused_before_anything_is_asked(
    own_suite: str, kinds: list[str], words: str
) -> None:
    made = ready(own_suite, suites=["robustness"], robustness={"kinds": kinds})
    with pytest.raises(UserError, match=words):
        check_suites(made.split, made.target.task, made.target.state, made.settings, (own_suite,))


def test_the_documented_suite_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[4] / "docs" / "testing-models.md").read_text(encoding="utf-8")
    (tmp_path / "length.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    rows = [{"text": f"a film that is {'good' if k % 2 else 'bad'}", "label": "pos" if k % 2 else "neg"} for k in range(10)]
    target = Ruled(lambda example: "pos" if "good" in example["text"] else "neg", ["neg", "pos"])
    made = dataclasses.replace(bench(target, rows, suite_args={"halves": {"most": 8}}), folders=(str(tmp_path),))
    found = run_suites(made, ["length.halves"])["halves"]
    assert found.n == 8
    assert found.measures["kept"].value == 0.5
    assert len(found.examples) == 4
