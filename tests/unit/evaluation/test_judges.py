"""Whoever answers for a run forms the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tunesmith.data.prepare import prepare
from tunesmith.errors import TunesmithError
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.judges import Here
from tunesmith.evaluation.results import Evaluation
from tunesmith.runs import Run
from tunesmith.tasks import load_task


@pytest.mark.parametrize("parts", [1, 3, 64])
def test_the_parts_of_a_block_are_the_whole(
    parts: int, text_run: Run, text_evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.evaluation.predictor.TOKENS_PER_BATCH", {"cpu": 64, "cuda": 64})
    task = load_task(text_run.recipe.task)
    split = prepare(text_run.recipe, task, output_dir=text_run.recipe.training.output_dir).splits["train"]
    here, block = Here(text_run), np.arange(5, len(split))
    whole, records = here.part("model", split, block, 0, 1)
    assert sorted(whole.tolist()) == list(range(len(block)))
    by_place = dict(zip(whole.tolist(), records, strict=True))
    found = {}
    for part in range(parts):
        places, some = here.part("model", split, block, part, parts)
        found.update(zip(places.tolist(), some, strict=True))
    assert found == by_place


def test_validation_rows_that_were_asked_for_say_nothing_of_a_test_split(text_run: Run, text_evaluation: Evaluation) -> None:
    said = evaluate_run(text_run, split="validation").warnings[0]
    assert said.startswith("These are the validation rows")


def test_memory_that_runs_out_is_told_with_what_to_do(text_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(text_run.recipe.task)
    split = prepare(text_run.recipe, task, output_dir=text_run.recipe.training.output_dir).splits["train"]
    here = Here(text_run)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore of it")

    here.part("model", split, np.arange(8), 0, 1)
    monkeypatch.setattr(type(here.task), "answers", full)
    with pytest.raises(
        TunesmithError, match=r"out of memory while \d+ examples were judged on cpu \(CUDA out of .* 2 GiB\)\n +→ free"
    ):
        here.part("model", split, np.arange(8), 0, 1)
