"""What every task makes of its answers: records, metrics with intervals, a report, and the signature that is served."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.conformance import Made, close
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.statistics import bootstrap
from tunesmith.report.html import write_report
from tunesmith.runs import Run
from tunesmith.training.checkpoint import save_model

pytestmark = pytest.mark.unit

DATATYPES = {"BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"}


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
    charts = made.task.charts(made.table, made.data.state)
    assert charts or not made.case.shipped
    for chart in charts:
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
