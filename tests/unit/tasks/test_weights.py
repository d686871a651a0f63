"""Class weights against the formulas of their papers, and the measure of imbalance against its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tunesmith.errors import DataError, UserError
from tunesmith.recipe.training import TrainingSection
from tunesmith.tasks.weights import advice, class_weights, effective_number, measure, remedies

pytestmark = pytest.mark.unit

COUNTS = [500, 10, 40]
STATE = {"labels": ["common", "rare", "some"], "label_counts": COUNTS}


def settings(**values: Any) -> TrainingSection:
    return TrainingSection.model_validate(values)


def weights(state: dict[str, Any] = STATE, **values: Any) -> np.ndarray:
    found = class_weights(settings(**values), state)
    assert found is not None
    return found


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99, 0.999, 0.9999])
def test_the_effective_number_is_the_sum_of_a_geometric_row(beta: float) -> None:
    for n in (1, 2, 7, 300):
        assert effective_number([n], beta)[0] == pytest.approx(sum(beta**k for k in range(n)), rel=1e-9)
    assert effective_number([0], beta)[0] == 0


@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_effective_weights_are_cuis_scaled_to_mean_one(beta: float) -> None:
    """Equation 2 and section 4: one over ``(1 - beta^n) / (1 - beta)``; the scale is ours."""
    cui = np.array([(1 - beta) / (1 - beta**n) for n in COUNTS])
    found = weights(class_weights="effective", class_weights_args={"beta": beta})
    np.testing.assert_allclose(found / found[0], cui / cui[0], rtol=1e-9)
    assert np.average(found, weights=COUNTS) == pytest.approx(1)


def test_beta_leads_from_no_weights_to_inverse_ones() -> None:
    inverse = weights(class_weights="inverse")
    np.testing.assert_allclose(inverse, [550 / 3 / n for n in COUNTS])
    np.testing.assert_allclose(weights(class_weights="effective", class_weights_args={"beta": 0.0}), 1)
    almost = weights(class_weights="effective", class_weights_args={"beta": 1 - 1e-9})
    np.testing.assert_allclose(almost, inverse, rtol=1e-5)
    default = weights(class_weights="effective")
    np.testing.assert_allclose(default, weights(class_weights="effective", class_weights_args={"beta": 0.999}))
    assert inverse[1] > default[1] > 1


def test_given_weights_are_by_class_and_one_where_not_named() -> None:
    found = weights(class_weights={"rare": 5})
    np.testing.assert_allclose(found / found[0], [1, 5, 1])
    assert np.average(found, weights=COUNTS) == pytest.approx(1)


def test_without_weights_there_are_none() -> None:
    for value in ("none", {}, None):
        assert class_weights(settings(class_weights=value), STATE) is None


def test_a_class_without_examples_is_weighed_as_with_one() -> None:
    state = {"labels": ["a", "b"], "label_counts": [9, 0]}
    found = weights(state, class_weights="inverse")
    assert found[1] / found[0] == pytest.approx(9)


def test_a_weight_for_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"training.class_weights.raer: there is no class raer in the training data\n.*mean rare"
    ):
        weights(class_weights={"raer": 2})
    with pytest.raises(DataError, match="every class weighs 0"):
        weights(class_weights={"rare": 0, "common": 0, "some": 0})
    with pytest.raises(UserError, match="counts no classes"):
        weights({"vocabulary": []}, class_weights="inverse")


def test_numbers_and_truth_values_are_class_names() -> None:
    assert settings(class_weights={0: 1, 1: 5}).class_weights == {"0": 1.0, "1": 5.0}
    assert settings(class_weights={True: 3}).class_weights == {"true": 3.0}


def test_the_measure_of_imbalance() -> None:
    found = measure(STATE["labels"], COUNTS)  # type: ignore[arg-type]
    shares = np.array(COUNTS) / 550
    entropy = -sum(p * math.log(p) for p in shares)
    assert found["ratio"] == 50
    assert found["entropy"] == pytest.approx(entropy / math.log(3))
    assert found["classes"] == pytest.approx(math.exp(entropy))
    assert found["counts"] == {"common": 500, "rare": 10, "some": 40}
    assert found["effective"]["rare"] == pytest.approx(sum(0.999**k for k in range(10)), abs=0.05)
    even = measure(["a", "b"], [7, 7])
    assert (even["ratio"], even["entropy"], even["classes"]) == (1, pytest.approx(1), pytest.approx(2))
    lone = measure(["a", "b"], [7, 0])
    assert (lone["ratio"], lone["entropy"], lone["classes"], lone["absent"]) == (1, 0, 1, ["b"])


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"class_weights": "effective"}, "training.class_weights=effective"),
        ({"class_weights": {"rare": 4}}, "training.class_weights=given"),
        ({"sampling": "balanced"}, "training.sampling=balanced"),
        ({"loss": "focal"}, "training.loss=focal"),
    ],
)
def test_the_reader_is_told_of_remedies_only_where_there_is_none(chosen: dict[str, Any], named: str) -> None:
    said = advice(STATE, settings())
    assert said is not None
    assert "common has 50 times the examples of rare (10)" in said
    for key in ("training.class_weights=effective", "training.sampling=balanced", "training.loss=focal"):
        assert key in said
    assert advice(STATE, settings(**chosen)) is None
    assert remedies(settings(**chosen)) == [named]


def test_ten_to_one_is_not_yet_worth_a_word() -> None:
    assert advice({"labels": ["a", "b"], "label_counts": [100, 10]}, settings()) is None
    assert advice({"labels": ["a", "b"], "label_counts": [101, 10]}, settings()) is not None
    assert advice({"labels": ["a", "b"], "label_counts": [100, 0]}, settings()) is None
    assert advice({}, settings()) is None
