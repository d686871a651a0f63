"""Variants side by side: how they are written, what is refused, and what the comparison says of finished runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.runs import finished_run
from tunesmith.errors import DataError, RecipeError, UserError
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.repeats import over_seeds, paired
from tunesmith.evaluation.statistics import Estimate
from tunesmith.report.comparison import render
from tunesmith.runs import Run
from tunesmith.tasks.metrics import limits
from tunesmith.verbs import compare_recipes as verb
from tunesmith.verbs.compare_recipes import Variant, compare_recipes, parse_variants, table

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run that learned little and one that learned more, of the same test rows."""
    made = {}
    for name, steps in (("short", 1), ("long", 40)):
        run = finished_run(tmp_path_factory.mktemp(name), "text-classification", steps=steps, rows=160)
        evaluate_run(run)
        made[name] = Run.open(run.path)
    return made


def variants(runs: dict[str, Run]) -> list[Variant]:
    return [Variant(name, run.recipe) for name, run in runs.items()]


def test_one_seed_is_compared_by_test_row(runs: dict[str, Run], tmp_path: Path) -> None:
    found = verb._compared(variants(runs), {name: [run] for name, run in runs.items()}, [42], str(tmp_path))
    short, long = found.outcomes

    assert short.differences == {}
    gain = long.differences["accuracy"]
    assert gain.value == pytest.approx(long.metrics["accuracy"].value - short.metrics["accuracy"].value)
    assert gain.low > 0, "40 updates are clearly better than one"
    for name, estimate in long.metrics.items():
        assert estimate.value == pytest.approx(runs["long"].metrics[name] or math.nan, nan_ok=True), name


def test_several_seeds_are_paired_by_seed(runs: dict[str, Run], tmp_path: Path) -> None:
    both = {"short": [runs["short"], runs["short"]], "long": [runs["long"], runs["short"]]}
    found = verb._compared(variants(runs), both, [1, 2], str(tmp_path))

    gain = (runs["long"].metrics["accuracy"] or 0) - (runs["short"].metrics["accuracy"] or 0)
    assert found.outcomes[1].differences["accuracy"] == over_seeds([gain, 0.0], limits=(-1, 1))
    assert found.outcomes[1].metrics["accuracy"].n == 2
    for name, estimate in found.outcomes[1].metrics.items():
        assert not estimate.low < limits(name)[0], name
        assert not estimate.high > limits(name)[1], name


def test_what_is_written_says_it_all(runs: dict[str, Run], tmp_path: Path) -> None:
    found = verb._compared(variants(runs), {name: [run] for name, run in runs.items()}, [42], str(tmp_path))
    verb._write(found)

    stored = json.loads((tmp_path / "comparison.json").read_text())
    page = (tmp_path / "comparison.html").read_text()
    assert [one["name"] for one in stored["outcomes"]] == ["short", "long"]
    assert "long: " in page
    assert "against short" in page
    assert f"{runs['long'].name}/report.html" in page


def test_the_interval_over_seeds_is_students() -> None:
    found = over_seeds([1.0, 2.0, 4.0])
    half = 4.302652729911275 * math.sqrt(7 / 3) / math.sqrt(3)  # t(0.975, 2 degrees of freedom) · s / √n
    assert (found.value, found.low, found.high) == pytest.approx((7 / 3, 7 / 3 - half, 7 / 3 + half))
    cut = over_seeds([0.9, 0.96], limits=(0, 1))
    assert cut.low == pytest.approx(0.93 - 12.706204736432095 * math.sqrt(2 * 0.03**2) / math.sqrt(2))
    assert (cut.value, cut.high) == (pytest.approx(0.93), 1.0)
    apart = paired([1.0, 0.0], [0.0, 0.0], limits=(0, 1))
    assert (apart.value, apart.low, apart.high) == (0.5, -1.0, 1.0), "a difference of shares lies between -1 and 1"
    assert paired([1.0, 2.0], [0.5, 1.5]).value == 0.5
    assert math.isnan(over_seeds([1.0]).low)
    assert over_seeds([]).n == 0


def recipe(folder: Path, **values: Any) -> str:
    (folder / "train.csv").write_text("text,label\na,x\nb,y\n")
    place = folder / f"recipe-{len(list(folder.iterdir()))}.yaml"
    base = {"task": "text-classification", "model": {"model_name_or_path": "owner/base"}, "data": {"train": "train.csv"}}
    place.write_text(json.dumps({**base, **values}))
    return str(place)


