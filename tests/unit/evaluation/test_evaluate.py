"""The verdict on real small runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from support.models import tiny_fnet
from support.runs import finished_run
from tunesmith.errors import DataError, UserError
from tunesmith.evaluation.baselines import BASE_MODEL, MAJORITY
from tunesmith.evaluation.evaluate import COMPARED, evaluate_run
from tunesmith.evaluation.results import Evaluation
from tunesmith.report.html import write_report
from tunesmith.report.words import verdict
from tunesmith.runs import Artefact, Run


def test_the_verdict_is_written_into_the_run(text_run: Run, text_evaluation: Evaluation) -> None:
    stored = json.loads(Path(text_run.file("metrics.json")).read_text())
    assert Evaluation.from_json(stored).to_json() == stored
    assert text_evaluation.split == "test"
    reopened = Run(text_run.path)
    assert reopened.metrics["f1_macro"] == pytest.approx(text_evaluation.metrics["f1_macro"].value)
    assert reopened.manifest["durations"]["evaluate"] > 0
    assert reopened.manifest["durations"]["train"] == 1.5, "other durations stay"
    assert Artefact.read(text_run.file("model")).metrics["accuracy"] == reopened.metrics["accuracy"]


def test_predictions_stand_in_the_order_of_the_split_with_ids_and_slices(text_run: Run, text_evaluation: Evaluation) -> None:
    table = pq.read_table(text_run.file("predictions.parquet"))
    assert len(table) == text_evaluation.n
    assert {"id", "reference", "prediction", "correct", "loss", "probabilities", "scanner"} <= set(table.column_names)
    assert len(set(table["id"].to_pylist())) == len(table)
    share = float(np.mean(table["correct"].to_pylist()))
    assert share == pytest.approx(text_evaluation.metrics["accuracy"].value)


def test_predictions_are_what_the_run_says_of_each_text(text_run: Run, text_evaluation: Evaluation) -> None:
    from tunesmith.data.prepare import prepare
    from tunesmith.tasks import load_task

    split = prepare(text_run.recipe, load_task(text_run.recipe.task), output_dir=text_run.recipe.training.output_dir).splits[
        "test"
    ]
    rows = pq.read_table(text_run.file("predictions.parquet")).to_pylist()
    answers = text_run.predict([split.example(k) for k in range(5)])
    for k, answer in enumerate(answers):
        assert rows[k]["id"] == split.ids[k].as_py()
        assert rows[k]["prediction"] == answer["label"]
        assert rows[k]["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_a_notebook_shows_the_headline_with_its_interval_and_the_report(text_run: Run, text_evaluation: Evaluation) -> None:
    shown = text_evaluation._repr_html_()
    one = text_evaluation.metrics[text_evaluation.headline]
    assert f"{text_evaluation.run} on test, n = {text_evaluation.n}" in shown
    assert f"<td>{text_evaluation.headline}</td><td>{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]</td>" in shown
    assert shown.endswith(f"<p>Report: {text_run.file('report.html')}</p>")


def test_baselines_stand_beside_it_with_paired_differences(text_evaluation: Evaluation) -> None:
    for name in (BASE_MODEL, MAJORITY):
        baseline = text_evaluation.baselines[name]
        assert not baseline.skipped
        own, other, difference = (
            text_evaluation.metrics["accuracy"],
            baseline.metrics["accuracy"],
            baseline.differences["accuracy"],
        )
        assert difference.value == pytest.approx(own.value - other.value)
        assert difference.low <= difference.value <= difference.high


def test_a_few_examples_are_answered_alone_too(text_evaluation: Evaluation) -> None:
    found = text_evaluation.suites["parity"]
    assert (found.n, found.measures["agreement"].value) == (COMPARED, 1)
    assert not any("does not answer as it should" in text for text in text_evaluation.warnings)


@pytest.mark.parametrize("harmless", [False, True])
def test_a_model_that_reads_its_padding_is_given_none_or_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmless: bool
) -> None:
    monkeypatch.setattr("support.runs.tiny_bert", lambda folder, **_: tiny_fnet(folder))
    run = finished_run(tmp_path, "text-classification", evaluation={"bootstrap_samples": 100, "baseline": False})
    if harmless:
        monkeypatch.setattr("tunesmith.evaluation.predictor.is_harmless", lambda predictor: True)
    found = evaluate_run(run)
    assert any("does not answer as it should" in text for text in found.warnings) == harmless
    assert (found.suites["parity"].measures["agreement"].value == 1) != harmless


def test_slices_and_classes_add_up_to_all_examples(text_evaluation: Evaluation) -> None:
    slices = text_evaluation.slices["scanner"]
    assert set(slices) == {"a", "b"}
    assert sum(one.n for one in slices.values()) == text_evaluation.n
    total = sum(one.n * one.metrics["accuracy"].value for one in slices.values())
    assert total / text_evaluation.n == pytest.approx(text_evaluation.metrics["accuracy"].value)
    assert sum(one.support for one in text_evaluation.per_class.values()) == text_evaluation.n


def test_the_worst_examples_have_the_highest_loss(text_run: Run, text_evaluation: Evaluation) -> None:
    losses = dict(pq.read_table(text_run.file("predictions.parquet"), columns=["id", "loss"]).to_pydict().items())
    worst = text_evaluation.worst[0]
    assert len(text_evaluation.worst) == 3
    assert worst.loss <= max(losses["loss"])
    assert worst.inputs[0].kind == "text"
    assert isinstance(worst.inputs[0].value, str)
    assert all(one.correct for one in text_evaluation.best)


def test_few_examples_are_said_to_be_few(text_evaluation: Evaluation) -> None:
    assert any("only" in text for text in text_evaluation.warnings)


def test_another_split_goes_to_its_own_folder(text_run: Run, text_evaluation: Evaluation) -> None:
    before = Path(text_run.file("metrics.json")).read_bytes()
    found = evaluate_run(text_run, split="validation")
    assert found.folder.endswith("evaluations/validation")
    assert Path(found.folder, "predictions.parquet").exists()
    assert Path(text_run.file("metrics.json")).read_bytes() == before


def test_other_data_is_judged_whole(text_run: Run, text_evaluation: Evaluation, tmp_path: Path) -> None:
    lines = Path(text_run.recipe.data.train if isinstance(text_run.recipe.data.train, str) else "").read_text().splitlines()
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(lines[:30]))
    found = evaluate_run(text_run, data=str(other))
    assert found.n == 30
    assert found.source == str(other)
    assert "/evaluations/other-" in found.folder
    assert not found.baselines[MAJORITY].skipped


def test_a_split_that_is_not_there_is_refused_with_those_that_are(text_run: Run) -> None:
    with pytest.raises(DataError, match=r"no split 'tset'.*\n.*Did you mean test"):
        evaluate_run(text_run, split="tset")
    with pytest.raises(UserError, match="cannot both"):
        evaluate_run(text_run, split="test", data="x.csv")


def test_data_that_changed_since_training_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "text-classification", steps=1, rows=60)
    run.update(data={"test": {"hash": "0" * 32}})
    with pytest.raises(DataError, match="not the one of this run"):
        evaluate_run(run)


def test_a_slice_of_an_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "text-classification", steps=1, rows=60, evaluation={"slices": ["scaner"]})
    with pytest.raises(DataError, match=r"no column 'scaner'.*\n.*Did you mean 'scanner'"):
        evaluate_run(run)


def test_a_base_model_with_other_classes_is_skipped_with_the_reason(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "text-classification", steps=1, rows=60, evaluation={"bootstrap_samples": 100})
    found = evaluate_run(run)
    assert found.baselines[BASE_MODEL].skipped == "its head answers with other classes"
    assert not found.baselines[MAJORITY].skipped


def test_without_a_test_split_the_validation_rows_judge_and_it_is_said(tmp_path: Path) -> None:
    settings = {"bootstrap_samples": 100, "baseline": False}
    run = finished_run(tmp_path, "text-classification", steps=1, rows=60, evaluation=settings)
    run.recipe.__dict__["data"] = run.recipe.data.model_copy(
        update={"split": run.recipe.data.split.model_copy(update={"test": 0.0})}
    )
    run.manifest["data"] = {}
    found = evaluate_run(run)
    assert found.split == "validation"
    assert "checkpoint was chosen" in found.warnings[0]


def test_a_checkpoint_chosen_by_one_class_is_judged_by_the_tasks_metric(tmp_path: Path) -> None:
    training = {"output_dir": str(tmp_path / "runs"), "metric_for_best_model": "recall/high"}
    settings = {"bootstrap_samples": 100, "baseline": False}
    run = finished_run(tmp_path, "text-classification", steps=4, rows=60, training=training, evaluation=settings)
    run.update(best={"step": 4, "metric": "recall/high", "value": 1.0})
    found = evaluate_run(run)
    assert found.headline == "f1_macro"
    assert verdict(found).detail
    assert "f1" in found.per_class["high"].metrics
    assert "<html" in Path(write_report(run, found)).read_text()


@pytest.mark.parametrize("task", ["image-classification", "token-classification"])
def test_every_shipped_task_can_be_judged(task: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path, task, evaluation={"bootstrap_samples": 100, "slices": ["scanner"]})
    found = evaluate_run(run)
    assert found.headline in found.metrics
    assert all(one.low <= one.value <= one.high for one in found.metrics.values() if math.isfinite(one.low))
    kinds = {given.kind for example in found.worst for given in example.inputs}
    assert kinds == ({"image"} if task == "image-classification" else {"strings"})


def test_blocks_do_not_change_the_result(text_run: Run, text_evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.evaluation.predictions.BLOCK", 7)
    again = evaluate_run(text_run, split="test")
    assert pq.ParquetFile(f"{again.folder}/predictions.parquet").num_row_groups > 1
    for name, one in again.metrics.items():
        assert one.value == pytest.approx(text_evaluation.metrics[name].value, abs=1e-5), name
