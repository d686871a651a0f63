"""``tunesmith gate`` and ``compare`` of a served model: it is evaluated first, and one that answers otherwise is stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tunesmith
from support.data import sentences, texts
from support.foreign import Foreign, fitted
from support.runs import finished_run
from support.served import Service, listening
from tunesmith.cli import main
from tunesmith.errors import UserError
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.runs import Run
from tunesmith_serving.engine import Engine

pytestmark = pytest.mark.unit
ROWS = texts(240)
PARITY = {"rules": [{"measure": "parity/agreement", "min": 0.85}, {"measure": "accuracy", "min": 0.2}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An image classifier whose base had the same labels, judged."""
    folder = tmp_path_factory.mktemp("served")
    settings = {"bootstrap_samples": 100}
    run = finished_run(folder, "image-classification", steps=30, base_labels=True, evaluation=settings)
    evaluate_run(run)
    return run


@pytest.fixture(scope="module")
def url(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it is served as it should be (``m``), and with a corrupted preprocessing (``bad``)."""
    engines = {name: Engine.load(str(run.local_model()), name) for name in ("m", "bad")}
    engines["bad"].predictor.preprocessing.state["mean"] = [0.0, 0.0, 0.0]
    served = Service(tmp_path_factory.mktemp("service"), *engines.values())
    with listening(served.app) as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_API_KEY", served.key)
        yield f"{root}/v2/models/m"


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def written(folder: Path, gate: dict[str, Any]) -> str:
    (folder / "gate.yaml").write_text(json.dumps(gate))
    return str(folder / "gate.yaml")


def test_a_served_model_is_evaluated_and_gated_in_one_command(run: Run, url: str, tmp_path: Path) -> None:
    file = written(tmp_path, {**PARITY, "rules": [*PARITY["rules"], {"measure": "calibration/ece", "max": 1.0}]})
    done = typed("gate", url, "--like", run.path, "--gate", file)
    assert done.exit_code == 0, done.output
    assert "3 of 3 rules hold" in done.output
    folder = max(Path(run.path, "evaluations").glob("served-m-*"))
    assert (folder / "gate" / "junit.xml").exists()
    assert (folder / "report.html").exists()


def test_a_corrupted_preprocessing_on_the_server_does_not_pass(run: Run, url: str, tmp_path: Path) -> None:
    file = written(tmp_path, PARITY)
    done = typed("gate", f"{url.removesuffix('/m')}/bad", "--like", run.path, "--gate", file)
    assert done.exit_code == 3, done.output
    assert "did not pass: parity/agreement" in done.output
    assert "does not answer as it should" in " ".join(done.output.split())


def test_margins_are_against_the_runs_base_or_the_run_itself(run: Run, url: str) -> None:
    rules = {"rules": [{"measure": "accuracy", "margin": 0.2}]}
    against_base = tunesmith.gate(url, {**rules, "baseline": "base"}, like=run)
    assert (against_base.baseline, against_base.outcomes[0].checks[0].baseline) == (
        "base model",
        evaluate_run(run).baselines["base model"].metrics["accuracy"],
    )
    itself = tunesmith.gate(url, rules, baseline=run.path, like=run.path).outcomes[0].checks[0]
    assert itself.gain is not None
    assert itself.gain.value == pytest.approx(0, abs=1e-9)


def test_a_served_model_is_a_side_of_a_comparison(run: Run, url: str, tmp_path: Path) -> None:
    found = tunesmith.compare(url, run.path, metrics=["accuracy"], margin=0.1, like=run.path, out=str(tmp_path))
    assert (found.verdict, found.flips.fixed, found.flips.broken) == ("equivalent", 0, 0)


def test_evaluate_takes_an_address_in_python(run: Run, url: str, tmp_path: Path) -> None:
    found = tunesmith.evaluate(url, like=run.path, out=str(tmp_path / "judged"))
    assert found.suites["parity"].measures["agreement"].value == 1
    with pytest.raises(UserError, match="--like is for a served model"):
        tunesmith.evaluate(run.path, like=run.path)


def test_what_only_a_run_or_only_a_served_model_has_is_said(run: Run, url: str, tmp_path: Path) -> None:
    forgotten = typed(
        "gate", url, "--like", run.path, "--gate", written(tmp_path, {"rules": [{"measure": "retention/*/drop", "max": 1}]})
    )
    assert (forgotten.exit_code, "nothing old was judged" in forgotten.output) == (2, True)
    alone = typed("gate", run.path, "--gate", written(tmp_path, {"rules": [{"measure": "latency/p99_ms", "max": 9}]}))
    assert (alone.exit_code, "gate http://HOST:PORT/v2/models/NAME --like RUN" in alone.output) == (2, True)
    odd = typed("gate", run.path, "--gate", written(tmp_path, PARITY), "--like", run.path)
    assert "is for a served model" in odd.output


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Foreign, list[str]]]:
    """A foreign server, and the arguments that name it, its data and its mapping."""
    monkeypatch.chdir(tmp_path)
    words = Foreign(fitted(ROWS[:40]))
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[40:]))
    target = {
        "task": "text-classification",
        "labels": words.labels,
        "inputs": {"text": {"name": "document"}},
        "outputs": {"label": {"name": "verdict"}},
    }
    Path("target.yaml").write_text(json.dumps(target))
    with listening(words.app) as root:
        yield words, [f"{root}/v2/models/words", "--data", "data.jsonl", "--target", "target.yaml"]


@pytest.mark.parametrize(
    ("rules", "more", "says"),
    [
        ([{"measure": "acuracy", "min": 0.5}], [], "did you mean accuracy"),
        ([{"measure": "log_loss", "max": 0.5}], [], "there is no such measure"),
        ([{"measure": "recall/hihg", "min": 0.5}], [], "did you mean recall/high"),
        ([{"measure": "recal/*", "min": 0.5}], [], "did you mean"),
        ([{"measure": "robustnes/worst_case", "min": 0.5}], [], "there is no such measure"),
        ([{"measure": "slices/scanner=a/accuracy", "min": 0.5}], [], "no slices by 'scanner'"),
        ([{"measure": "domains/clinic/accuracy", "min": 0.5}], [], "has no domains"),
        ([{"measure": "pairs/agreement", "min": 0.5}], [], "pairs are those of a rollout"),
        ([{"measure": "accuracy", "margin": 0.1}], [], "a margin needs a baseline"),
        ([{"measure": "accuracy", "margin": 0.1}], ["--baseline", "gone"], "gone"),
        ([{"measure": "accuracy", "margin": 0.1}], ["--baseline", "base"], "Give --like RUN"),
        ([{"measure": "fairness/worst_group_accuracy", "min": 0.1}], [], "fairness"),
    ],
)
def test_mistakes_of_a_gate_are_told_before_anything_is_asked(
    words: tuple[Foreign, list[str]], tmp_path: Path, rules: list[dict[str, Any]], more: list[str], says: str
) -> None:
    done = typed("gate", *words[1], "--gate", written(tmp_path, {"rules": rules}), *more)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.output.split()), done.output
    assert words[0].requests == 0
    assert not list(Path().rglob("answers.jsonl"))


@pytest.mark.parametrize("only_labels", [False, True])
def test_a_foreign_server_without_a_run_has_every_measure_that_it_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_labels: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    words = Foreign(fitted(ROWS[:40]))
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[40:]))
    outputs = {"label": {"name": "verdict"}} | ({} if only_labels else {"probabilities": {"name": "odds"}})
    target = {
        "task": "text-classification",
        "labels": words.labels,
        "inputs": {"text": {"name": "document"}},
        "outputs": outputs,
    }
    Path("target.yaml").write_text(json.dumps(target))
    rules = [{"measure": "f1_macro", "min": 0.5}, {"measure": "f1_macro", "margin": 0.1}, {"measure": "recall/*", "min": 0.3}]
    with listening(words.app) as root:
        place = f"{root}/v2/models/words"
        tunesmith.evaluate(place, data="data.jsonl", target_file="target.yaml", out="before")
        file = written(tmp_path, {"rules": rules, "baseline": "before"})
        done = typed("gate", place, "--data", "data.jsonl", "--target", "target.yaml", "--gate", file)
    assert done.exit_code == 0, done.output
    (folder,) = Path("evaluations").glob("served-words-*")
    compared = tunesmith.compare(str(folder), "before", out="compared")
    assert "f1_macro" in compared.measures
    assert ("log_loss" in compared.measures) is not only_labels


def test_measures_of_a_suite_of_ones_own_are_known(words: tuple[Foreign, list[str]], tmp_path: Path) -> None:
    Path("gate_suite.py").write_text(OWN_SUITE)
    file = written(tmp_path, {"rules": [{"measure": "halves/share", "min": 0.1}]})
    done = typed("gate", *words[1], "--gate", file, "evaluation.suites=[gate_suite.halves]")
    assert (done.exit_code, "1 of 1 rules hold" in done.output) == (0, True), done.output


OWN_SUITE = """
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.statistics import Estimate


def halves(bench):
    return SuiteResult("Halves", "measured", n=10, measures={"share": Estimate(0.5, 0.4, 0.6, 10, "wilson")})
"""


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, list[str]]]:
    """A served model whose metrics nobody knows before it is asked, with slices and old data that shows drift alone."""
    folder = tmp_path_factory.mktemp("tagger")
    (folder / "old.jsonl").write_text("\n".join(json.dumps(row) for row in sentences(40, seed=8)))
    settings = {"bootstrap_samples": 100, "slices": ["scanner"], "retention": {"data": {"old": str(folder / "old.jsonl")}}}
    run = finished_run(folder, "token-classification", evaluation=settings)
    served = Service(tmp_path_factory.mktemp("service"), Engine.load(str(run.local_model()), "m"))
    with listening(served.app) as root:
        yield run, [f"{root}/v2/models/m", "--like", run.path, "--key", served.key]


def test_slices_are_gated_where_the_metrics_are_known_only_later(tagger: tuple[Run, list[str]], tmp_path: Path) -> None:
    rules = [{"measure": f"slices/scanner={one}/f1", "min": 0} for one in ("a", "*")]
    done = typed("gate", *tagger[1], "--gate", written(tmp_path, {"rules": rules}))
    assert (done.exit_code, "2 of 2 rules hold" in done.output) == (0, True), done.output


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        ("slices/scaner=a/f1", "did you mean scanner?"),
        ("slices/scanner=z/f1", "scanner has no value 'z'"),
        ("domains/clinic/f1", "has no domains"),
        ("retention/old/cka", "does not tell its hidden states"),
    ],
)
def test_what_a_metric_is_of_is_checked_all_the_same(
    tagger: tuple[Run, list[str]], tmp_path: Path, measure: str, says: str
) -> None:
    before = sorted(Path(tagger[0].path).rglob("answers.jsonl"))
    done = typed("gate", *tagger[1], "--gate", written(tmp_path, {"rules": [{"measure": measure, "min": 0}]}))
    assert (done.exit_code, says in " ".join(done.output.split())) == (2, True), done.output
    assert sorted(Path(tagger[0].path).rglob("answers.jsonl")) == before
