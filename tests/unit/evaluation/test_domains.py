"""The verdict by domain, against what the predictions themselves say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from support.data import texts
from support.runs import finished_run
from tunesmith.data.prepare import prepare
from tunesmith.errors import RecipeError, UserError
from tunesmith.evaluation.baselines import BASE_MODEL, MAJORITY
from tunesmith.evaluation.domains import over_domains, with_gaps, worst_of
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.gate import judge
from tunesmith.evaluation.measures import is_better_when_more, measures
from tunesmith.evaluation.results import DomainResult, Evaluation
from tunesmith.evaluation.statistics import Estimate, mean_of
from tunesmith.recipe.gate import load_gate
from tunesmith.report.card import card
from tunesmith.report.domains import sentence
from tunesmith.report.html import render
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.verbs.evaluate import craft_notes, parse_data
from tunesmith.verbs.recording import record_domains


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Evaluation]:
    """A run over two domains and its verdict on three, one of which training lacked; the data has a column ``domain`` too."""
    folder = tmp_path_factory.mktemp("named")
    rows = [{**row, "domain": "mine"} for row in texts(220)]
    parts = {"a": rows[:80], "b": rows[80:120], "ta": rows[120:150], "tb": rows[150:180], "out": rows[180:]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    data = {
        "train": [{"name": "a", "path": "a.jsonl", "weight": 1}, {"name": "b", "path": "b.jsonl", "weight": 1}],
        "test": [{"name": name, "path": f"t{name}.jsonl"} for name in "ab"] + [{"name": "outside", "path": "out.jsonl"}],
    }
    for split in data.values():
        for one in split:
            one["path"] = str(folder / str(one["path"]))
    settings = {"bootstrap_samples": 100, "slices": ["domain"]}
    run = finished_run(folder, "text-classification", base_labels=True, data=data, evaluation=settings)
    return run, evaluate_run(run)


def test_every_metric_is_that_of_the_domains_own_predictions(named: tuple[Run, Evaluation]) -> None:
    run, found = named
    table = pq.read_table(run.file("predictions.parquet"))
    names, right = np.array(table["domain"].to_pylist()), np.array(table["correct"].to_pylist())
    assert list(found.domains) == ["a", "b", "outside"]
    for name, one in found.domains.items():
        assert one.n == (names == name).sum()
        assert one.metrics["accuracy"].value == pytest.approx(right[names == name].mean())
        assert one.metrics["accuracy"].low <= one.metrics["accuracy"].value <= one.metrics["accuracy"].high
        assert one.unseen == (name == "outside")
        assert one.metrics.keys() == found.metrics.keys()
    assert set(table["data.domain"].to_pylist()) == {"mine"}, "the user's own column stays beside ours"
    assert set(found.slices["domain"]) == {"mine"}


def test_the_mean_weighs_domains_alike_and_the_worst_is_the_worst(named: tuple[Run, Evaluation]) -> None:
    _, found = named
    values = {name: one.metrics[found.headline].value for name, one in found.domains.items()}
    assert found.domain_mean[found.headline].value == pytest.approx(np.mean(list(values.values())))
    assert found.worst_domain == min(values, key=lambda name: values[name])
    losses = {name: DomainResult(9, {"log_loss": Estimate(v, v, v, 9, "bca")}) for name, v in (("x", 0.1), ("y", 2.0))}
    assert worst_of(losses, "log_loss") == "y"
    assert worst_of({"x": losses["x"]}, "log_loss") is None
    undefined = {**losses, "z": DomainResult(1, {"log_loss": Estimate(math.nan, math.nan, math.nan, 1, "none")})}
    assert over_domains(undefined) == {}, "the mean of what is undefined somewhere is no mean over the domains"
    assert worst_of(undefined, "log_loss") == "y"


def test_the_interval_of_a_mean_covers_it() -> None:
    """Three domains of 40, 80 and 400 examples with accuracies of 0.9, 0.7 and 0.5: 95 % of 2000 draws hold the mean."""
    from tunesmith.evaluation.statistics import wilson

    rng = np.random.default_rng(0)
    sizes, shares = np.array([40, 80, 400]), np.array([0.9, 0.7, 0.5])
    held = 0
    for _ in range(2000):
        got = rng.binomial(sizes, shares) / sizes
        mean = mean_of([Estimate(v, *wilson(v, n), int(n), "wilson") for v, n in zip(got, sizes, strict=True)])
        held += mean.low <= shares.mean() <= mean.high
    assert 0.93 <= held / 2000 <= 0.975


def test_the_generalisation_gap_is_how_much_worse_it_is_out_of_domain(named: tuple[Run, Evaluation]) -> None:
    _, found = named
    value = {name: one.metrics["accuracy"].value for name, one in found.domains.items()}
    gap = found.domain_gap["accuracy"]
    assert gap.value == pytest.approx((value["a"] + value["b"]) / 2 - value["outside"])
    assert gap.low <= gap.value <= gap.high
    losses = {name: one.metrics["log_loss"].value for name, one in found.domains.items()}
    assert found.domain_gap["log_loss"].value == pytest.approx(losses["outside"] - (losses["a"] + losses["b"]) / 2), "worse"
    assert found.domains["outside"].gap == found.domain_gap, "there is one domain out of domain"
    assert not found.domains["a"].gap
    known = measures(found)
    assert known["domain_gap/accuracy"] == known["domain_gap/outside/accuracy"] == gap
    assert not is_better_when_more("domain_gap/outside/accuracy")
    (rule,) = judge(load_gate({"rules": [{"measure": "domain_gap/accuracy", "max": 0.9}]}), found)
    assert rule.status == "passed"


def test_what_counts_as_in_domain_can_be_said(named: tuple[Run, Evaluation]) -> None:
    run, found = named
    folder = Path(run.path).parents[1]
    data = {"a": str(folder / "ta.jsonl"), "b": str(folder / "tb.jsonl")}
    assert evaluate_run(run, data=data).domain_gap == {}, "training had both"
    settings = run.recipe.evaluation.model_copy(update={"in_domain": ["b", "gone"]})
    again = evaluate_run(run, data=data, settings=settings)
    value = {name: one.metrics["accuracy"].value for name, one in found.domains.items()}
    assert again.domain_gap["accuracy"].value == pytest.approx(value["b"] - value["a"])
    assert "evaluation.in_domain names gone, and the domains judged here are a, b." in again.warnings
    with pytest.raises(RecipeError, match="nobody knows which domains are in"):
        judge(load_gate({"rules": [{"measure": "domain_gap/accuracy", "max": 0.1}]}), evaluate_run(run, data=data))


def test_the_gaps_interval_covers_it() -> None:
    """Of 400 and 150 examples in domain and 200 and 60 out of it, at ordinary rates and near 1: in 95 % of 2000 draws."""
    from tunesmith.evaluation.statistics import wilson

    rng, sizes = np.random.default_rng(1), np.array([400, 150, 200, 60])
    for shares in (np.array([0.9, 0.8, 0.7, 0.5]), np.array([0.99, 0.98, 0.97, 0.9])):
        true, held = shares[:2].mean() - shares[2:].mean(), 0
        for _ in range(2000):
            got = rng.binomial(sizes, shares) / sizes
            domains = {
                str(k): DomainResult(int(n), {"accuracy": Estimate(v, *wilson(v, n), int(n), "wilson")})
                for k, (v, n) in enumerate(zip(got, sizes, strict=True))
            }
            gap = with_gaps(domains, ["0", "1"])[1]["accuracy"]
            held += gap.low <= true <= gap.high
        assert 0.93 <= held / 2000 <= 0.98


def test_the_base_model_and_guessing_stand_beside_each_domain(named: tuple[Run, Evaluation]) -> None:
    _, found = named
    for key in (BASE_MODEL, MAJORITY):
        for name, one in found.baselines[key].domains.items():
            own, difference = found.domains[name].metrics["accuracy"], one.differences["accuracy"]
            assert difference.value == pytest.approx(own.value - one.metrics["accuracy"].value)
        weighed = sum(
            one.n * found.baselines[key].domains[name].metrics["accuracy"].value for name, one in found.domains.items()
        )
        assert weighed / found.n == pytest.approx(found.baselines[key].metrics["accuracy"].value)


def test_it_is_kept_and_shown(named: tuple[Run, Evaluation], capsys: pytest.CaptureFixture[str]) -> None:
    run, found = named
    stored = json.loads(Path(run.file("metrics.json")).read_text())
    assert Evaluation.from_json(stored).to_json() == stored
    assert stored["test"]["worst_domain"] == found.worst_domain
    task = load_task(run.recipe.task)
    record_domains(run.recipe, task, run, prepare(run.recipe, task, output_dir=run.recipe.training.output_dir))
    composition = run.manifest["domains"]
    assert composition["rows"] == {"a": 72, "b": 36}
    assert (composition["drawn"], composition["epoch"]) == ({"a": 54, "b": 54}, 108)
    assert "data: of 108 draws an epoch 54 are of a (72 rows), 54 of b (36 rows)" in capsys.readouterr().err
    page = render(run, found)
    for words in (
        ">Domains<",
        "unseen: not in training",
        "mean over the domains",
        "Share asked",
        "50.0",
        "Pre-trained",
        "<th>Gap</th>",
    ):
        assert words in page
    assert "outside (not in training)" in card(run, found, "text-classification")
    said = craft_notes(found, run)[0]
    assert said == sentence(found)
    assert f"worst on {found.worst_domain}" in said
    assert "not in training: outside" in said
    assert "the generalisation gap from a, b to outside is " in said


def test_other_data_is_judged_by_its_domains(named: tuple[Run, Evaluation]) -> None:
    run, found = named
    folder = Path(run.path).parents[1]
    again = evaluate_run(run, data={"b": str(folder / "tb.jsonl"), "new": str(folder / "out.jsonl")})
    assert list(again.domains) == ["b", "new"]
    assert again.domains["new"].unseen
    assert not again.domains["b"].unseen
    assert again.domains["b"].metrics["accuracy"].value == pytest.approx(found.domains["b"].metrics["accuracy"].value)
    assert "/evaluations/b-new-" in again.folder
    assert evaluate_run(run, data=str(folder / "tb.jsonl")).domains == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("a=x.csv", "y.csv"), "of several data sets each needs a name"),
        (("x.csv", "y.csv"), "of several data sets each needs a name"),
        (("a=x.csv", "a=y.csv"), "two data sets are called a"),
        (("a=",), "it names no place"),
    ],
)
def test_places_without_names_beside_others_are_refused(given: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_data(given)


def test_the_command_takes_names(named: tuple[Run, Evaluation], monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.verbs.evaluate import command

    run, _ = named
    monkeypatch.chdir(Path(run.path).parents[1])
    answer = CliRunner().invoke(command, [run.path, "--data", "b=tb.jsonl", "--data", "new=out.jsonl"])
    assert answer.exit_code == 0, answer.output
    assert "not in training: new" in " ".join(answer.output.split())
