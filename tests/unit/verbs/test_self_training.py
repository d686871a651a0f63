"""Self-training from recipe to verdict: teacher, labels, student, the choice on validation rows, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.data import texts
from support.in_process import without_ray
from support.models import tiny_bert
from tunesmith import storage
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData
from tunesmith.errors import DataError, UserError
from tunesmith.evaluation.sides import open_side
from tunesmith.evaluation.statistics import difference
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.training.precheck import check_prepared
from tunesmith.training.self_training import LABELS, RECORD, STUDENT_HISTORY
from tunesmith.verbs.reproduce import compare, reproduce
from tunesmith.verbs.train import train

pytestmark = pytest.mark.unit


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def recipe_for(folder: Path, rows: list[dict[str, Any]] | None = None, **unlabelled: Any) -> Recipe:
    if not (folder / "base").exists():
        tiny_bert(folder / "base", spread=0.2)
    values = {
        "name": "self",
        "task": "text-classification",
        "model": {"model_name_or_path": str(folder / "base")},
        "data": {
            "train": write(folder / "train.jsonl", texts(24, seed=1)),
            "validation": write(folder / "validation.jsonl", texts(40, seed=2)),
            "test": write(folder / "test.jsonl", texts(40, seed=3)),
            "unlabelled": {"data": write(folder / "more.jsonl", rows or texts(80, seed=4)), "threshold": 0.6, **unlabelled},
        },
        "training": {
            "output_dir": str(folder / "runs"),
            "num_train_epochs": 3,
            "learning_rate": 3e-3,
            "logging_steps": 1,
            "bf16": False,
        },
    }
    return Recipe.from_dict(values)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        return train(recipe_for(tmp_path_factory.mktemp("self")))


def test_the_student_learns_from_what_the_teacher_is_sure_of(done: Run) -> None:
    said = pq.read_table(done.file(LABELS)).to_pylist()
    taken = [row for row in said if row["taken"]]
    assert len(said) == 80
    assert 0 < len(taken) == sum(1 for row in said if row["taken"])
    assert all(row["confidence"] >= 0.6 for row in taken)
    record = storage.read_json(done.file(RECORD))
    assert record["taken"] == len(taken)
    assert record["per_class"] == {name: sum(row["label"] == name for row in taken) for name in ("high", "low")}
    assert record["truth"]["taken"]["value"] == pytest.approx(sum(row["label"] == row["truth"] for row in taken) / len(taken))
    assert sum(record["histogram"]) == 80
    prepared = PreparedData.open(done.manifest["prepared"])
    kept = record["kept"] == "student"
    assert len(prepared.splits["train"]) == 24 + len(taken) * kept
    assert done.manifest["data"]["train"]["rows"] == 24 + len(taken) * kept


def test_the_better_one_on_validation_rows_is_kept(done: Run) -> None:
    record, teacher = storage.read_json(done.file(RECORD)), Run.open(done.file("teacher"))
    gain = record["validation"]["difference"][record["metric"]]["value"]
    assert record["metric"] == "f1_macro"
    assert (record["kept"] == "student") == (gain > 0)
    values = {name: one["value"] for name, one in record["test"][record["kept"]].items()}
    assert done.metrics["f1_macro"] == pytest.approx(values["f1_macro"])
    assert teacher.metrics["f1_macro"] == pytest.approx(record["test"]["teacher"]["f1_macro"]["value"])
    if record["kept"] == "student":
        one, other = (side.judged(side.records, *side.seed) for side in (open_side(done.path), open_side(teacher.path)))
        paired = difference(one, other, "f1_macro")
        assert paired.low == pytest.approx(record["test"]["difference"]["f1_macro"]["low"])


def test_the_report_shows_it(done: Run) -> None:
    page = storage.read_text(done.file("report.html"))
    for words in ("Self-training", "How sure the teacher was", "On the test rows, n = 40", "teacher/report.html"):
        assert words in page


@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_a_run_killed_in_either_phase_goes_on_to_the_same_numbers(
    phase: str, done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []

    def kill(run: Run, event: dict[str, Any]) -> None:
        mine = (run.name == "teacher") == (phase == "teacher")
        if mine and not killed and event["kind"] == "checkpoint":
            killed.append(run.path)
            raise KeyboardInterrupt

    recipe = done.recipe.override(f"training.output_dir={tmp_path / 'runs'}", f"data.cache_dir={tmp_path / 'cache'}")
    without_ray(monkeypatch, kill)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(recipe)
    (place,) = [one for one in storage.list_dirs(str(tmp_path / "runs")) if not storage.name(one).startswith(".")]
    assert Run.open(place).status == "interrupted"
    assert caught.value.__notes__ == [f"The same command goes on with {place}"]
    again = train(recipe)
    assert again.path == place
    assert len(killed) == 1
    assert again.metrics == done.metrics
    assert storage.read_json(again.file(RECORD)) == storage.read_json(done.file(RECORD))


def test_a_crash_before_the_teacher_is_a_run_blocks_nothing(done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's manifest is its last first file: here it is the teacher's that is never written."""
    from tunesmith.runs import manifest

    true = manifest.collect
    killed: list[Recipe] = []

    def collect(recipe: Recipe, *arguments: Any) -> Any:
        if recipe.data.unlabelled.data is None and not killed:
            killed.append(recipe)
            raise KeyboardInterrupt
        return true(recipe, *arguments)

    recipe = done.recipe.override(f"training.output_dir={tmp_path / 'runs'}", f"data.cache_dir={tmp_path / 'cache'}")
    without_ray(monkeypatch)
    monkeypatch.setattr(manifest, "collect", collect)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    (place,) = [one for one in storage.list_dirs(str(tmp_path / "runs")) if not storage.name(one).startswith(".")]
    storage.write_text(storage.join(place, "teacher", "recipe.yaml"), "left: by a process that was killed\n")
    again = train(recipe)
    assert (again.path, again.metrics) == (place, done.metrics)


