from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tunesmith import storage
from tunesmith.errors import RunError
from tunesmith.recipe import Recipe
from tunesmith.runs import Run, manifest
from tunesmith.verbs.reproduce import compare, preamble, reproduce, table

from .conftest import MakeRun


def shown(first: Run, again: Run) -> str:
    console = Console(width=160, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(table(compare(first, again)))
    return captured.get()


def test_the_same_numbers_from_the_same_things_are_a_reproduction(make_run: MakeRun) -> None:
    found = compare(make_run("a"), make_run("b"))
    assert found.reproduced
    assert found.verdict == "reproduced: identical"


def test_float_error_is_forgiven(make_run: MakeRun) -> None:
    first, again = make_run("a", loss=0.25), make_run("b", loss=0.25 + 1e-7)
    assert compare(first, again).verdict == "reproduced: identical within float error"
    assert not compare(first, again, tolerance=1e-9).reproduced


def test_other_numbers_are_named_with_how_far_they_are(make_run: MakeRun) -> None:
    first, again = make_run("a", 0.90), make_run("b", 0.92)
    found = compare(first, again)
    assert not found.reproduced
    expected = "not reproduced: 1 of 2 numbers differ, most accuracy by +0.02, all within the first run's intervals"
    assert found.verdict == expected
    assert "differs by +0.02, within its interval" in shown(first, again)


def test_a_metric_that_is_undefined_in_one_run_differs(make_run: MakeRun) -> None:
    first, again = make_run("a"), make_run("b", metrics={})
    assert compare(first, again).verdict.endswith("most accuracy (undefined in one of them)")
    both = make_run("c", metrics={"roc_auc": {"value": None}}), make_run("d", metrics={"roc_auc": {"value": None}})
    assert compare(*both).reproduced


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"data": {"train": {"hash": "e" * 32}}}, "data.train"),
        ({"split_hash": "6" * 32}, "split"),
        ({"base_model": {"revision": "beef"}}, "base model"),
    ],
)
def test_other_data_split_or_model_is_no_reproduction(make_run: MakeRun, change: dict[str, Any], name: str) -> None:
    found = compare(make_run("a"), make_run("b", **change))
    assert not found.reproduced
    assert found.verdict == f"not the same experiment: {name} changed"


def test_the_recipe_is_trained_again_beside_the_first_run(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run("a")
    asked: list[Any] = []

    def train(recipe: Recipe, **options: Any) -> Run:
        asked.append((recipe, options))
        return make_run("b")

    again = reproduce(first, on="local", train=train)
    (recipe, options) = asked[0]
    assert again.name == "b"
    assert recipe.fingerprint() == first.manifest["recipe_fingerprint"]
    assert recipe.training.output_dir == str(tmp_path / "runs")
    assert options == {"on": "local", "resume": False}


@pytest.mark.parametrize(("status", "metrics"), [("failed", None), ("done", {})])
def test_a_run_without_an_end_or_a_verdict_cannot_be_compared(
    make_run: MakeRun, status: str, metrics: dict[str, Any] | None
) -> None:
    with pytest.raises(RunError, match=rf"is {status} and has (a|no) verdict: nothing to compare with"):
        reproduce(make_run("a", status=status, metrics=metrics))


def test_what_is_different_is_known_before_training(make_run: MakeRun) -> None:
    first = make_run("a")
    assert preamble(first) == [f"Reproducing {first.path}: everything is as it was"]
    storage.write_json(
        first.file("manifest.json"),
        {**first.manifest, "packages": {**manifest.packages(), "numpy": "1.0", "gone": "2"}, "git": {"commit": "c" * 40}},
    )
    lines = preamble(Run(first.path))
    assert lines[0].endswith("what is different now")
    assert f"  numpy 1.0 then, {manifest.version('numpy')} now" in lines
    assert "  gone 2 then, not installed now" in lines
    assert any(line.startswith("  code cccccccccccc then, ") for line in lines)
