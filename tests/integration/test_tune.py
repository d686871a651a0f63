"""A small search on the shared Ray: trials, their processes, the winner's run, and what goes on after an interruption."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tunesmith import storage
from tunesmith.errors import ClusterError, TrainingFailed
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.runs.find import find_resumable
from tunesmith.tuning.trials import LEDGER, Ledger
from tunesmith.verbs.tune import tune

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SEARCH = {
    "space": {
        "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
        "training.adaptation": {"choice": ["full", "bitfit"]},
        "data.max_length": {"choice": [16, 32]},
    },
    "num_samples": 5,
    "trial_overrides": {"training.num_workers": 1, "training.save_steps": None},
}


def recipe_with(project: Path, **search: Any) -> str:
    """The shared recipe with a search of its own."""
    written = yaml.safe_load((project / "recipe.yaml").read_text())
    name = f"search-{len(list(project.glob('search-*.yaml')))}"
    written["name"] = name
    (project / f"{name}.yaml").write_text(yaml.safe_dump({**written, "search": {**SEARCH, **search}}))
    return str(project / f"{name}.yaml")


@pytest.fixture(scope="module")
def searched(project: Path, ray_local: Any) -> Run:
    return tune(recipe_with(project), on=ray_local.address)


def test_the_winner_is_an_ordinary_run_whose_recipe_trains_it_again(searched: Run) -> None:
    record = storage.read_json(searched.file("search.json"))
    winner = next(row for row in record["trials"] if row["number"] == record["winner"])
    assert searched.status == "done"
    assert searched.recipe.training.learning_rate == winner["values"]["training.learning_rate"]
    assert searched.recipe.data.max_length == winner["values"]["data.max_length"]
    assert searched.recipe.training.num_workers == 1
    assert not searched.recipe.search.space
    assert searched.manifest["recipe_fingerprint"] == searched.recipe.fingerprint()
    assert searched.manifest["best"]["value"] == winner["value"]
    assert searched.verdict["split"] == "test"
    assert len(searched.predict(["a good film"])) == 1
    assert {line["split"] for line in searched.history} == {"train", "validation"}
    assert "The search" in storage.read_text(searched.file("report.html"))


def test_every_trial_is_in_the_table_and_only_the_best_keeps_a_checkpoint(searched: Run) -> None:
    rows = pq.read_table(io.BytesIO(storage.read_bytes(searched.file("trials.parquet")))).to_pylist()
    assert [row["trial"] for row in rows] == list(range(5))
    assert {row["status"] for row in rows} <= {"done", "stopped"}
    record = storage.read_json(searched.file("search.json"))
    kept = [place.parent.name for place in Path(searched.path).glob("trials/*/checkpoints")]
    assert kept == [f"{record['winner']:04d}"]


def test_trials_after_the_first_cost_little_beside_their_training(searched: Run) -> None:
    later = [trial for trial in Ledger(searched.path).read() if trial.status == "done"][2:]
    assert all(trial.seconds - trial.fit_seconds < 5 for trial in later), "Python and PyTorch are not started again"


def test_a_finished_search_is_not_repeated_and_its_trials_start_another(searched: Run, project: Path, ray_local: Any) -> None:
    earlier = recipe_with(project, warm_start=[searched.path], num_samples=2)
    run = tune(earlier, on=ray_local.address)
    assert len(storage.read_json(run.file("search.json"))["trials"]) == 2
    assert find_resumable(Recipe.load(earlier)) is None


def test_what_was_cut_short_goes_on_without_repeating(searched: Run, project: Path, ray_local: Any) -> None:
    path = recipe_with(project)
    run = tune(path, on=ray_local.address)
    lines = storage.read_text(run.file(LEDGER)).splitlines(keepends=True)
    ends = [n for n, line in enumerate(lines) if '"status": "done"' in line or '"status": "stopped"' in line]
    # As if it had been killed when two trials had ended: their lines are all that is known, and there is no model.
    storage.write_text(run.file(LEDGER), "".join(lines[: ends[1] + 1]))
    storage.delete(run.file("model"))
    run.set_status("interrupted")
    before = {trial.number: trial for trial in Ledger(run.path).read() if trial.status in ("done", "stopped")}
    again = tune(path, on=ray_local.address)
    assert again.path == run.path
    after = {trial.number: trial for trial in Ledger(run.path).read()}
    assert len(after) == 5
    assert all(after[number] == trial for number, trial in before.items())


BROKEN = """\
def summed(logits, targets):
    if len(logits) > 3:  # the check before training has three
        raise ArithmeticError("this loss has a hole")
    return logits.sum(dim=-1)
"""


def test_when_every_trial_fails_the_first_reason_is_told_once_and_its_traceback_kept(project: Path, ray_local: Any) -> None:
    (project / "holed_loss.py").write_text(BROKEN)
    path = recipe_with(project, give_up_after=2)
    with pytest.raises(TrainingFailed) as raised:
        tune(path, ["training.loss=holed_loss.summed"], on=ray_local.address)
    said = str(raised.value)
    assert said.startswith("2 trials failed and none succeeded, ")
    assert said.count("ArithmeticError: this loss has a hole") == 1
    kept = Path(said.partition("Its traceback is in ")[2])
    assert 'raise ArithmeticError("this loss has a hole")' in kept.read_text()
    assert Run.open(kept.parents[2]).status == "failed"


def test_more_gpus_than_the_cluster_has_are_refused_before_a_trial_begins(project: Path, ray_local: Any) -> None:
    path = recipe_with(project, trial_overrides={"training.num_workers": 1, "training.use_gpu": True})
    before = set(Path(project, "runs").iterdir())
    with pytest.raises(ClusterError, match=r"too small(.|\n)*training\.use_gpu of a trial: in search\.trial_overrides"):
        tune(path, on=ray_local.address)
    assert set(Path(project, "runs").iterdir()) == before


def test_a_population_and_several_objectives_end_in_a_run_too(project: Path, ray_local: Any) -> None:
    rate = {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    run = tune(recipe_with(project, space=rate, scheduler="pbt", num_samples=4, generations=2), on=ray_local.address)
    record = storage.read_json(run.file("search.json"))
    assert len(record["trials"]) == 8
    steps = [line["step"] for line in run.history if line["split"] == "validation"]
    assert steps == sorted(set(steps)), "the curves of its lineage, each update once"
    several = {"objectives": ["f1_macro", "latency_ms", "size_mb"], "scheduler": "none", "num_samples": 3}
    run = tune(recipe_with(project, space=rate, **several), on=ray_local.address)
    record = storage.read_json(run.file("search.json"))
    assert record["winner"] in record["front"]
    assert all(row["objectives"]["latency_ms"] > 0 for row in record["trials"])
    assert "The front" in storage.read_text(run.file("report.html"))


def test_a_trial_of_two_workers_that_was_stopped_can_win(project: Path, ray_local: Any) -> None:
    path = recipe_with(project, num_samples=1, cost_budget_s=1.0, trial_overrides={"training.num_train_epochs": 50})
    run = tune(path, ["training.save_steps=7"], on=ray_local.address)
    record = storage.read_json(run.file("search.json"))
    (trial,) = record["trials"]
    assert (trial["status"], run.status) == ("stopped", "done")
    assert trial["done"] < trial["steps"]
    assert run.manifest["best"]["value"] == trial["value"]
    assert run.recipe.training.num_workers == 2
    assert len(run.predict(["a good film"])) == 1
