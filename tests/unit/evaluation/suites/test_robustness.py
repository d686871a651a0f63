"""Robustness finds what a model with a known weakness loses, and nothing where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from support.bench import Ruled, bench
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.statistics import wilson
from tunesmith.evaluation.suites.robustness import robustness
from tunesmith.tasks.base import Example

TEXTS = [f"a {'good' if k % 2 else 'bad'} film number {k} and more words here" for k in range(60)]
ROWS = [{"text": text, "label": "pos" if "good" in text else "neg"} for text in TEXTS]


def by_word(example: Example) -> str:
    """Knows a word as it is written, and nothing else."""
    return "pos" if "good" in example["text"] else "neg"


def run(rule: object = by_word, **settings: object) -> tuple[SuiteResult, Ruled]:
    target = Ruled(rule, ["neg", "pos"])  # type: ignore[arg-type]
    return robustness(bench(target, ROWS, robustness=settings)), target


def test_a_model_that_is_not_moved_loses_nothing() -> None:
    found, _ = run(
        lambda example: "pos" if int("".join(c for c in example["text"] if c.isdigit())) % 2 else "neg", kinds=["case"]
    )
    most = wilson(0.0, found.n)[1]
    assert found.measures["drop"].value == 0
    assert found.measures["drop"].low < 0 < found.measures["drop"].high, "no answer of so few flipped; others may"
    assert (found.measures["drop"].low, found.measures["drop"].high) == pytest.approx((-most, most), abs=0.01)
    assert found.measures["worst_case"].value == 1


def test_the_drop_is_that_of_the_words_that_are_hit() -> None:
    """Of ``good`` in capitals nothing is known: the rule says neg, and is wrong."""
    found, _ = run(kinds=["lookalikes", "whitespace"], severities=[1, 5])
    assert found.measures["lookalikes/5/accuracy"].value < found.measures["lookalikes/1/accuracy"].value < 1
    drop = found.measures["lookalikes/5/drop"]
    assert drop.value == pytest.approx(1 - found.measures["lookalikes/5/accuracy"].value)
    assert drop.low <= drop.value <= drop.high
    both = [found.measures[f"lookalikes/{severity}/accuracy"].value for severity in (1, 5)]
    assert found.measures["lookalikes/accuracy"].value == pytest.approx(np.mean(both))
    assert found.measures["worst_case"].value <= min(both)


def test_every_example_is_asked_once_for_every_kind_and_severity() -> None:
    found, target = run(kinds=["typos", "case"], severities=[2, 4], max_examples=20)
    assert target.asked == 20 * 2 * 2
    assert found.n == 20
    assert "20 of 60 examples" in found.notes[0]


def test_it_is_the_same_whatever_other_kinds_are_asked() -> None:
    alone, _ = run(kinds=["typos"])
    together, _ = run(kinds=["case", "keyboard", "typos"])
    assert alone.measures["typos/accuracy"] == together.measures["typos/accuracy"]


def test_samples_show_what_misled_the_model() -> None:
    found, _ = run(kinds=["lookalikes"], severities=[5])
    (sample,) = found.examples
    assert sample["prediction"] == sample["reference"] == "pos"
    assert sample["after"][0]["prediction"] == "neg"
    assert sample["after"][0]["value"] != sample["before"]


def test_examples_without_an_answer_are_left_out_and_told() -> None:
    target = Ruled(by_word, ["neg", "pos"], silent=lambda example: "NUMBER" in example["text"])
    found = robustness(bench(target, ROWS, robustness={"kinds": ["case"], "severities": [3]}))
    assert 0 < found.n < 60
    assert f"{60 - found.n} examples got no answer" in " ".join(found.notes)


def test_images_are_damaged_too() -> None:
    pictures = [np.full((16, 16, 3), 40 if k % 2 else 200, dtype=np.uint8) for k in range(40)]
    rows = [{"image": image, "label": "dark" if k % 2 else "light"} for k, image in enumerate(pictures)]
    target = Ruled(
        lambda example: "dark" if np.asarray(example["image"]).mean() < 120 else "light",
        ["dark", "light"],
        "image-classification",
    )
    found = robustness(bench(target, rows, robustness={"kinds": ["brightness", "pixelate"], "severities": [5]}))
    assert found.measures["pixelate/accuracy"].value == 1
    assert found.measures["brightness/accuracy"].value == 0.5
    assert found.examples[0]["after"][0]["value"].startswith("data:image/")


def test_half_right_and_never_moved_still_has_an_interval() -> None:
    """At an accuracy of a half the ends of a perfectly paired difference cancel."""
    found, _ = run(lambda example: "pos", kinds=["case"])
    drop = found.measures["case/drop"]
    assert drop.value == 0
    assert drop.low < -0.01
    assert drop.high > 0.01


def test_what_cannot_be_changed_loses_exactly_nothing() -> None:
    digits = [{"text": str(k), "label": "pos"} for k in range(30)]
    found = robustness(bench(Ruled(lambda example: "pos", ["neg", "pos"]), digits, robustness={"kinds": ["case"]}))
    assert (found.measures["case/drop"].low, found.measures["case/drop"].high) == (0, 0)
