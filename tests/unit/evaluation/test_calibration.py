"""The temperature minimises the likelihood, and wherever it is kept, every loader gives softmax(logits / T)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.data import MemorySplit, pictures, sentences, texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_resnet
from tunesmith.evaluation.calibration import RANGE, calibrate, class_logits, ece, fit_temperature, nll, sentence
from tunesmith.evaluation.predictor import Predictor
from tunesmith.runs import Artefact
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Preprocessing
from tunesmith.training.checkpoint import save_model
from tunesmith.training.fit import FitData, FitSpec, fit


def drawn(temperature: float, several: bool = False, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``temperature`` times too large for the labels drawn."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(n, 4))
    if several:
        return temperature * logits, (rng.random((n, 4)) < 1 / (1 + np.exp(-logits))).astype(float)
    return temperature * logits, (logits + rng.gumbel(size=(n, 4))).argmax(axis=1)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found_and_is_a_minimum(temperature: float, several: bool) -> None:
    logits, targets = drawn(temperature, several)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(temperature, rel=0.05)
    least = nll(logits / found, targets)
    assert least <= min(nll(logits / (found * 1.01), targets), nll(logits / (found * 0.99), targets))
    if temperature == 2.5:
        assert ece(logits / found, targets) < 0.3 * ece(logits, targets)


def test_the_likelihood_is_that_of_torch() -> None:
    logits, targets = drawn(2.0, n=50)
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(targets))
    assert nll(logits, targets) == pytest.approx(float(wanted))
    logits, targets = drawn(2.0, several=True, n=50)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(targets))
    assert nll(logits, targets) == pytest.approx(float(wanted))


def several(n: int) -> list[dict[str, Any]]:
    return [{**row, "label": [row["label"]] if i % 3 else []} for i, row in enumerate(texts(n))]


BERT = partial(tiny_bert, spread=0.2)
CASES: dict[str, Any] = {
    "text": ("text-classification", BERT, texts),
    "several": ("text-classification", BERT, several),
    "tokens": ("token-classification", BERT, sentences),
    "images": ("image-classification", tiny_resnet, pictures),
}


def ready(name: str, tmp_path: Path) -> tuple[FitSpec, FitData, Predictor]:
    """A model that is four times too sure of itself, and rows of which a quarter are labelled by chance."""
    task, base, rows = CASES[name]
    made = rows(180)
    for one, other in zip(made[-60::4], made[:15], strict=True):
        target = load_task(task).target
        one[target] = one[target][::-1] if name == "tokens" else other[target]
    settings: dict[str, Any] = {"learning_rate": 3e-3, "num_train_epochs": 2, "eval_strategy": "no"}
    recipe = recipe_for(task, base(tmp_path / "base"), tmp_path / "a", load_best_model_at_end=False, **settings)
    spec, data = prepare_in_memory(recipe, made, held_out=60)
    model = fit(spec, FitData(data.train)).model
    with torch.no_grad():
        for parameter in [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1].parameters():
            parameter.mul_(4)
    return spec, data, Predictor(spec.task, model, spec.preprocessing, device="cpu")


@pytest.mark.parametrize("name", CASES)
def test_plain_transformers_gives_the_calibrated_logits(name: str, tmp_path: Path) -> None:
    spec, data, predictor = ready(name, tmp_path)
    assert data.validation is not None
    indices = np.arange(len(data.validation))
    before = class_logits(predictor, data.validation, indices)
    record = calibrate(predictor, data.validation)
    assert before is not None
    assert record["folded"], record
    assert record["layer"].startswith("classifier")
    assert record["nll"]["after"] < record["nll"]["before"]
    save_model(tmp_path / "model", predictor.model, spec.task, spec.preprocessing)

    plain = Predictor(spec.task, spec.task.load_model(str(tmp_path / "model")), spec.preprocessing, device="cpu")
    after = class_logits(plain, data.validation, indices)
    assert after is not None
    np.testing.assert_allclose(after[0], before[0] / record["temperature"], rtol=1e-4, atol=1e-5)
    assert record["ece"]["after"] == pytest.approx(ece(after[0], after[1]), abs=1e-4)
    assert record["n"] == len(before[0]) == int(data.validation.counts.sum())


class Doubled(torch.nn.Module):
    """A model whose logits are no layer's output."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = 2 * output.logits + 1
        return output


def test_where_no_layer_gives_the_logits_our_predictor_divides_them(tmp_path: Path) -> None:
    spec, data, predictor = ready("text", tmp_path)
    assert data.validation is not None
    predictor = Predictor(spec.task, Doubled(predictor.model), spec.preprocessing, device="cpu")
    indices = np.arange(len(data.validation))
    before = class_logits(predictor, data.validation, indices)
    record = calibrate(predictor, data.validation)
    after = class_logits(predictor, data.validation, indices)
    assert before is not None
    assert after is not None
    assert (record["folded"], record["layer"]) == (False, None)
    np.testing.assert_allclose(after[0], before[0] / record["temperature"], rtol=1e-5)


def test_a_stored_temperature_is_applied_by_our_predictor_and_a_folded_one_is_not_applied_again(tmp_path: Path) -> None:
    spec, _, predictor = ready("text", tmp_path)
    save_model(tmp_path / "model", predictor.model, spec.task, spec.preprocessing)
    state = dict(spec.preprocessing.state)

    def probabilities(calibration: dict[str, Any] | None) -> np.ndarray:
        Artefact("text-classification", state, calibration=calibration).write(tmp_path / "model")
        answers = Predictor.load(tmp_path / "model", device="cpu").predict(texts(5))
        return np.array([answer["probabilities"] for answer in answers])

    plain = probabilities(None)
    wanted = plain ** (1 / 2.5)
    np.testing.assert_allclose(
        probabilities({"temperature": 2.5, "folded": False}), wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-4
    )
    np.testing.assert_allclose(probabilities({"temperature": 2.5, "folded": True}), plain)
    np.testing.assert_allclose(probabilities({"skipped": "no"}), plain)


def test_a_split_that_cannot_tell_changes_nothing(tmp_path: Path) -> None:
    spec, data, predictor = ready("text", tmp_path)
    assert data.validation is not None
    rows = data.validation.examples(range(20))
    right = [{**row, "label": answer["label"]} for row, answer in zip(rows, predictor.predict(rows), strict=True)]
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    record = calibrate(
        predictor, MemorySplit(spec.task, right, Preprocessing(spec.preprocessing.state, spec.preprocessing.processor))
    )
    assert "cannot tell" in record["skipped"]
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.state_dict().items())
    assert sentence(record).startswith("Not calibrated")
    assert RANGE[0] < 1 < RANGE[1]
