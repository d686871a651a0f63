"""What every task must do, whatever it is about: the shipped ones, and two that only these tests have (boxes, speech).

The data comes from files through the data wing, the model is fitted by the loop, and answers come from the predictor: a task
that passes here works everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from support.cases import CASES, Case
from support.fits import fitted_prepared, losses, on_ranks
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import DataError
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.predictor import Predictor
from tunesmith.evaluation.statistics import bootstrap
from tunesmith.recipe import Recipe
from tunesmith.report.html import write_report
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Batch, Features, Preprocessing, Task
from tunesmith.tasks.losses import CrossEntropy
from tunesmith.training.checkpoint import save_model
from tunesmith.training.fit import FitContext, FitData, FitResult, FitSpec, fit

pytestmark = pytest.mark.unit

DATATYPES = {"BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"}


@dataclass(frozen=True)
class Made:
    """A case whose data is prepared; whatever else it needs is made when it is first asked for."""

    case: Case
    recipe: Recipe
    task: Task
    data: PreparedData
    folder: Path

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.data.state, self.task.load_processor(self.recipe))

    @property
    def train(self) -> Split:
        return self.data.splits["train"]

    @property
    def test(self) -> Split:
        return self.data.splits["test"]

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        return self.test.examples()

    @cached_property
    def fitted(self) -> FitResult:
        spec = FitSpec(self.recipe.override("training.num_train_epochs=6"), self.task, self.preprocessing)
        return fit(spec, FitData(self.train))

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.task, self.fitted.model, self.preprocessing, device="cpu")

    def fresh(self) -> torch.nn.Module:
        torch.manual_seed(1)
        return self.task.build_model(self.recipe, self.data.state).eval()

    def batch(self, indices: Sequence[int]) -> Batch:
        return self.task.collate(self.train.features(indices), self.preprocessing)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        answers = dict(
            pair for indices, said in self.predictor.predict_split(self.test) for pair in zip(indices, said, strict=True)
        )
        return [self.task.score(answers[i], example, self.data.state) for i, example in enumerate(self.examples)]

    @cached_property
    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.records)


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(case.id)
    recipe = case.recipe(folder)
    task = load_task(recipe.task)
    return Made(case, recipe, task, prepare(recipe, task, output_dir=recipe.training.output_dir), folder)


def same_features(one: Features, other: Features) -> None:
    assert (one.length, one.count, list(one.values)) == (other.length, other.count, list(other.values))
    for name, value in one.values.items():
        np.testing.assert_array_equal(value, other.values[name], err_msg=name)


def close(one: Any, other: Any, tolerance: float = 1e-4) -> None:
    """Answers that say the same: text equal, numbers within the tolerance."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            close(value, other[key], tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            close(mine, theirs, tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=tolerance, rel=tolerance, nan_ok=True)
    else:
        assert one == other


def inputs_only(task: Task, examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{role: value for role, value in example.items() if role != task.target} for example in examples]


# What an example is


def test_its_roles_hold_its_target_and_begin_with_an_input(made: Made) -> None:
    assert made.task.name == made.case.task
    assert made.task.target in made.task.columns
    assert next(iter(made.task.columns)) != made.task.target
    assert made.task.columns[made.task.target].required


def test_good_examples_pass_and_bad_ones_are_refused_with_the_reason(made: Made) -> None:
    example = made.examples[0]
    assert made.task.check(example) is None
    assert made.task.check(inputs_only(made.task, [example])[0]) is None
    for values, reason in made.case.bad:
        told = made.task.check({**example, **values})
        assert told is not None, values
        assert reason in told


def test_a_target_that_training_lacks_is_not_admitted(made: Made) -> None:
    example = made.examples[0]
    assert made.task.admit(example, made.data.state) is None
    told = made.task.admit({**example, **made.case.unknown}, made.data.state)
    assert told is not None
    assert "training data" in told


def test_the_predictor_names_the_example_that_it_cannot_use(made: Made) -> None:
    values, reason = made.case.bad[0]
    with pytest.raises(DataError, match=f"example 1: .*{reason}"):
        made.predictor.predict([made.examples[0], {**made.examples[0], **values}])


# What is learned from the data


def test_statistics_of_shards_are_those_of_the_whole(made: Made) -> None:
    examples, task = made.train.examples(), made.task
    whole = task.merge([task.collect(examples)])
    parts = [task.collect(part) for part in (examples[:5], examples[5:6], examples[6:])]
    assert task.merge(parts) == whole
    assert task.merge([task.merge(parts[:2]), parts[2]]) == whole
    assert task.merge(parts[::-1]) == whole
    assert json.loads(json.dumps(whole)) == whole
    assert task.freeze(whole, made.recipe) == made.data.state


