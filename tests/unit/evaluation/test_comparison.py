"""Two models are paired by example, and refused where their examples are not the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from tunesmith.errors import DataError, RunError, UserError
from tunesmith.evaluation.comparison import compare_sides, together
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import Evaluation
from tunesmith.evaluation.sides import Side, open_evaluation, open_side
from tunesmith.runs import Run
from tunesmith.tasks import load_task

LABELS = ["a", "b"]


def side(name: str, right: list[bool], ids: list[str] | None = None, said: list[str] | None = None) -> Side:
    """A classifier of two classes that is right where it is said to be, 90 % sure of all."""
    n = len(right)
    reference = [LABELS[k % 2] for k in range(n)]
    answer = said or [one if ok else LABELS[1 - LABELS.index(one)] for one, ok in zip(reference, right, strict=True)]
    table = pa.table(
        {
            "id": ids or [f"x{k}" for k in range(n)],
            "reference": reference,
            "prediction": answer,
            "correct": right,
            "confidence": [0.9] * n,
            "loss": [0.1 if ok else 2.3 for ok in right],
            "probabilities": [[0.9, 0.1] if one == "a" else [0.1, 0.9] for one in answer],
        }
    )
    return Side(name, "", table, task=load_task("text-classification"), state={"labels": LABELS})


def test_the_flip_table_counts_every_example_once() -> None:
    found = compare_sides(side("A", [True, True, False, False, True]), side("B", [True, False, True, False, True]))
    flips = found.flips
    assert (flips.both_right, flips.fixed, flips.broken, flips.both_wrong, flips.churn) == (2, 1, 1, 1, 2)
    assert [(one.kind, one.id, one.a, one.b) for one in found.examples] == [
        ("broken", "x2", "b", "a"),
        ("fixed", "x1", "b", "a"),
    ]


def test_examples_are_paired_by_their_id_and_not_by_their_place() -> None:
    right = [k % 3 > 0 for k in range(40)]
    b = side("B", right)
    order = np.random.default_rng(0).permutation(40)
    shuffled = dataclasses.replace(b, records=b.records.take(pa.array(order)))
    found = compare_sides(side("A", right), shuffled)
    assert found.flips.churn == 0
    assert found.measures["accuracy"].difference.value == 0


def test_many_fixed_and_few_broken_is_better_and_the_other_way_round_worse() -> None:
    one, other = side("A", [k >= 10 for k in range(200)]), side("B", [10 <= k < 160 or k < 5 for k in range(200)])
    assert compare_sides(one, other).verdict == "better"
    assert compare_sides(other, one).verdict == "worse"
    found = compare_sides(one, other).measures["accuracy"]
    assert found.p == pytest.approx(stats.binomtest(40, 45).pvalue)
    assert found.needed is None


def test_an_open_question_names_how_many_examples_would_settle_it() -> None:
    found = compare_sides(side("A", [k >= 12 for k in range(100)]), side("B", [not 8 <= k < 24 for k in range(100)]))
    one = found.measures["accuracy"]
    assert found.verdict == one.verdict == "inconclusive"
    assert one.needed is not None
    assert one.needed > 100


def test_the_same_answers_are_equivalent_only_where_so_many_examples_can_tell() -> None:
    many, few = ([k % 10 > 0 for k in range(n)] for n in (3000, 50))
    assert compare_sides(side("A", many), side("B", many)).verdict == "equivalent"
    assert compare_sides(side("A", few), side("B", few), margin=0.001).measures["accuracy"].difference.value == 0


def test_other_examples_are_refused_with_how_many_are_shared() -> None:
    with pytest.raises(DataError, match=r"(?s)different examples.*2 of the examples are in both.*tunesmith evaluate"):
        compare_sides(side("A", [True] * 3, ["x", "y", "z"]), side("B", [True] * 3, ["y", "z", "w"]))


def test_other_right_answers_are_refused() -> None:
    b = side("B", [True] * 4)
    b = dataclasses.replace(b, records=b.records.set_column(1, "reference", pa.array(["b"] * 4)))
    with pytest.raises(DataError, match="2 of 4 differ, first that of x0"):
        compare_sides(side("A", [True] * 4), b)


def test_an_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(DataError, match="'x' stands twice"):
        compare_sides(side("A", [True] * 2, ["x", "x"]), side("B", [True] * 2, ["x", "y"]))


def test_an_unknown_metric_is_answered_with_the_nearest_and_a_margin_below_0_refused() -> None:
    a = side("A", [True, False])
    with pytest.raises(UserError, match="Did you mean accuracy"):
        compare_sides(a, a, ["acuracy"])
    with pytest.raises(UserError, match="below 0"):
        compare_sides(a, a, margin=-0.1)


def test_predictions_of_which_nobody_knows_the_labels_are_compared_by_accuracy_and_loss() -> None:
    a, b = (dataclasses.replace(side(name, [True, False] * 20), task=None, state=None) for name in "AB")
    found = compare_sides(a, b)
    assert set(found.measures) == {"accuracy", "loss"}
    assert "only accuracy and loss" in found.warnings[0]


def test_of_several_metrics_the_worst_verdict_counts() -> None:
    assert together(["better", "better"]) == "better"
    assert together(["equivalent", "equivalent"]) == "equivalent"
    assert together(["better", "inconclusive", "worse"]) == "worse"


def test_a_run_is_opened_with_its_verdict_and_compared_by_slices(text_run: Run, text_evaluation: Evaluation) -> None:
    own = open_side(text_run.path)
    found = compare_sides(own, own, margin=0.05)
    assert found.metrics == [text_evaluation.headline]
    assert found.n == text_evaluation.n
    assert set(found.slices) == {"scanner"}
    assert found.data_hash == text_evaluation.data_hash
    assert found.measures["accuracy"].a == text_evaluation.metrics["accuracy"]


def test_an_evaluations_folder_and_a_file_are_opened_too(text_run: Run, text_evaluation: Evaluation) -> None:
    found = evaluate_run(text_run, split="validation")
    side = open_evaluation(found.folder)
    assert side.name == f"{text_run.name}/validation"
    assert side.evaluation is not None
    assert side.evaluation.split == "validation"
    assert open_side(text_run.file("predictions.parquet")).evaluation == open_side(text_run.path).evaluation
    with pytest.raises(DataError, match="different examples"):
        compare_sides(open_side(text_run.path), side)


def test_a_place_that_is_nothing_is_refused(text_run: Run, tmp_path: object) -> None:
    with pytest.raises(UserError, match="Judge it first"):
        open_side("http://127.0.0.1:8000/v2/models/x")
    with pytest.raises(DataError, match="there is no file"):
        open_side(f"{tmp_path}/gone.parquet")
    with pytest.raises(RunError):
        open_side(f"{tmp_path}/gone")


def test_of_a_rare_class_p_is_mcnemars_within_it() -> None:
    """Four examples of a class, all fixed: the resamples do not spread, and 4 of 4 have p = 2 / 2⁴."""
    right = [True] * 60
    one = side("A", right)
    said = [*LABELS * 28, "c", "c", "c", "c"]
    rare = one.records.set_column(1, "reference", pa.array(said)).set_column(2, "prediction", pa.array(said))
    chances = [[float(label == name) for name in "abc"] for label in said]
    rare = rare.set_column(6, "probabilities", pa.array(chances))
    mistaken = rare.set_column(2, "prediction", pa.array([*said[:56], *"abab"]))
    mistaken = mistaken.set_column(3, "correct", pa.array([True] * 56 + [False] * 4))
    mistaken = mistaken.set_column(6, "probabilities", pa.array([*chances[:56], *([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] * 2)]))
    a, b = (dataclasses.replace(one, records=table, state={"labels": ["a", "b", "c"]}) for table in (rare, mistaken))
    found = compare_sides(a, b).measures["recall/c"]
    assert found.difference.value == 1
    assert found.p == pytest.approx(0.125)


def test_a_notebook_shows_the_verdict_and_the_difference_with_its_interval() -> None:
    found = compare_sides(side("<new>", [True] * 40), side("old", [True] * 20 + [False] * 20), ["accuracy"])
    shown = dataclasses.replace(found, folder="runs/x")._repr_html_()
    assert f"<b>&lt;new&gt; against old: {found.verdict}, n = 40</b>" in shown
    assert "<th>&lt;new&gt;</th><th>old</th><th>Difference</th><th>Verdict</th>" in shown
    one = found.measures["accuracy"].difference
    assert "<td>accuracy</td><td>1.0000" in shown
    assert f"<td>{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]</td><td>{found.verdict}</td>" in shown
    assert shown.endswith("<p>Page: runs/x/comparison.html</p>")
    assert "Page" not in found._repr_html_(), "none was written"
