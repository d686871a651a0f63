"""The predictor: every example answered once, in order, whatever the batches."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cases import CASES
from support.data import MemorySplit, texts
from support.models import tiny_fnet
from support.saved import saved
from tunesmith.errors import DataError, ModelError
from tunesmith.evaluation.predictor import Predictor, batches_by_length, batches_by_tokens, batches_of_one_length, to_device

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, str]:
    return saved(CASES["text"], tmp_path_factory.mktemp("text"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 900), max_size=80), st.integers(1, 1000), st.integers(1, 20), st.integers(1, 100))
def test_batches_hold_every_example_once_within_the_budget(lengths: list[int], budget: int, most: int, beside: int) -> None:
    made = batches_by_length(np.array(lengths, dtype=np.int32), budget, most, beside)
    assert sorted(int(i) for batch in made for i in batch) == list(range(len(lengths)))
    longest = [max(lengths[i] for i in batch) for batch in made]
    assert longest == sorted(longest, reverse=True)
    for batch, length in zip(made, longest, strict=True):
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or len(batch) * length <= budget


@given(st.lists(st.integers(0, 60), min_size=1, max_size=7), st.integers(1, 200), st.integers(1, 7), st.integers(1, 50))
def test_no_other_way_to_cut_the_sorted_examples_costs_less(lengths: list[int], budget: int, most: int, beside: int) -> None:
    ordered = sorted(lengths, reverse=True)
    ways = []
    for cuts in itertools.product([False, True], repeat=len(ordered) - 1):
        places = [0, *(place + 1 for place, cut in enumerate(cuts) if cut), len(ordered)]
        batches = [ordered[a:b] for a, b in itertools.pairwise(places)]
        if all(len(one) == 1 or (len(one) <= most and len(one) * one[0] <= budget) for one in batches):
            ways.append(sum(beside + len(one) * one[0] for one in batches))

    made = batches_by_length(np.array(lengths, dtype=np.int32), budget, most, beside)

    assert sum(beside + len(batch) * max(lengths[i] for i in batch) for batch in made) == min(ways)


@given(st.lists(st.integers(0, 900), max_size=80), st.integers(1, 1000), st.integers(1, 20))
def test_batches_without_padding_are_full(lengths: list[int], budget: int, most: int) -> None:
    made = batches_by_tokens(np.array(lengths, dtype=np.int32), budget, most)
    assert sorted(int(i) for batch in made for i in batch) == list(range(len(lengths)))
    assert [lengths[i] for batch in made for i in batch] == sorted(lengths, reverse=True)
    sums = [sum(lengths[i] for i in batch) for batch in made]
    for batch, tokens, following in itertools.zip_longest(made, sums, made[1:]):
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or tokens <= budget
        assert following is None or len(batch) == most or tokens + lengths[following[0]] > budget


@given(st.lists(st.integers(0, 900), max_size=80), st.integers(1, 1000), st.integers(1, 20))
def test_batches_of_one_length_hold_every_example_once_within_the_budget(lengths: list[int], budget: int, most: int) -> None:
    made = batches_of_one_length(np.array(lengths, dtype=np.int32), budget, most)
    assert sorted(int(i) for batch in made for i in batch) == list(range(len(lengths)))
    assert [lengths[i] for batch in made for i in batch] == sorted(lengths, reverse=True)
    for batch in made:
        (length,) = {lengths[i] for i in batch}
        assert len(batch) == 1 or (len(batch) <= most and len(batch) * length <= budget)


def test_a_model_that_reads_its_padding_answers_alone_as_in_a_batch(tmp_path: Path) -> None:
    _, folder = saved(dataclasses.replace(CASES["text"], base=tiny_fnet), tmp_path)
    predictor, rows = Predictor.load(folder, device="cpu"), texts(60)

    together = predictor.predict(rows)

    assert not predictor.padding_is_harmless
    for row, answer in zip(rows, together, strict=True):
        assert predictor.predict([row])[0]["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_whether_padding_is_harmless_is_tried_once_in_float32_and_of_each_model_anew(made: tuple[Predictor, str]) -> None:
    quick = Predictor.load(made[1], device="cpu", dtype=torch.bfloat16)
    assert quick.padding_is_harmless, "bfloat16 rounds more than padding changes"
    passes: list[int] = []
    quick.model.register_forward_pre_hook(lambda *_: passes.append(1))
    assert quick.padding_is_harmless
    assert not passes
    assert quick.with_model(quick.model).padding_is_harmless
    assert len(passes) == 2


def test_answers_are_in_the_order_of_the_examples(made: tuple[Predictor, str]) -> None:
    predictor, _ = made
    rows = texts(90, longest=40)
    answers = predictor.predict(rows)
    order = np.random.default_rng(0).permutation(90)
    shuffled = predictor.predict([rows[i] for i in order])
    for place, index in enumerate(order):
        assert shuffled[place]["label"] == answers[index]["label"]
        assert shuffled[place]["probabilities"] == pytest.approx(answers[index]["probabilities"], abs=1e-5)


def test_a_bare_value_is_that_of_the_first_role(made: tuple[Predictor, str]) -> None:
    predictor, _ = made
    assert predictor.predict(["word1 word2"]) == predictor.predict([{"text": "word1 word2"}])
    assert predictor.predict([]) == []


def test_the_target_is_not_looked_at(made: tuple[Predictor, str]) -> None:
    predictor, _ = made
    plain = predictor.predict([{"text": "word1"}])
    assert predictor.predict([{"text": "word1", "label": None}]) == plain
    assert predictor.predict([{"text": "word1", "label": "never seen"}]) == plain


def test_an_example_that_cannot_be_used_is_counted_from_zero(made: tuple[Predictor, str]) -> None:
    with pytest.raises(DataError, match=r"^example 2: text is empty$"):
        made[0].predict(["word1", "word2", " "])
    with pytest.raises(DataError, match=r"^example 0: text is missing$"):
        made[0].predict([{"txet": "word1"}])


def test_a_split_is_answered_batch_by_batch(made: tuple[Predictor, str]) -> None:
    predictor, _ = made
    rows = texts(50)
    split = MemorySplit(predictor.task, rows, predictor.preprocessing)
    found: dict[int, dict[str, Any]] = {}
    for indices, answers in predictor.predict_split(split):
        assert len(indices) == len(answers)
        found.update(zip(indices.tolist(), answers, strict=True))
    for index, answer in enumerate(predictor.predict(rows)):
        assert found[index]["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
    some = [np.array([3, 1]), np.array([7])]
    assert [indices.tolist() for indices, _ in predictor.predict_split(split, some)] == [[3, 1], [7]]


def test_it_answers_in_evaluation_mode_and_without_gradients(made: tuple[Predictor, str]) -> None:
    predictor, _ = made
    predictor.model.train()
    again = Predictor(predictor.task, predictor.model, predictor.preprocessing, device="cpu")
    assert not again.model.training
    again.predict(["word1"])
    assert all(parameter.grad is None for parameter in again.model.parameters())


def test_bfloat16_is_near(made: tuple[Predictor, str]) -> None:
    predictor, folder = made
    rows = texts(30)
    quick = Predictor.load(folder, device="cpu", dtype=torch.bfloat16)
    exact = [answer["probabilities"] for answer in predictor.predict(rows)]
    near = [answer["probabilities"] for answer in quick.predict(rows)]
    np.testing.assert_allclose(near, exact, atol=0.05)
    assert near != exact


def test_a_folder_that_is_no_artefact_is_refused(made: tuple[Predictor, str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tunesmith.json there"):
        Predictor.load(tmp_path)
    artefact = Path(made[1], "tunesmith.json").read_text()
    (tmp_path / "tunesmith.json").write_text(artefact)
    with pytest.raises(ModelError, match=r"no config.json|cannot load"):
        Predictor.load(tmp_path)


def test_a_batch_goes_to_the_device_as_a_whole() -> None:
    moved = to_device({"a": torch.zeros(2), "names": ["x"]}, torch.device("meta"))
    assert moved["a"].device.type == "meta"
    assert moved["names"] == ["x"]
