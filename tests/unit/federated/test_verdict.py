"""A run that its sites have judged, without a row at the server: a verdict, a report and a gate like any other's."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console
from safetensors.torch import load_file

from support.data import sentences, texts
from support.federation import LocalGrid, federation, federation_recipe, sites_of
from tunesmith import storage
from tunesmith.cli import main
from tunesmith.evaluation.results import Evaluation
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.training.progress import Progress
from tunesmith.verbs.evaluate import print_verdict
from tunesmith_federated.federate import _Making
from tunesmith_federated.server_state import Book
from tunesmith_federated.verdict import judge_by_sites

pytestmark = pytest.mark.unit

TRAINING = {"optim": "sgd", "learning_rate": 0.05, "per_device_train_batch_size": 8, "num_train_epochs": 2}
Make = Callable[..., Run]


def made(recipe: Recipe, rows: Sequence[dict[str, Any]], folder: Path, holdout: int, **faults: Any) -> Run:
    """The run of a federation whose server has no rows, as `federate --superlink` makes it of its rounds."""
    sites = sites_of(recipe, rows, 3, folder / "sites", holdout)
    rounds = federation(recipe, LocalGrid(sites, faults), folder / "server", rows)
    run = Run.create(recipe.resolved(), ["tunesmith", "federate", "recipe.yaml"], str(folder / "run"))
    making = _Making(run.recipe, rounds.plan.task, run, Progress(Console(file=io.StringIO())))
    try:
        making.record_sites()
        making._keep(rounds.run(), rounds.state, None)
        making.judge()
    finally:
        run.lock().release()
    return run


@pytest.fixture
def make(bert: Path, tmp_path: Path) -> Make:
    """``make(task=…, metric=…, holdout=…)``."""

    def run(task: str = "text-classification", metric: str | None = None, holdout: int = 12, **federated: Any) -> Run:
        chosen = {} if metric is None else {"metric_for_best_model": metric}
        recipe = federation_recipe(bert, tmp_path / "recipe", {**TRAINING, **chosen}, task=task, **federated)
        rows = sentences(96, seed=3) if task == "token-classification" else texts(96, seed=3)
        return made(recipe, rows, tmp_path, holdout)

    return run


def shown(run: Run) -> str:
    """What stands in the terminal and in the report."""
    said = Console(file=io.StringIO(), width=200)
    print_verdict(Evaluation.from_json(run.verdict), run, said)
    return said.file.getvalue() + storage.read_text(run.file("report.html"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("task", "metric", "headline"),
    [
        ("text-classification", None, "f1_macro"),
        ("text-classification", "accuracy", "accuracy"),
        ("text-classification", "loss", "loss"),
        ("token-classification", None, "f1"),
    ],
)
def test_every_metric_that_the_sites_sums_give_is_in_the_verdict(
    make: Make, task: str, metric: str | None, headline: str
) -> None:
    run = make(task, metric)
    verdict, kept = Evaluation.from_json(run.verdict), run.manifest["federation"]
    assert (verdict.headline, verdict.n, verdict.split) == (headline, 36, "sites")
    assert (kept["kept_round"], kept["chosen"]) == (kept["best_round"], True)
    judged = kept["judged"][str(kept["kept_round"])]
    assert run.metrics == pytest.approx({name: judged[name] for name in judged})
    assert "rows that the sites held back" in shown(run)
    if "accuracy" in judged:
        assert verdict.metrics["accuracy"].method == "wilson"
    assert verdict.metrics[headline].n == 36


def test_the_last_model_is_judged_where_it_is_kept_and_not_the_best(bert: Path, tmp_path: Path) -> None:
    best_is_first = {"metric_for_best_model": "loss", "greater_is_better": True, "load_best_model_at_end": False}
    recipe = federation_recipe(bert, tmp_path / "recipe", {**TRAINING, **best_is_first})
    run = made(recipe, texts(96, seed=3), tmp_path, 12)
    told = run.manifest["federation"]
    assert (told["best_round"], told["kept_round"], told["chosen"]) == (1, 2, False)
    assert run.metrics["loss"] == pytest.approx(told["judged"]["2"]["loss"])
    assert run.metrics["loss"] != pytest.approx(told["judged"]["1"]["loss"])
    assert "The model after round 2 was kept." in shown(run)
    assert "chosen by them" not in shown(run)
    last = Book(tmp_path / "server").tensors()[0]
    kept = load_file(storage.local_path(run.file("model/model.safetensors")))
    assert all(torch.equal(kept[name], value) for name, value in last.items())


def test_a_run_that_an_earlier_version_trained_has_a_verdict(make: Make) -> None:
    run = make()
    metrics, later = run.metrics, ("judged_by", "kept_round", "chosen")
    run.manifest["federation"] = {name: told for name, told in run.manifest["federation"].items() if name not in later}
    found = judge_by_sites(run, load_task(run.recipe.task))
    assert (found.n, {name: one.value for name, one in found.metrics.items()}) == (0, metrics)


def test_an_area_under_a_curve_is_told_with_how_far_it_can_be_off(make: Make) -> None:
    run = make()
    kept = run.manifest["federation"]
    error = kept["judged_by"][str(kept["best_round"])]["area_error"]
    assert 0 <= error <= 0.5
    assert 0 <= (run.metrics["roc_auc"] or -1) <= 1
    assert f"histograms of scores with 1,000 bins: it is at most {error:.2g} away" in shown(run)
    assert "ROC-AUC" in shown(run)


@pytest.mark.parametrize("metric", [None, "accuracy", "loss"])
def test_a_model_that_nobody_could_judge_is_a_run_that_says_so(make: Make, metric: str | None) -> None:
    run = make(metric=metric, holdout=0)
    assert run.manifest["federation"]["judged"] == {"0": {}, "1": {}, "2": {}}
    assert (run.verdict["sites"]["n"], set(run.metrics.values())) == (0, {None})
    said = shown(run)
    assert "Nobody has judged this model." in said
    assert "tunesmith evaluate" in said
    assert "federation.min_examples is 1" in said
    assert ".nan" not in storage.read_text(run.file("README.md"))
    assert len(run.predict(["word1 word2"])) == 1


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_a_gate_judges_it_by_what_the_sites_have_told(make: Make, tmp_path: Path) -> None:
    run, gate = make(), tmp_path / "gate.yaml"
    rules = "  - {measure: n, min: 30}\n  - {measure: accuracy, min: 0.01}\n  - {measure: f1_macro, min: 0.01, by: value}\n"
    gate.write_text(f"baseline: base\nrules:\n{rules}", encoding="utf-8")
    done = typed("gate", run.path, "--gate", str(gate))
    assert (done.exit_code, "The gate passed: 3 of 3 rules hold" in done.output) == (0, True), done.output
    assert "expect a little less" in done.output
    written = [storage.read_text(run.file(name)) for name in ("gate/gate.md", "gate/gate.html", "gate/junit.xml", "README.md")]
    written.append(storage.read_text(run.file("model/.eval_results/tunesmith.yaml")))
    assert not [text for text in written if "None" in text]
    assert typed("gate", run.path, "--example").exit_code == 0
    gate.write_text("rules:\n  - {measure: accuracy, min: 0.99}\n", encoding="utf-8")
    assert typed("gate", run.path, "--gate", str(gate)).exit_code == 3
    gate.write_text("rules:\n  - {measure: accuracy, margin: 0.1}\n", encoding="utf-8")
    margin = typed("gate", run.path, "--gate", str(gate), "--baseline", run.path)
    assert (margin.exit_code, "a margin is told example by example" in margin.output) == (2, True), margin.output


def test_it_cannot_be_compared_row_by_row_and_says_what_can(make: Make) -> None:
    run = make()
    done = typed("compare", run.path, run.path)
    assert (done.exit_code, "judged by sums over rows that are not here" in done.output) == (2, True), done.output
    assert "--data FILE" in done.output
