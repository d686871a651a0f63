"""What is kept of a search can be read by anyone, and counts updates once."""

from __future__ import annotations

import io

import pyarrow.parquet as pq

from tunesmith.tuning.record import _row, history, steps_done, table
from tunesmith.tuning.trials import Report, Trial

TRIALS = [
    Trial(0, {"training.learning_rate": 1e-3, "data.augment": [{"name": "hflip"}]}, "recipe", "done",
          (Report(5, -0.5, metrics={"loss": 0.5}), Report(10, -0.7, metrics={"loss": 0.7})), steps=10),
    Trial(1, {"training.learning_rate": 1}, status="failed", error="no"),
    Trial(2, {"training.learning_rate": 2e-3}, status="done", reports=(Report(15, -0.2),), steps=20, parent=0),
]  # fmt: skip


def test_the_table_has_a_row_for_each_trial_and_the_metric_as_it_is() -> None:
    found = pq.read_table(io.BytesIO(table(TRIALS, "loss", -1))).to_pydict()
    assert found["best_loss"] == [0.5, None, 0.2]
    assert found["best_step"] == [5, None, 15]
    assert found["training.learning_rate"] == [1e-3, 1.0, 2e-3]
    assert found["data.augment"][0] == '[{"name": "hflip"}]'
    assert found["metrics.loss"] == [0.5, None, None]
    assert found["error"] == [None, "no", None]


def test_a_stretch_counts_from_where_its_parent_had_ended() -> None:
    assert steps_done(TRIALS) == 10 + 0 + 5


def test_of_curves_that_were_told_twice_the_last_counts() -> None:
    lines = [
        {"split": "train", "step": 5, "loss": 1.0},
        {"split": "validation", "step": 5},
        {"split": "train", "step": 5, "loss": 2.0},
    ]
    assert history(lines) == [{"split": "train", "step": 5, "loss": 2.0}, {"split": "validation", "step": 5}]


def test_a_row_has_every_further_objective_metrics_too() -> None:
    reports = (Report(5, 0.5, metrics={"f1_macro": 0.4}), Report(10, 0.7, metrics={"f1_macro": 0.6}))
    trial = Trial(0, {}, reports=reports, objectives={"latency_ms": 3.0})
    assert _row(trial, 1, ["f1_macro", "latency_ms", "size_mb"])["objectives"] == {"f1_macro": 0.6, "latency_ms": 3.0}
