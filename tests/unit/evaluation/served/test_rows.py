"""What our own service writes of any answers, a client of the protocol reads as those answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith.evaluation.target_file import OutputTensor
from tunesmith.evaluation.v2_answers import Reading
from tunesmith.tasks import load_task
from tunesmith.tasks.base import State
from tunesmith_serving import v2
from tunesmith_serving.describe import describe

pytestmark = pytest.mark.unit


def read_back(task_name: str, state: State, answers: list[dict[str, Any]], without: set[str] = frozenset()) -> list[Any]:
    """Through the tensors in JSON; ``without`` these."""
    task = load_task(task_name)
    about = describe(task, state, "m", "1")
    asked = v2.Asked("1", [{}] * len(answers), {spec.name: False for spec in about.outputs if spec.name not in without})
    body, _ = v2.write(asked, answers, about, "1")
    reading = Reading(task, state, {name: OutputTensor(name=name) for name in asked.outputs})
    return reading.answers(json.loads(body)["outputs"], len(answers))


@pytest.mark.parametrize("without", [set(), {"num_labels"}])
@pytest.mark.parametrize("said", [[["long"], ["low"]], [["long"], []], [[], []], [["long", "low"], ["low"]]])
def test_texts_of_one_label_at_most_are_lists_of_labels(said: list[list[str]], without: set[str]) -> None:
    state = {"labels": ["long", "low"], "multi_label": True, "pairs": False}
    answers = [
        {"labels": names, "probabilities": [0.75 if label in names else 0.25 for label in state["labels"]]} for names in said
    ]
    assert read_back("text-classification", state, answers, without) == answers


@pytest.mark.parametrize("without", [set(), {"num_tags"}])
@pytest.mark.parametrize("said", [[["O"], ["B-X"]], [["O", "B-X"], ["O"]]])
def test_sentences_of_one_word_are_lists_of_tags(said: list[list[str]], without: set[str]) -> None:
    answers = [{"tags": tags, "scores": [0.5] * len(tags)} for tags in said]
    read = read_back("token-classification", {"labels": ["B-X", "O"]}, answers, without)
    assert [one["tags"] for one in read] == said
