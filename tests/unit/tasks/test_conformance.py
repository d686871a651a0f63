"""What every task must make of its data, whatever it is about: the shipped ones, and two only these tests have (boxes, speech).

The data comes from files through the data wing, the model is fitted by the loop, and answers come from the predictor: a task
that passes here works everywhere.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from support.conformance import Made, inputs_only
from tunesmith.data.prepare import prepare
from tunesmith.errors import DataError
from tunesmith.tasks.base import Features

pytestmark = pytest.mark.unit


def same_features(one: Features, other: Features) -> None:
    assert (one.length, one.count, list(one.values)) == (other.length, other.count, list(other.values))
    for name, value in one.values.items():
        np.testing.assert_array_equal(value, other.values[name], err_msg=name)


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