def test_it_can_be_reproduced(done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    again = reproduce(done, into=str(tmp_path))
    assert compare(done, again).verdict == "reproduced: identical"


def test_where_the_teacher_is_sure_of_nothing_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    run = train(recipe_for(tmp_path, threshold=1.0, calibrate=False))
    record, teacher = storage.read_json(run.file(RECORD)), Run.open(run.file("teacher"))
    assert (record["kept"], record["taken"]) == ("teacher", 0)
    assert "no row reached the threshold of 1" in storage.read_text(run.file("report.html"))
    assert run.metrics == teacher.metrics


def test_a_student_that_is_no_better_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels turned round by the task's own words: nothing is learned from them, and the teacher stays."""
    from tunesmith.training import self_training

    true = self_training.pseudo_labels

    def wrong(*arguments: Any) -> Any:
        import dataclasses

        made = true(*arguments)
        return dataclasses.replace(made, codes=1 - made.codes)

    without_ray(monkeypatch)
    monkeypatch.setattr(self_training, "pseudo_labels", wrong)
    run = train(recipe_for(tmp_path, threshold=0.5))
    teacher = Run.open(run.file("teacher"))
    assert storage.read_json(run.file(RECORD))["kept"] == "teacher"
    assert run.metrics == teacher.metrics
    assert run.manifest["data"]["train"]["rows"] == 24
    assert run.history == teacher.history, "the curves are those of the model that was kept"
    assert len(storage.read_text(run.file(STUDENT_HISTORY)).splitlines()) > len(teacher.history)


@pytest.mark.parametrize("beyond", ["teacher", "student"])
def test_of_two_the_one_within_the_retention_ceiling_is_kept(
    beyond: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.evaluation import retention

    told = {"set": "old", "drop": 0.3, "metric": "f1_macro", "max_drop": 0.1}

    def ceiling(run: Run, mixed: Any = None) -> dict[str, Any] | None:
        return told if (run.name == "teacher") == (beyond == "teacher") else None

    without_ray(monkeypatch)
    monkeypatch.setattr(retention, "beyond_ceiling", ceiling)
    run = train(recipe_for(tmp_path))
    record = storage.read_json(run.file(RECORD))
    assert (record["kept"], record["beyond"]) == ({"teacher": "student", "student": "teacher"}[beyond], beyond)
    assert "beyond_ceiling" not in run.manifest
    assert f"The {beyond} is beyond the retention ceiling" in storage.read_text(run.file("report.html"))


def test_labels_of_other_rows_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(run: Run, event: dict[str, Any]) -> None:
        if run.name != "teacher" and event["kind"] == "checkpoint":
            raise KeyboardInterrupt

    recipe = recipe_for(tmp_path)
    without_ray(monkeypatch, kill)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    write(tmp_path / "more.jsonl", texts(80, seed=5))
    with pytest.raises(DataError, match="others than those that the teacher labelled"):
        train(recipe)


def test_several_rounds_are_teachers_of_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    run = train(recipe_for(tmp_path, rounds=2))
    middle = Run.open(run.file("teacher"))
    assert middle.recipe.data.unlabelled.rounds == 1
    assert Run.open(middle.file("teacher")).recipe.data.unlabelled.data is None


def test_rows_of_a_retention_set_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path).override(f"evaluation.retention.data={tmp_path / 'more.jsonl'}").resolved()
    task = load_task(recipe.task)
    prepared = prepare(recipe, task, output_dir=recipe.training.output_dir)
    with pytest.raises(DataError, match=r"data\.unlabelled\.data: 80 of its 80 rows also stand in the retention set more"):
        check_prepared(recipe, task, prepared)


def test_what_is_wrong_with_the_rows_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    with pytest.raises(UserError, match="no column for the role 'text'"):
        train(recipe_for(tmp_path, [{"words": "word1"}]))
    with pytest.raises(DataError, match="none of its 40 usable rows is left"):
        train(recipe_for(tmp_path, texts(40, seed=3)))
    assert [one for one in storage.list_dirs(str(tmp_path / "runs")) if not storage.name(one).startswith(".")] == []
