"""A reply that is wrong in any way is refused with a reason that says what it was."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.tasks import load_task
from tunesmith_federated.checks import check_described, check_reply, norm, too_long
from tunesmith_federated.protocol import Ask, Reply

pytestmark = pytest.mark.unit

ASK = Ask(kind="train", job="j1", round=4, rounds=9, recipe="", fingerprint="")
REPLY = Reply(site="lyon", kind="train", job="j1", round=4, examples=20, steps=3, loss=0.5)
EXPECTED = {f"layer.{k}": torch.zeros(2, 3) for k in range(5)}
UPDATE = {name: torch.full((2, 3), 0.1) for name in EXPECTED}
TASK = load_task("text-classification")
NAN, INF = float("nan"), float("inf")


def said(update: Any = UPDATE, extras: Any = None, wanted: Any = None, **changes: Any) -> str | None:
    return check_reply(dataclasses.replace(REPLY, **changes), update, extras or {}, EXPECTED, ASK, wanted)


def test_a_sound_reply_counts_in_each_dtype_that_travels() -> None:
    assert said() is None
    assert said({name: tensor.bfloat16() for name, tensor in UPDATE.items()}) is None
    assert said(extras={"layer.1": torch.ones(2, 3)}) is None
    assert said(extras={"c": torch.ones(1)}, wanted={"c": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"job": "j0"}, "it answers job 'j0', and 'j1' was asked"),
        ({"round": 3}, "it answers round 3, and 4 was asked"),
        ({"round": True}, "it answers round True"),
        ({"kind": "evaluate"}, "it answers kind 'evaluate'"),
        ({"protocol": 99, "tunesmith": "9.9"}, "it speaks protocol 99, and this server 1: its Tunesmith is 9.9"),
        ({"examples": 0}, "its examples are 0"),
        ({"examples": -5}, "its examples are -5"),
        ({"examples": 2.5}, "its examples are 2.5, not a whole number"),
        ({"examples": True}, "its examples are True, not"),
        ({"examples": "20"}, "its examples are '20', not"),
        ({"examples": 2**60}, "its examples are 1152921504606846976"),
        ({"steps": 0}, "its steps are 0"),
        ({"loss": NAN}, "its training loss is nan"),
        ({"seconds": NAN}, "it took nan s"),
        ({"sent_bytes": -1}, "sent -1 bytes"),
        ({"sent_bytes": 2**53}, "sent 9007199254740992 bytes"),
        ({"loss": -1e200}, "its training loss is -1e+200"),
        ({"loss": "low"}, "its training loss is low"),
        ({"sums": {"n": 0}}, "its sums cannot be: there is no kind None"),
    ],
)
def test_words_that_do_not_fit_are_named(changes: dict[str, Any], reason: str) -> None:
    found = said(**changes)
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({}, "lacks 5 tensors (layer.0, layer.1, layer.2, …) of 5"),
        ({name: UPDATE[name] for name in list(UPDATE)[1:]}, "lacks 1 tensor (layer.0) of 5"),
        ({**UPDATE, "extra": torch.zeros(1)}, "has 1 tensor (extra) that nobody asked for"),
        ({**UPDATE, "layer.3": torch.zeros(3, 2)}, "layer.3 of its update is [3, 2], and should be [2, 3]"),
        ({**UPDATE, "layer.3": torch.zeros(2, 3, dtype=torch.int64)}, "layer.3 of its update is int64"),
        ({**UPDATE, "layer.3": torch.zeros(2, 3, dtype=torch.complex64)}, "layer.3 of its update is complex64"),
        ({**UPDATE, "layer.2": torch.tensor([[NAN, 0, 0], [0, INF, 0]])}, "layer.2 of its update has 2 of 6 numbers"),
        ({**UPDATE, "layer.2": torch.full((2, 3), -INF)}, "has 6 of 6 numbers that are infinite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(update: Any, reason: str) -> None:
    found = said(update)
    assert found is not None
    assert reason in found


def test_extras_are_held_to_what_was_asked_for() -> None:
    assert "that nobody asked for" in str(said(extras={"c": torch.ones(1)}))
    assert "its extras lacks 1 tensor (c) of 1" in str(said(wanted={"c": torch.zeros(1)}))
    assert "numbers that are NaN" in str(said(extras={"layer.1": torch.full((2, 3), NAN)}))
    assert "should be [2, 3]" in str(said(extras={"layer.1": torch.zeros(7)}))


def test_a_judgement_brings_no_update() -> None:
    ask = dataclasses.replace(ASK, kind="evaluate")
    reply = Reply(site="lyon", kind="evaluate", job="j1", round=4)
    assert check_reply(reply, {}, {}, EXPECTED, ask) is None
    assert "nobody asked for" in str(check_reply(reply, UPDATE, {}, EXPECTED, ask))
    assert "nobody asked for" in str(check_reply(reply, {}, UPDATE, EXPECTED, ask))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"examples": "20"}, "examples: Input should be a valid integer"),
        ({"examples": 2.5}, "examples: Input should be a valid integer"),
        ({"site": None}, "site: Input should be a valid string"),
        ({"refused": ["x"]}, "refused: Input should be a valid string"),
        ({"sums": [1]}, "sums: Input should be an object"),
        ({"seconds": {}}, "seconds: Input should be a valid number"),
        ({"kind": "steal"}, "kind: Input should be 'describe', 'train' or 'evaluate'"),
        ({"rows": 3}, "rows"),
    ],
)
def test_words_of_another_type_are_not_read(change: dict[str, Any], said: str) -> None:
    assert Reply.from_json(REPLY.to_json()) == REPLY
    assert math.isnan(Reply.from_json(dataclasses.replace(REPLY, loss=NAN).to_json()).loss or 0)
    assert Ask.from_json(ASK.to_json()) == ASK
    with pytest.raises(ValueError, match=f"not a Reply: .*{said}"):
        Reply.from_json(json.dumps({**json.loads(REPLY.to_json()), **change}))


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        ({"train": 5, "holdout": 1, "stats": {"labels": {"a": 3}, "multi_label": False, "rows": 3}}, None),
        ({"train": "many", "stats": {}}, "it says that it has 'many' rows (train)"),
        ({"holdout": -1, "stats": {}}, "it says that it has -1 rows (holdout)"),
        ({"train": 5}, "its statistics cannot be read: KeyError: 'stats'"),
        ({"train": 5, "stats": [1]}, "its statistics cannot be read"),
        ({"train": 5, "stats": {"labels": 7}}, "its statistics cannot be read"),
        ({"train": 5, "stats": {"labels": "flu"}}, "its statistics cannot be read"),
        ({"train": 5, "stats": {"labels": {"flu": "40"}}}, "it says that it has '40' of 'flu'"),
        ({"train": 5, "stats": {"labels": {"flu": -1}}}, "it says that it has -1 of 'flu'"),
        ({"train": 5, "stats": {"labels": {"flu": True}}}, "it says that it has True of 'flu'"),
    ],
)
def test_what_a_site_says_that_it_holds_can_be_merged(statistics: dict[str, Any], said: str | None) -> None:
    found = check_described(Reply(site="lyon", kind="describe", job="j", round=0, statistics=statistics), TASK)
    assert found is None if said is None else said in str(found)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({f"class {k}": 3 for k in range(25_001)}, "it says that it has 25,001 classes, and a site has 25,000 at most"),
        ({"x" * 1001: 3}, "the name of a class has 1,001 letters, and may have 1,000"),
        ({"x": "many" * 1000}, "it says that it has 'many"),
    ],
)
def test_what_a_site_says_that_it_holds_ends_somewhere_and_simulated_sites_are_not_bound(labels: Any, said: str) -> None:
    stats = {"labels": labels, "multi_label": False, "rows": 3}
    reply = Reply(site="lyon", kind="describe", job="j", round=0, statistics={"train": 5, "holdout": 1, "stats": stats})
    found = str(check_described(reply, TASK))
    assert said in found
    assert len(found) <= 500
    assert (check_described(reply, TASK, most=None) is None) is all(isinstance(count, int) for count in labels.values())


def test_the_length_is_numpys() -> None:
    arrays = [np.random.default_rng(k).normal(size=(50, 7)).astype(np.float32) for k in range(3)]
    found = norm({str(k): torch.from_numpy(array) for k, array in enumerate(arrays)})
    assert found == pytest.approx(float(np.linalg.norm(np.concatenate(arrays).astype(np.float64))), rel=1e-12)
    assert norm({}) == 0.0
    assert math.isfinite(norm({"w": torch.full((4,), 3e38)}))


def test_the_odd_one_out_is_found_against_the_median() -> None:
    usual = {f"s{k}": 1.0 + 0.1 * k for k in range(5)}
    assert too_long(usual, 10) == {}
    found = too_long({**usual, "x": 120.0}, 10)
    assert list(found) == ["x"]
    assert "96 times the median of the 6 sites (1.25)" in found["x"]
    assert too_long({**usual, "x": 120.0}, None) == {}
    assert too_long({"a": 0.0, "b": 0.0, "c": 5.0}, 10) == {}
    assert too_long({"a": 1.0, "b": 100.0}, 10) == {}
    assert too_long({}, 10) == {}