def test_variants_change_the_recipe_they_are_given_with(tmp_path: Path) -> None:
    first, second = parse_variants(
        [recipe(tmp_path)], ["fast: training.learning_rate=1e-3 training.lr_scheduler_kwargs='{num_cycles: 2}'"]
    )
    assert (first.name, second.name) == ("as written", "fast")
    assert second.recipe.training.learning_rate == 1e-3
    assert second.recipe.training.lr_scheduler_kwargs == {"num_cycles": 2}
    assert first.recipe.training.learning_rate == 5e-5


def test_recipes_are_called_by_their_names_unless_these_are_the_same(tmp_path: Path) -> None:
    one, other = recipe(tmp_path, name="one"), recipe(tmp_path, name="other")
    assert [variant.name for variant in parse_variants([one, other], [])] == ["one", "other"]
    assert [variant.name for variant in parse_variants([one, one], [])] == [one, one]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("weighted", "NAME: KEY=VALUE"),
        ("weighted:", "NAME: KEY=VALUE"),
        (": training.seed=1", "NAME: KEY=VALUE"),
        ("a: data.train='x.csv", "No closing quotation"),
    ],
)
def test_a_variant_that_is_not_written_so_is_refused(tmp_path: Path, written: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_variants([recipe(tmp_path)], [written])


def test_a_mistyped_key_of_a_variant_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="learning_rate"):
        parse_variants([recipe(tmp_path)], ["fast: training.lerning_rate=1e-3"])


def test_variants_of_several_recipes_and_lonely_or_equal_names_are_refused(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    with pytest.raises(UserError, match="several are given"):
        parse_variants([one, one], ["a: training.seed=1"])
    with pytest.raises(UserError, match="nothing to compare"):
        compare_recipes(parse_variants([one], []))
    with pytest.raises(UserError, match="'lr 1' and 'lr-1' would have their runs in one folder, 'lr-1'"):
        compare_recipes(parse_variants([one], ["lr 1: training.seed=1", "lr-1: training.seed=2"]))
    with pytest.raises(UserError, match="two variants are called"):
        compare_recipes(parse_variants([one], ["a: training.seed=1", "a: training.seed=2"]))


def test_other_test_rows_are_refused_before_anything_is_trained(runs: dict[str, Run]) -> None:
    first = runs["short"].recipe
    other = first.override("data.split.seed=7")
    with pytest.raises(DataError, match="other test rows"):
        compare_recipes([Variant("a", first), Variant("b", other)])


def test_what_a_variant_cannot_train_is_refused_with_its_name_before_any_is_trained(runs: dict[str, Run]) -> None:
    first = runs["short"].recipe
    other = first.override("training.unfreeze.every_epochs=2")
    with pytest.raises(UserError, match=r"^slowly: training.unfreeze: the schedule is longer than the training"):
        compare_recipes([Variant("a", first), Variant("slowly", other)])


def test_new_against_old_is_drawn_where_something_was_kept(runs: dict[str, Run], tmp_path: Path) -> None:
    found = verb._compared(variants(runs), {name: [run] for name, run in runs.items()}, [42], str(tmp_path))
    assert "old against new" not in render(found)
    name = f"{found.headline}/clean"
    both = [replace(one, metrics={**one.metrics, name: Estimate(0.4, 0.3, 0.5, 60, "wilson")}) for one in found.outcomes]
    page = render(replace(found, outcomes=both))
    assert "old against new" in page
    drawn = page.partition("old against new")[2]
    assert drawn.count('class="dot') == 2
    assert ">long</text>" in drawn
    only_first = render(replace(found, outcomes=[both[0], *found.outcomes[1:]]))
    assert '<td class="n">–</td>' in only_first, "what the second variant was not judged by is left empty"


def test_one_recipe_over_seeds_is_compared_with_nothing(runs: dict[str, Run], tmp_path: Path) -> None:
    one = Variant("few", runs["long"].recipe)
    found = verb._compared([one], {"few": [runs["long"], runs["short"]]}, [1, 2], str(tmp_path))
    verb._write(found)

    page = (tmp_path / "comparison.html").read_text()
    assert "<h1>few: F1 (macro) " in page
    assert "2 trainings" in page
    assert "clearly better" not in page
    assert "the reference" not in page
    shown = table(found)
    assert [str(column.header) for column in shown.columns] == ["VARIANT", "F1 (MACRO)", "95 % INTERVAL", "TRAINING"]
