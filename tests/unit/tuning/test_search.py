"""A search ends when it should, stops what lags behind, goes on where it was, and gives up with the first reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.searches import Stage
from tunesmith.errors import TrainingFailed, UserError
from tunesmith.recipe.searched import own_values, trial_recipe
from tunesmith.training.validation import missing_metric
from tunesmith.tuning.checkpoints import WHOLE, place_of
from tunesmith.tuning.search import Search, Surroundings
from tunesmith.tuning.trials import LEDGER, Trial, folder_of, lineage


def near_a_thousandth(values: Mapping[str, Any], step: int) -> float:
    return -abs(math.log10(values["training.learning_rate"]) + 3) - 1 / step


def test_the_first_trial_has_the_recipes_own_values_and_is_never_stopped(stage: Stage) -> None:
    search = stage.search(stage.recipe(num_samples=9, grace_period=1))
    stage.play(search, near_a_thousandth)
    assert [trial.number for trial in search.trials] == list(range(9))
    assert search.trials[0].origin == "recipe"
    assert search.trials[0].values == {"training.learning_rate": 5e-5}
    assert search.trials[0].status == "done"


def test_asha_spends_less_than_half_and_keeps_the_best(stage: Stage) -> None:
    full = stage.search(stage.recipe(num_samples=27, scheduler="none", algorithm="random"))
    stage.play(full, near_a_thousandth)
    halved = Stage(stage.folder / "halved")
    search = halved.search(stage.recipe(num_samples=27, algorithm="random"))
    halved.play(search, near_a_thousandth)
    best = [max(one.candidates(), key=lambda trial: trial.score or -9).number for one in (full, search)]
    assert best[0] == best[1]
    assert sum(trial.done_steps for trial in search.trials) < 0.5 * sum(trial.done_steps for trial in full.trials)


def test_whenever_it_was_killed_a_search_ends_as_if_nothing_had_been(stage: Stage) -> None:
    recipe = stage.recipe(num_samples=12)
    whole = stage.search(recipe)
    stage.play(whole, near_a_thousandth)
    other = Stage(stage.folder / "killed")
    first = other.search(recipe)
    other.play(first, near_a_thousandth, trials=5)
    begun = first.next()
    assert begun is not None
    first.report(begun.number, {"report": {"step": 1, "score": -9.0, "seconds": 1.0}, "steps": 9})
    with (other.folder / LEDGER).open("a") as file:
        file.write('{"number": 99, "val')  # the line that it was writing
    second = other.search(recipe)
    going = second.next()
    assert going is not None
    assert (going.number, going.values) == (begun.number, begun.values), "what had begun is gone on with"
    assert [trial.number for trial in second.trials if trial.status == "done" or trial.status == "stopped"] == [0, 1, 2, 3, 4]
    other.train(second, going, near_a_thousandth)
    other.play(second, near_a_thousandth)
    assert [trial.values for trial in second.trials] == [trial.values for trial in whole.trials]
    assert [trial.status for trial in second.trials] == [trial.status for trial in whole.trials]


def test_an_undefined_evaluation_is_the_same_after_the_search_was_killed(stage: Stage) -> None:
    def undefined_at_first(values: Mapping[str, Any], step: int) -> float:
        return -math.inf if step < 3 or values["training.learning_rate"] == 5e-5 else near_a_thousandth(values, step)

    recipe = stage.recipe(num_samples=12, metric="precision/spam", mode="max")
    whole = stage.search(recipe)
    stage.play(whole, undefined_at_first)
    other = Stage(stage.folder / "killed")
    other.play(other.search(recipe), undefined_at_first, trials=4)
    second = other.search(recipe)
    other.play(second, undefined_at_first)
    assert second.trials[0].score == -math.inf
    assert [trial.values for trial in second.trials] == [trial.values for trial in whole.trials]
    assert [trial.reports for trial in second.trials] == [trial.reports for trial in whole.trials]


def test_it_ends_with_its_time_and_the_time_of_earlier_sessions_counts(stage: Stage) -> None:
    recipe = stage.recipe(num_samples=50, scheduler="none", time_budget_s=30)
    first = stage.search(recipe)
    stage.play(first, near_a_thousandth, trials=2)
    stage.seconds += 1000  # nobody was there
    second = stage.search(recipe)
    assert not second.must_end()
    assert second.elapsed == pytest.approx(18)
    stage.play(second, near_a_thousandth)
    assert second.ended_by == "its 30 seconds were over"
    assert len(second.trials) == 4


def test_what_was_judged_before_a_kill_at_the_end_of_the_budget_can_win(stage: Stage) -> None:
    recipe = stage.recipe(num_samples=50, scheduler="none", cost_budget_s=3)
    first = stage.search(recipe)
    assert [trial.number for trial in (first.next(), first.next(), first.next()) if trial is not None] == [0, 1, 2]
    for number, score, seconds in ((0, 0.5, 1.0), (1, 0.7, 2.0)):
        first.report(number, {"report": {"step": 1, "score": score, "seconds": seconds}, "steps": 9})
    second = stage.search(recipe)  # the first was killed before it could note that they ended
    assert second.next() is None
    assert second.is_over()
    assert [(trial.status, trial.seconds) for trial in second.trials] == [("stopped", 1.0), ("stopped", 2.0), ("stopped", 0.0)]
    assert [trial.score for trial in second.candidates()] == [0.5, 0.7]
    assert [trial.status for trial in stage.search(recipe).trials] == ["stopped"] * 3, "it is noted"


def test_what_was_judged_before_its_budget_was_spent_can_win_though_ray_says_nothing_of_its_end(stage: Stage) -> None:
    search = stage.search(stage.recipe(scheduler="none", time_budget_s=30))
    for number in (0, 1):
        assert search.next() is not None
        search.started(number)
    search.report(0, {"report": {"step": 1, "score": 0.5, "seconds": 9.0}, "steps": 9})
    search.close()
    assert [trial.status for trial in search.trials] == ["running", "running"], "it is not over"
    stage.seconds = 31
    assert search.must_end()
    search.close()
    assert [(trial.status, trial.seconds) for trial in search.trials] == [("stopped", 9.0), ("stopped", 0.0)]
    assert [trial.number for trial in search.candidates()] == [0]


def test_it_ends_with_its_core_seconds(stage: Stage) -> None:
    search = stage.search(stage.recipe(num_samples=50, scheduler="none", cost_budget_s=25))
    stage.play(search, near_a_thousandth)
    assert len(search.trials) == 3
    assert "core-seconds" in search.ended_by


def test_when_nothing_succeeds_it_gives_up_with_the_first_reason(stage: Stage) -> None:
    search = stage.search(stage.recipe(give_up_after=3))
    for _ in range(3):
        trial = search.next()
        assert trial is not None
        search.end(trial.number, {"status": "failed", "error": f"reason {trial.number}", "seconds": 1.0})
    assert isinstance(search.failure, TrainingFailed)
    assert str(search.failure) == "3 trials failed and none succeeded, trial 0 for this reason:\n    reason 0"
    assert search.next() is None
    assert search.is_over()


def test_a_search_that_came_to_nothing_is_tried_again_by_the_same_command(stage: Stage) -> None:
    recipe = stage.recipe(num_samples=3, give_up_after=2, scheduler="none")
    first = stage.search(recipe)
    begun = [first.next(), first.next(), first.next()]
    first.report(0, {"report": {"step": 1, "score": 9.0, "seconds": 1.0}, "steps": 9})
    for number in (0, 1):
        first.end(number, {"status": "failed", "error": "the disk is full", "seconds": 2.0})
    first.end(2, {"status": "stopped", "error": ""})
    assert isinstance(first.failure, TrainingFailed)
    second = stage.search(recipe)
    assert not second.is_over()
    for number in (0, 1):
        trial = second.next()
        assert trial is not None
        assert (trial.number, trial.values) == (number, begun[number].values if begun[number] else None)
        assert (trial.score, trial.error) == (None, "")
        assert second.failure is None
        second.end(number, {"status": "failed", "error": "the disk is full still", "seconds": 1.0})
    assert "the disk is full still" in str(second.failure), "so often again, and no more"
    assert second.next() is None
    third = stage.search(recipe)
    stage.play(third, near_a_thousandth)
    assert [trial.status for trial in third.trials] == ["done"] * 3
    assert [trial.error for trial in stage.search(recipe).trials] == [""] * 3
    assert third.trials[0].seconds == 3 + 9, "what the failures took counts"
    assert stage.search(recipe).is_over()


def test_where_the_budget_is_spent_on_failures_a_new_search_is_offered(stage: Stage) -> None:
    recipe = stage.recipe(num_samples=3, cost_budget_s=5)
    first = stage.search(recipe)
    trial = first.next()
    assert trial is not None
    first.end(0, {"status": "failed", "error": "the disk is full", "seconds": 9.0})
    second = stage.search(recipe)
    assert second.next() is None
    assert second.is_over()
    assert str(second.why_failed()).endswith(
        "the disk is full\n    (its 5 core-seconds were spent: --new begins another search)"
    )


def test_what_the_user_can_mend_is_told_as_that_and_once_where_it_is_always_the_same(stage: Stage) -> None:
    search = stage.search(stage.recipe(give_up_after=2))
    for _ in range(2):
        trial = search.next()
        assert trial is not None
        search.end(trial.number, {"status": "failed", "error": "no such thing\n    → Write another", "mistake": True})
    assert isinstance(search.failure, UserError)
    assert (
        str(search.failure)
        == "2 trials failed and none succeeded, all for the same reason:\n    no such thing\n    → Write another"
    )


def test_a_reason_is_the_same_though_each_trial_has_its_own_traceback(stage: Stage) -> None:
    search = stage.search(stage.recipe(give_up_after=2))
    for _ in range(2):
        trial = search.next()
        assert trial is not None
        search.end(trial.number, {"status": "failed", "error": f"it broke\n    Its traceback is in {trial.number}"})
    assert str(search.failure).startswith("2 trials failed and none succeeded, all for the same reason:\n    it broke\n")


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"metric": "acuracy"}, "search.metric"),
        ({"objectives": ["acuracy", "size_mb"], "scheduler": "none"}, "search.objectives"),
        ({}, "training.metric_for_best_model"),
    ],
)
def test_a_metric_that_trials_do_not_have_is_told_by_the_key_that_says_it(
    stage: Stage, section: dict[str, Any], key: str
) -> None:
    search = stage.search(stage.recipe(give_up_after=1, **section))
    trial = search.next()
    assert trial is not None
    said = missing_metric("training.metric_for_best_model", "acuracy", ["accuracy"])
    search.end(trial.number, {"status": "failed", "error": said, "mistake": True})
    assert str(search.failure).startswith(f"1 trial failed and none succeeded:\n    {key}: the task has no metric 'acuracy'\n")


def test_an_objective_that_no_trial_reports_is_named_with_those_that_exist(stage: Stage) -> None:
    search = stage.search(stage.recipe(objectives=["accuracy", "recal"], scheduler="none", give_up_after=1))
    trial = search.next()
    assert trial is not None
    report = {"step": 9, "score": 0.5, "seconds": 1.0, "metrics": {"accuracy": 0.5, "recall/yes": 1.0}}
    assert search.report(trial.number, {"report": report, "steps": 9})
    search.end(trial.number, {"status": "done", "objectives": {}})
    assert search.trials[0].status == "failed"
    assert "no trial reports 'recal'\n    → Write one of accuracy, latency_ms, size_mb, train_seconds" in search.trials[0].error
    assert isinstance(search.failure, UserError)


def test_failures_after_a_success_end_nothing(stage: Stage) -> None:
    search = stage.search(stage.recipe(give_up_after=1, num_samples=4))
    stage.play(search, near_a_thousandth, trials=1)
    for _ in range(3):
        trial = search.next()
        assert trial is not None
        search.end(trial.number, {"status": "failed", "error": "bad luck"})
    assert search.failure is None
    assert [trial.number for trial in search.candidates()] == [0]


def test_values_that_contradict_the_recipe_or_its_data_fail_alone(stage: Stage) -> None:
    def prepare(recipe: Any) -> tuple[str, dict[str, Any]]:
        if recipe.training.adaptation == "lora":
            raise UserError("no such data")
        return "prepared", {}

    recipe = stage.recipe({"training.adaptation": {"choice": ["full", "lora", "bitfit"]}}, algorithm="grid", scheduler="none")
    search = Search(recipe, Surroundings(str(stage.folder), prepare))
    stage.play(search, lambda values, step: 1.0)
    assert [(trial.values["training.adaptation"], trial.status) for trial in search.trials] == [
        ("full", "done"),
        ("lora", "failed"),
        ("bitfit", "done"),
    ]
    assert search.trials[1].error == "no such data"


def test_the_winning_values_are_trained_again_with_other_seeds_and_cannot_win_by_that(stage: Stage) -> None:
    search = stage.search(stage.recipe(num_samples=4, seeds=3))
    stage.play(search, near_a_thousandth, at_once=2)
    again = [trial for trial in search.trials if trial.origin == "seed"]
    best = max(search.candidates(), key=lambda trial: trial.score or -9)
    assert [trial.values["training.seed"] for trial in again] == [43, 44]
    assert all(trial.values["training.learning_rate"] == best.values["training.learning_rate"] for trial in again)
    assert not {trial.number for trial in again} & {trial.number for trial in search.candidates()}


def test_a_training_with_another_seed_that_the_budget_cut_short_tells_nothing_of_luck(stage: Stage) -> None:
    search = stage.search(stage.recipe(num_samples=1, seeds=3, time_budget_s=20))
    stage.play(search, near_a_thousandth, trials=2)
    cut = search.next()
    assert cut is not None
    search.report(cut.number, {"report": {"step": 1, "score": -9.0, "seconds": 1.0}, "steps": 9})
    stage.seconds = 21
    assert search.must_end()
    search.close()
    assert [trial.status for trial in search.trials] == ["done", "done", "stopped"]
    assert search.repeated() == [search.trials[1].score]


def test_losers_lose_their_checkpoints_and_the_best_keeps_its_own(stage: Stage) -> None:
    search = stage.search(stage.recipe(num_samples=5, scheduler="none"))
    while not search.is_over():
        trial = search.next()
        assert trial is not None
        place = Path(place_of(folder_of(search.run, trial.number), 9))
        place.mkdir(parents=True)
        (place / WHOLE).touch()
        stage.train(search, trial, near_a_thousandth)
    best = max(search.candidates(), key=lambda trial: trial.score or -9)
    left = [trial.number for trial in search.trials if Path(place_of(folder_of(search.run, trial.number), 9)).exists()]
    assert left == [best.number]


def test_checkpoints_beyond_their_budget_end_the_search_before_the_disk_is_full(stage: Stage) -> None:
    search = stage.search(stage.recipe(max_checkpoint_gb=1.0))
    trial = search.next()
    assert trial is not None
    search.started(trial.number)
    search.report(trial.number, {"report": {"step": 1, "score": 1.0, "seconds": 1.0}, "steps": 9, "bytes": int(6e8)})
    assert search.failure is not None
    assert "1.2 GB, more than search.max_checkpoint_gb: 1" in str(search.failure)


def test_of_several_objectives_the_whole_front_is_kept_and_counts(stage: Stage) -> None:
    settings = {"objectives": ["accuracy", "size_mb"], "scheduler": "none", "start_with_recipe": False}
    search = stage.search(stage.recipe(max_checkpoint_gb=3.5, **settings))
    for number in range(3):
        assert search.failure is None
        assert search.next() is not None
        search.started(number)
        report = {"step": 9, "score": 0.5 + number / 10, "seconds": 1.0}
        search.report(number, {"report": report, "steps": 9, "bytes": int(1e9)})
        search.end(number, {"status": "done", "objectives": {"size_mb": float(number)}})
    assert "of 1 trial at once and of the front (2) take 4 GB, more than search.max_checkpoint_gb: 3.5" in str(search.failure)


def test_an_interruption_notes_nothing_of_what_was_under_way(stage: Stage) -> None:
    search = stage.search(stage.recipe())
    trial = search.next()
    assert trial is not None
    search.interrupt()
    search.end(trial.number, {"status": "stopped"})
    again = stage.search(stage.recipe()).next()
    assert again is not None
    assert again.number == trial.number


def test_a_population_takes_over_the_better_ones_and_its_lineage_goes_back_to_the_base(stage: Stage) -> None:
    recipe = stage.recipe(scheduler="pbt", num_samples=8, generations=3)
    search = stage.search(recipe)
    stage.play(search, near_a_thousandth, at_once=2, evaluations=2)
    assert len(search.trials) == 24
    last = [trial for trial in search.trials if trial.generation == 2]
    for trial in last:
        line = lineage(search.trials, trial.number)
        assert [one.generation for one in line] == [0, 1, 2]
    moved = [
        trial for trial in search.trials if trial.parent is not None and trial.values != search.trials[trial.parent].values
    ]
    assert 2 <= len(moved) <= 4, "a quarter of each later generation"
    scores = {generation: [t.score or -9 for t in search.trials if t.generation == generation] for generation in (0, 2)}
    assert min(scores[2]) > min(scores[0])
    again = Stage(stage.folder / "again")
    second = again.search(recipe)
    again.play(second, near_a_thousandth, at_once=3, evaluations=2)
    assert [t.values for t in second.trials] == [t.values for t in search.trials], "however many run side by side"


def test_a_trials_recipe_has_its_values_and_the_trials_overrides_and_no_search(stage: Stage) -> None:
    space = {
        "training.adaptation": {"choice": ["full", "lora"]},
        "training.lora.r": {"choice": [4, 8], "when": {"training.adaptation": "lora"}},
    }
    recipe = stage.recipe(space, trial_overrides={"training.num_train_epochs": 1}, metric="f1_macro", mode="max")
    dimensions = stage.search(recipe).space
    assert own_values(recipe, dimensions) == {"training.adaptation": "full"}
    made = trial_recipe(recipe, dimensions, {"training.adaptation": "lora", "training.lora.r": 4})
    assert (made.training.adaptation, made.training.lora.r, made.training.num_train_epochs) == ("lora", 4, 1)
    assert (made.training.metric_for_best_model, made.training.greater_is_better) == ("f1_macro", True)
    assert not made.search.space
    assert trial_recipe(recipe, dimensions, {"training.adaptation": "full"}, overridden=False).training.num_train_epochs == 3


@pytest.mark.parametrize(
    ("own", "own_more", "searched", "more"),
    [("loss", False, "accuracy", True), ("accuracy", True, "loss", False), ("odd", False, "odd", False)],
)
def test_whether_more_is_better_is_known_for_the_metric_that_is_searched_by(
    stage: Stage, own: str, own_more: bool, searched: str, more: bool
) -> None:
    plain = {"training.metric_for_best_model": own, "training.greater_is_better": own_more}
    recipe = stage.recipe(metric=searched).with_values(plain)
    for one in (recipe, recipe.resolved()):
        training = trial_recipe(one, stage.search(recipe).space, {"training.learning_rate": 1e-3}).training
        assert (training.metric_for_best_model, training.greater_is_better) == (searched, more)


def test_a_trial_without_reports_has_no_score() -> None:
    assert Trial(0, {}).score is None
    assert Trial(0, {}).best is None