def test_classes_are_counted_and_shown_by_those_that_have_them(made: Made) -> None:
    shown = made.task.classes_of(made.train.features(range(len(made.train))), made.data.state)
    counts = made.data.state.get("label_counts")
    assert (shown is None) == (counts is None) == (made.data.manifest["imbalance"] is None)
    if shown is not None and counts is not None:
        assert (shown.shape, shown.dtype) == ((len(made.train), len(made.data.state["labels"])), bool)
        assert (shown.sum(axis=0) <= counts).all()
        assert (shown.any(axis=0) == (np.asarray(counts) > 0)).all()
        assert made.data.manifest["imbalance"]["counts"] == dict(zip(made.data.state["labels"], counts, strict=True))


def test_counts_are_those_of_a_training_split_that_was_cut(made: Made) -> None:
    if "label_counts" not in made.data.state:
        return
    few = prepare(made.recipe.override("data.max_train_samples=20"), made.task, output_dir=str(made.folder / "few"))
    assert (
        few.state["label_counts"]
        == made.task.freeze(
            made.task.collect(few.splits["train"].examples()), made.recipe.override(f"data.labels={few.state['labels']}")
        )["label_counts"]
    )
    assert few.state["labels"] == made.data.state["labels"]


def test_the_state_is_plain_json(made: Made) -> None:
    assert json.loads(json.dumps(made.data.state)) == made.data.state


# From examples to tensors


def test_prepared_features_are_those_of_the_task(made: Made) -> None:
    assert [len(split) for split in made.data.splits.values()] == [32, 16, 16]
    direct = made.task.encode(made.examples, made.preprocessing)
    for one, other in zip(made.test.features(range(16)), direct, strict=True):
        same_features(one, other)
    assert len({one.length for one in direct}) > 1 or not made.task.ragged
    assert made.task.ragged or {one.length for one in direct} == {1}


def test_a_batch_is_tensors_with_one_row_for_each_example(made: Made) -> None:
    batch = made.batch([3, 1, 4])
    assert all(isinstance(tensor, torch.Tensor) and len(tensor) == 3 for tensor in batch.values())
    assert "labels" in batch
    again = made.batch([1, 3, 4])
    for name, tensor in batch.items():
        torch.testing.assert_close(tensor[[1, 0, 2]], again[name], rtol=0, atol=0)


def test_examples_without_a_target_become_the_same_inputs(made: Made) -> None:
    examples = made.examples[:4]
    with_target = made.task.collate(made.task.encode(examples, made.preprocessing), made.preprocessing)
    without = made.task.collate(made.task.encode(inputs_only(made.task, examples), made.preprocessing), made.preprocessing)
    assert "labels" not in without
    for name, tensor in without.items():
        torch.testing.assert_close(tensor, with_target[name], rtol=0, atol=0)


# Loss and training


def test_the_loss_is_a_sum_over_units_with_a_graph(made: Made) -> None:
    model, indices = made.fresh(), list(range(8))
    loss, count = made.task.loss(model, made.batch(indices), CrossEntropy())
    assert loss.shape == ()
    assert count == int(made.train.counts[indices].sum()) == sum(one.count for one in made.train.features(indices))
    assert 0 < loss.item() < math.inf
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "DDP waits for every parameter"


def test_an_exact_loss_does_not_depend_on_how_a_batch_is_cut(made: Made) -> None:
    model = made.fresh()
    with torch.no_grad():
        whole = float(made.task.loss(model, made.batch(range(12)), CrossEntropy())[0])
        parts = [float(made.task.loss(model, made.batch(part), CrossEntropy())[0]) for part in (range(5), [5], range(6, 12))]
    if made.task.exact:
        assert sum(parts) == pytest.approx(whole, rel=1e-4)
    else:
        assert abs(sum(parts) - whole) > 1e-4 * whole, "declared inexact, and is exact"


def test_training_lowers_the_loss(made: Made) -> None:
    told = losses(made.fitted)
    assert len(told) == 24
    assert np.mean(told[-4:]) < 0.8 * np.mean(told[:4])


