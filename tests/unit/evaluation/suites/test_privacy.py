"""Attacks find the rows of a model that memorises, and are at chance where nothing can be known; shadow models are kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.bench import Rule, Ruled, bench
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData
from tunesmith.evaluation import shadow_scores
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.shadow_scores import Shadow, half
from tunesmith.evaluation.suites.privacy import Sides, advantage, lira, privacy
from tunesmith.evaluation.suites.run import run_suites
from tunesmith.evaluation.suites.separation import auroc
from tunesmith.report import suites
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.training import shadows
from tunesmith.training.shadows import train_shadows

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def data(text_run: Run) -> PreparedData:
    recipe = text_run.recipe
    return prepare(recipe, load_task(recipe.task), output_dir=recipe.training.output_dir)


def attacked(run: Run | None, rule: Rule, **settings: Any) -> SuiteResult:
    """What the suite finds of a model that answers by a rule."""
    rows = [{"text": "one two", "label": "low"}, {"text": "two", "label": "high"}]
    made = bench(Ruled(rule, ["high", "low"]), rows, privacy=settings)
    return privacy(dataclasses.replace(made, run=run))


def test_a_model_that_knows_its_rows_by_heart_is_found_out(text_run: Run, data: PreparedData) -> None:
    labels = {one["text"]: one["label"] for one in data.splits["train"].examples()}
    others = {one["text"]: one["label"] for one in data.splits["test"].examples()}
    found = attacked(text_run, lambda one: labels.get(one["text"]) or ("low" if others.get(one["text"]) == "high" else "high"))
    assert found.measures["loss/attack_auc"].value == 1
    assert found.measures["loss/attack_advantage"].value == 1
    assert found.measures["loss/attack_advantage"].low > 0.5
    assert found.measures["loss/attack_tpr"].value == 1
    assert found.n == len(data.splits["train"]) + len(data.splits["test"])


def test_one_that_cannot_know_them_is_at_chance(text_run: Run) -> None:
    found = attacked(text_run, lambda one: "low" if len(one["text"]) % 2 else "high", max_examples=30)
    area, gain = found.measures["loss/attack_auc"], found.measures["loss/attack_advantage"]
    assert area.low < 0.5 < area.high
    assert gain.low < 0 < gain.high
    assert "chance is within the interval" in found.summary
    assert found.n == 60


def test_without_the_training_data_it_says_why_it_is_skipped(text_run: Run, tmp_path: Path) -> None:
    assert "--like RUN" in attacked(None, lambda one: "low").skipped
    gone = Run(text_run.path)
    gone.manifest["data"] = {**gone.manifest["data"], "train": {**gone.manifest["data"]["train"], "hash": "0" * 32}}
    assert "has changed since" in attacked(gone, lambda one: "low").skipped


def made_up(n: int, count: int, memory: float, seed: int) -> tuple[list[Shadow], Sides]:
    """Losses of ``count`` shadow models and of a model on rows of very different difficulty; members lose ``memory`` less."""
    rng = np.random.default_rng(seed)
    hard, hard_other = rng.normal(0, 2, n), rng.normal(0, 2, n)

    def loss(logit: np.ndarray) -> np.ndarray:
        return np.log1p(np.exp(-logit))

    made = []
    for k in range(count):
        member = half(n, k, seed)
        train, other = (values + rng.normal(0, 0.5, n) for values in (hard, hard_other))
        made.append(Shadow(member, loss(train + memory * member), loss(other)))
    losses = loss(hard + memory + rng.normal(0, 0.5, n)), loss(hard_other + rng.normal(0, 0.5, n))
    nothing: Any = None
    every = np.arange(n)
    return made, Sides(nothing, nothing, every, every, *losses, np.ones(n, bool), np.ones(n, bool))


@pytest.mark.parametrize("count", [2, 4, 64])
def test_shadow_models_find_what_the_loss_alone_hides(count: int) -> None:
    found, sides = made_up(400, count, 1.0, seed=0)
    by_loss = auroc(-sides.member_loss, -sides.other_loss, 0.95)
    by_shadows = auroc(*lira(found, sides, 0), 0.95)
    assert by_loss.value < 0.7
    assert by_shadows.low > by_loss.high
    assert by_shadows.value > 0.8


@pytest.mark.parametrize("count", [2, 8])
def test_without_memory_the_attack_is_at_chance_as_often_as_its_interval_says(count: int) -> None:
    inside = 0
    for seed in range(200):
        area = auroc(*lira(*made_up(150, count, 0.0, seed), seed), 0.95)
        inside += area.low <= 0.5 <= area.high
    assert inside >= 184, "95 % of 200 are 190; fewer than 184 have a chance of 4 %"


def test_every_row_is_in_half_of_the_shadow_models() -> None:
    masks = np.stack([half(11, k, seed=3) for k in range(8)])
    assert (masks.sum(axis=0) == 4).all()
    assert {int(mask.sum()) for mask in masks} == {5, 6}
    assert np.array_equal(masks[5], half(11, 5, seed=3)), "whatever their number"


def test_the_advantage_is_that_at_the_mean_training_loss() -> None:
    found = advantage(np.array([0.0, 0.0, 3.0]), np.array([0.5, 2.0, 3.0, 4.0]), 0.95)
    assert found.value == pytest.approx(2 / 3 - 1 / 4)
    assert found.low < found.value < found.high


def test_shadow_models_are_trained_once_and_their_attack_stands_in_the_report(
    text_run: Run, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = text_run.recipe.override(
        "evaluation.suites=[privacy]", "evaluation.privacy.shadow_models=4", check_paths=False
    ).evaluation
    task = load_task(text_run.recipe.task)
    said: list[str] = []
    assert train_shadows(text_run, task, data, 2, settings.seed, phase=said.append) == 2
    assert said[0] == "Training shadow model 1 of 2"
    assert train_shadows(text_run, task, data, 4, settings.seed) == 2
    kept = list(shadow_scores.stored(text_run, 4, settings.seed, data))
    for one, other in ((kept[0], kept[1]), (kept[2], kept[3])):
        assert (one.member ^ other.member).all()
        assert not np.allclose(one.train, other.train)
    monkeypatch.setattr(shadows, "fit", lambda *_: pytest.fail("trained again"))
    assert train_shadows(text_run, task, data, 4, settings.seed) == 0

    found = evaluate_run(text_run, split="test", settings=settings)
    measures = found.suites["privacy"].measures
    assert {"lira/attack_auc", "lira/attack_tpr", "loss/attack_auc", "loss/attack_tpr", "loss/attack_advantage"} == {*measures}
    (section,) = suites.sections(found)
    assert "LiRA, 4 shadow models" in section.html
    assert "<svg" in section.html
    assert type(found).from_json(found.to_json()).to_json() == found.to_json()


def test_a_shadow_model_is_what_the_recipe_makes_of_half_the_rows(text_run: Run, data: PreparedData) -> None:
    """With all rows and its own seed it is the model that training makes, best checkpoint and all."""
    from tunesmith.data.old import OldPlaces
    from tunesmith.training.fit import FitContext, fit
    from tunesmith.training.parts import open_parts

    recipe = text_run.recipe.override("training.num_train_epochs=2", "training.load_best_model_at_end=false", check_paths=False)
    task, rows = load_task(recipe.task), np.arange(len(data.splits["train"]))
    made = shadows.trained_on(recipe, task, data, OldPlaces(), rows)
    expected = fit(*open_parts(recipe, task, data), FitContext()).model.state_dict()
    for name, value in made.model.state_dict().items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=name)


def test_where_nothing_can_be_trained_it_says_how_many_there_are(text_run: Run) -> None:
    found = attacked(text_run, lambda one: "low", shadow_models=200)
    assert any("200 shadow models are asked for" in note for note in found.notes)


def test_a_target_that_gives_no_scores_is_not_attacked(text_run: Run) -> None:
    target = Ruled(lambda one: "low", ["high", "low"])
    target.provides = frozenset({"labels"})
    rows = [{"text": "one two", "label": "low"}, {"text": "two", "label": "high"}]
    assert run_suites(bench(target, rows), ["privacy"])["privacy"].skipped == "ruled does not tell scores"
