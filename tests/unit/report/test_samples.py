"""Samples are chosen as the page says, filtered without a script, and safe to show."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import Split
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.examples import samples
from tunesmith.evaluation.predictions import read_predictions
from tunesmith.evaluation.results import Evaluation, Samples, ShownExample, ShownInput
from tunesmith.report.html import render
from tunesmith.report.samples import section, spans
from tunesmith.runs import Run
from tunesmith.tasks import load_task

Judged = tuple[Run, Evaluation]
EVIL = "</style><script>alert(1)</script>"


def example(name: str, right: Any, said: Any, kind: str = "text", value: Any = "some words") -> ShownExample:
    return ShownExample(name, [ShownInput("text", kind, value)], right, said, right == said, 0.5, 0.75)


def evaluation(*shown: ShownExample) -> Evaluation:
    found = Samples(list(shown), len(shown), sum(not one.correct for one in shown))
    return Evaluation("run", "a task", "test", 10, "accuracy", {}, samples=found)


def own_split(run: Run) -> Split:
    task = load_task(run.recipe.task)
    return prepare(run.recipe, task, output_dir=run.recipe.training.output_dir).splits["test"]


@pytest.mark.parametrize("column", ["confidence", "loss"])
def test_the_wrong_ones_come_first_and_the_surest_of_them_before_all(judged: Judged, column: str) -> None:
    run, _ = judged
    split = own_split(run)
    n = len(split)
    rng = np.random.default_rng(0)
    right, value = rng.random(n) < 0.4, rng.permutation(n) / n
    columns = {"id": split.ids, "correct": pa.array(right), "reference": ["a"] * n, "prediction": ["b"] * n}
    columns |= {"loss": pa.array(value if column == "loss" else np.ones(n))}
    columns |= {"confidence": pa.array(value)} if column == "confidence" else {}
    found = samples(pa.table(columns), split, load_task(run.recipe.task), 16)
    ids = split.ids.to_pylist()
    places = [ids.index(one.id) for one in found.shown]
    assert (found.n, found.wrong, len(found.shown)) == (n, int((~right).sum()), 16)
    assert [one.correct for one in found.shown] == [False] * 12 + [True] * 4, "a quarter are right"
    of_wrong, of_right = np.flatnonzero(~right), np.flatnonzero(right)
    assert places[:12] == of_wrong[np.argsort(-value[of_wrong])][:12].tolist()
    least_sure = value[of_right] if column == "confidence" else -value[of_right]
    assert places[12:] == of_right[np.argsort(least_sure)][:4].tolist()


def test_they_are_as_many_as_asked_for_and_not_in_the_file(judged: Judged) -> None:
    run, found = judged
    table = read_predictions(run.file("predictions.parquet"))
    assert len(found.samples.shown) == len(table)
    assert {one.id for one in found.samples.shown} == set(table["id"].to_pylist())
    assert "samples" not in found.to_json()["test"]
    assert 'id="samples"' in render(run, found)
    none = evaluate_run(run, split="validation", settings=run.recipe.evaluation.model_copy(update={"max_samples": 0}))
    assert not none.samples.shown
    assert 'id="samples"' not in render(run, none)


def test_they_are_filtered_without_a_script_and_data_cannot_become_markup(judged: Judged) -> None:
    shown = [example("1", EVIL, "cat", value=EVIL), example("2", "cat", "cat"), example("3", EVIL, EVIL)]
    page = render(judged[0], dataclasses.replace(judged[1], samples=evaluation(*shown).samples))
    assert "<script" not in page
    assert "#s-w:checked ~ .samples .s:not(.w) { display: none; }" in page
    assert "#r-r1:checked ~ .samples .s:not(.r1) { display: none; }" in page
    assert 'class="s w r0"' in page
    assert '<label for="s-w">wrong 1</label>' in page


def test_what_has_no_classes_is_not_filtered_by_them() -> None:
    texts = [example(str(k), f"a sentence of its own {k}", "another") for k in range(60)]
    found = section(evaluation(*texts))
    assert found is not None
    assert "every right answer" not in found.html
    boxes = section(evaluation(example("1", [{"box": 1}], [{"box": 2}]), example("2", None, None)))
    assert boxes is not None


def test_several_labels_and_entities_are_filtered_by_each() -> None:
    found = section(evaluation(example("1", ["b", "a"], ["a"]), example("2", ["b"], ["b"])))
    assert found is not None
    assert 'class="s w r0 r1"' in found.html
    assert 'class="s g r1"' in found.html
    tagged = example("1", ["B-PER", "O"], ["B-LOC", "O"], "strings", ["Ada", "<b>"])
    found = section(evaluation(tagged, example("2", ["B-LOC"], ["B-LOC"], "strings", ["Rome"])))
    assert found is not None
    assert '<span class="e wrong">Ada<i>LOC, not PER</i></span>' in found.html
    assert '<label for="r-r0">LOC</label><label for="r-r1">PER</label>' in found.html
    assert "&lt;b&gt;" in found.html


def test_entities_of_one_type_side_by_side_stay_two() -> None:
    words, right = ["Ada", "Lovelace", "Ben"], ["B-PER", "I-PER", "B-PER"]
    assert [(one.words, one.kind) for one in spans(words, right, right)] == [("Ada Lovelace", "hit"), ("Ben", "hit")]
    said = ["B-PER", "I-PER", "I-PER"]
    assert [one.said for one in spans(words, right, said)] == ["PER", "I-PER, not B-PER"], "where an entity begins counts"
    assert [one.kind for one in spans(words, right, ["O", "O"])] == ["miss", "miss"], "a sentence that was cut"
    assert [one.said for one in spans(["a"], ["NN"], ["VB"])] == ["VB, not NN"], "tags that name no entities"