@pytest.mark.timeout(300)
def test_fitting_on_two_ranks_equals_one(tmp_path: Path) -> None:
    """All tasks in one group of processes, which costs more to start than they take.

    By plain descent: Adam turns the rounding errors of gradients that are zero (an attention key's bias) into steps.
    """
    shared = {}
    for name, case in CASES.items():
        recipe = case.recipe(
            tmp_path / name, per_device_train_batch_size=4, num_train_epochs=1, optim="sgd", learning_rate=0.03
        )
        prepare(recipe, load_task(recipe.task), output_dir=recipe.training.output_dir)
        shared[name] = recipe
    zero, one = on_ranks(2, fitted_prepared, list(shared.values()))
    for (name, recipe), (losses_of_zero, tensors, metrics), (_, others, other_metrics) in zip(
        shared.items(), zero, one, strict=True
    ):
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(tensor, others[key], err_msg=f"{name}: {key} differs between ranks")
        assert metrics == other_metrics, f"{name}: both ranks judge alike"
        assert all(map(math.isfinite, losses_of_zero)), name
        alone = recipe.override("training.per_device_train_batch_size=8")
        if CASES[name].cut_freely:
            ((curve, single, judged),) = fitted_prepared(FitContext(), [alone])
            np.testing.assert_allclose(losses_of_zero, curve, atol=5e-5, rtol=1e-4, err_msg=name)
            for key, tensor in single.items():
                np.testing.assert_allclose(tensors[key], tensor, atol=1e-5, rtol=1e-4, err_msg=f"{name}: {key}")
            assert judged["loss"] == pytest.approx(metrics["loss"], rel=1e-3), name


# Answers


def test_what_is_saved_answers_as_what_was_in_memory(made: Made) -> None:
    folder = made.folder / "model"
    save_model(folder, made.fitted.model, made.task, made.preprocessing)
    inputs = inputs_only(made.task, made.examples)
    loaded = Predictor.load(folder, device="cpu")
    assert loaded.preprocessing.state == made.data.state
    close(loaded.predict(inputs), made.predictor.predict(inputs), 1e-6)


def test_a_base_that_answers_in_the_same_terms_is_judged_as_it_is_and_keeps_its_head(made: Made) -> None:
    assert Predictor.load_base(made.recipe, made.task, made.data.state) is None
    folder = made.folder / "base-of-the-next"
    save_model(folder, made.fitted.model, made.task, made.preprocessing)
    further = made.recipe.override(f"model.model_name_or_path={folder}")
    base = Predictor.load_base(further, made.task, made.data.state, device="cpu")
    assert base is not None
    inputs = inputs_only(made.task, made.examples)
    close(base.predict(inputs), made.predictor.predict(inputs), 1e-6)
    built = made.task.build_model(further, made.data.state)
    close(Predictor(made.task, built, made.preprocessing, device="cpu").predict(inputs), made.predictor.predict(inputs), 1e-6)


def test_answers_do_not_depend_on_the_batch(made: Made) -> None:
    inputs = inputs_only(made.task, made.examples)
    together = made.predictor.predict(inputs)
    alone = [made.predictor.predict([one])[0] for one in inputs]
    close(together, alone)
    close(made.predictor.predict(inputs[::-1]), together[::-1])


def test_answers_to_examples_with_a_target_are_the_same_and_plain(made: Made) -> None:
    answers = made.predictor.predict(made.examples)
    close(made.predictor.predict(inputs_only(made.task, made.examples)), answers, 0)
    assert json.loads(json.dumps(answers)) == answers
    assert all(made.case.said in answer for answer in answers)
    assert len({json.dumps(answer) for answer in answers}) == len(answers), "it tells examples apart"


# The verdict


def test_records_have_the_same_keys_and_types_and_survive_parquet(made: Made) -> None:
    assert len({tuple(record) for record in made.records}) == 1
    schemas = [pa.Table.from_pylist([record]).schema for record in made.records]
    assert all(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_list(kind) for kind in schemas[0].types)
    table = pa.Table.from_pylist(made.records, schema=made.table.schema)
    pq.write_table(table, made.folder / "records.parquet")
    read = pq.read_table(made.folder / "records.parquet")
    assert read.equals(table)
    close(dict(made.task.aggregate(read, made.data.state)), dict(made.task.aggregate(made.table, made.data.state)), 0)
    assert all(isinstance(record["correct"], bool) and isinstance(record["loss"], float) for record in made.records)


def test_the_types_of_records_do_not_depend_on_their_values(made: Made) -> None:
    """Whatever the first block of a split holds, the rows of all blocks fit into one file."""
    kinds = {pa.Table.from_pylist([record]).schema for record in made.records}
    known = [kind for kind in kinds if not any(_unknown(field.type) for field in kind)]
    assert len(set(known)) == 1
    for schema in kinds:
        for field in schema:
            if _unknown(field.type):
                assert _text_or_texts(known[0].field(field.name).type), f"{field.name} of an empty record has no type"


