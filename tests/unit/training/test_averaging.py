"""The moving average follows its formula, is judged and kept in place of the weights, and changes no update."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from support.data import texts
from support.fits import losses, prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.training.averaging import Average
from tunesmith.training.checkpoint import RAW
from tunesmith.training.fit import FitContext, fit, validate


def test_it_is_the_recursion_with_the_warm_up() -> None:
    model = torch.nn.BatchNorm1d(3)
    average, wanted = Average(model, 0.5), model.weight.detach().clone()
    torch.manual_seed(0)
    for n in range(20):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3))
        model.get_buffer("num_batches_tracked").add_(1)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        wanted = decay * wanted + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.values["weight"], wanted)
    assert int(average.values["num_batches_tracked"]) == 20, "what is no float is copied"
    assert average.updates == 20


def test_the_weights_come_back_to_the_last_bit() -> None:
    model = torch.nn.Linear(3, 3)
    before = model.weight.detach().clone()
    average = Average(torch.nn.Linear(3, 3), 0.9)
    with average.applied(model) as raw:
        torch.testing.assert_close(model.weight.detach(), average.values["weight"], atol=0, rtol=0)
        assert torch.equal(raw["weight"], before)
    assert torch.equal(model.weight.detach(), before)


def test_the_average_is_judged_and_kept_and_the_weights_go_on_beside_it(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", spread=0.2)
    settings = {"learning_rate": 3e-3, "logging_steps": 1, "num_train_epochs": 2}
    plain = recipe_for("text-classification", base, tmp_path / "a", **settings)
    averaged = recipe_for("text-classification", base, tmp_path / "b", ema_decay=0.8, **settings)
    kept = tmp_path / "kept"
    rows = texts(80)
    spec, data = prepare_in_memory(plain, rows)
    without = fit(spec, data)
    spec, data = prepare_in_memory(averaged, rows)

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        shutil.copytree(str(folder), kept, dirs_exist_ok=True)

    result = fit(spec, data, FitContext(report=report))

    assert losses(result) == losses(without), "training does not know of it"
    raw, state = torch.load(kept / RAW, weights_only=True), result.model.state_dict()
    saved = spec.task.load_model(str(kept / "model")).state_dict()
    for name, value in without.model.state_dict().items():
        assert torch.equal(raw[name], value), name
        assert torch.equal(saved[name], state[name]), name
    assert not torch.equal(saved["classifier.weight"], raw["classifier.weight"])
    told = [event for event in result.history if event["kind"] == "eval"][-1]
    assert data.validation is not None
    assert told["loss"] == pytest.approx(validate(spec, result.model, data.validation, FitContext())["loss"])