def test_metrics_are_finite_and_hold_the_one_that_chooses(made: Made) -> None:
    metrics = made.task.aggregate(made.table, made.data.state)
    assert {made.task.metric, "loss"} <= set(metrics)
    assert math.isfinite(metrics[made.task.metric])
    assert math.isfinite(metrics["loss"])
    assert metrics["loss"] > 0
    assert all(isinstance(value, float) for value in metrics.values())


def test_weights_count_records(made: Made) -> None:
    rng = np.random.default_rng(0)
    state, n = made.data.state, len(made.table)
    plain = made.task.aggregate(made.table, state)
    close(_ratios(made.task.aggregate(made.table, state, np.full(n, 2.0))), _ratios(plain), 1e-9)
    drawn = rng.integers(0, n, n)
    resampled = made.task.aggregate(made.table.take(pa.array(drawn)), state)
    weighted = made.task.aggregate(made.table, state, np.bincount(drawn, minlength=n).astype(np.float64))
    np.testing.assert_allclose(list(weighted.values()), list(resampled.values()), rtol=1e-6, atol=1e-9, equal_nan=True)


def test_every_metric_gets_an_interval(made: Made) -> None:
    sure = bootstrap(lambda weights: made.task.aggregate(made.table, made.data.state, weights), len(made.table), samples=100)
    for name in (made.task.metric, "loss"):
        found = sure.estimate(name, 0.95)
        assert found.low <= found.value <= found.high
        assert found.low < found.high or name != "loss"


def test_a_run_of_it_is_judged_and_shown(made: Made) -> None:
    run = Run.create(made.recipe.override("evaluation.bootstrap_samples=100"), ["tunesmith", "train", "recipe.yaml"])
    try:
        save_model(Path(run.file("model")), made.fitted.model, made.task, made.preprocessing)
        run.update(
            base_model={"name_or_path": "base", "revision": None, "hash": None},
            data={
                name: {"hash": split.hash, "rows": len(split), "source": split.source}
                for name, split in made.data.splits.items()
            },
            split_hash=made.data.manifest["split_hash"],
            steps=24,
            durations={"train": 1.0},
        )
        verdict = evaluate_run(run, prepared=made.data)
        page = write_report(run, verdict)
    finally:
        run.lock().release()
    metric = made.task.metric
    assert (verdict.n, verdict.headline) == (len(made.test), metric)
    assert verdict.metrics[metric].value == pytest.approx(made.task.aggregate(made.table, made.data.state)[metric])
    assert pq.read_table(run.file("predictions.parquet")).num_rows == len(made.test)
    assert verdict.worst
    assert Path(page).stat().st_size > 1000


def test_the_majority_answer_can_be_scored_or_is_none(made: Made) -> None:
    answer = made.task.majority(iter(made.train.examples()), made.data.state)
    if answer is None:
        return
    records = [made.task.score(answer, example, made.data.state) for example in made.examples]
    assert list(records[0]) == list(made.records[0])
    metrics = made.task.aggregate(pa.Table.from_pylist(records), made.data.state)
    assert math.isfinite(metrics[made.task.metric])


def test_charts_are_named_and_have_data(made: Made) -> None:
    for chart in made.task.charts(made.table, made.data.state):
        assert chart.kind
        assert chart.title
        assert chart.data


def test_the_signature_names_its_inputs_and_outputs(made: Made) -> None:
    signature = made.task.signature(made.data.state)
    inputs = [role for role in made.task.columns if role != made.task.target and made.task.columns[role].required]
    assert [spec.name for spec in signature.inputs][: len(inputs)] == inputs
    answer = made.predictor.predict(made.examples[:1])[0]
    for spec in (*signature.inputs, *signature.outputs):
        assert spec.datatype in DATATYPES
        assert spec.shape[0] == -1
        assert all(size == -1 or size > 0 for size in spec.shape)
    for spec in signature.outputs:
        if spec.name in answer:
            assert np.ndim(answer[spec.name]) == len(spec.shape) - 1
    assert made.case.said in [spec.name for spec in signature.outputs]


def _ratios(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics that do not count records."""
    return {k: v for k, v in metrics.items() if not k.startswith(("support/", "predicted/")) and v == v}


def _unknown(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or (pa.types.is_list(kind) and _unknown(kind.value_type)))


def _text_or_texts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and _text_or_texts(kind.value_type)))
