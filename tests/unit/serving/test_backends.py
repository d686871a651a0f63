"""OpenVINO in place of PyTorch: the same answers for every task it takes, a refusal with numbers where they would differ."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from support.served import Service
from tunesmith.errors import ModelError, UserError
from tunesmith.evaluation.padding import same
from tunesmith.recipe.serving import ServingSection
from tunesmith_serving import backends
from tunesmith_serving.plan import check_backend
from unit.serving.conftest import Loaded

pytestmark = pytest.mark.unit

OPENVINO = ServingSection(backend="openvino")


@pytest.mark.parametrize("loaded", ["text-pair", "token", "vit"], indirect=True)
def test_it_answers_as_pytorch_does(loaded: Loaded) -> None:
    engine = loaded.engine(backend="openvino")
    assert isinstance(engine.predictor.model, backends.OpenVino)
    assert engine.padding_is_harmless
    inputs = loaded.inputs(23)
    got = asyncio.run(engine.answer(inputs)).answers
    want = loaded.predictor.predict(inputs)
    for one, other in zip(got, want, strict=True):
        assert same(one, other, backends.TOLERANCE), (one, other)


@pytest.mark.parametrize("loaded", ["detection"], indirect=True)
def test_a_task_that_needs_more_than_logits_is_refused(loaded: Loaded) -> None:
    with pytest.raises(ModelError, match=r"reads more of the model .*pred_boxes.*serving\.backend=torch"):
        backends.with_backend(loaded.predictor, OPENVINO)


def test_it_is_said_who_answers(text: Loaded, tmp_path: Path) -> None:
    service = Service(tmp_path, text.engine("words"), text.engine("fast", backend="openvino"))
    listed = service.ask("GET", "/models").json()["models"]
    assert {one["name"]: one["backend"] for one in listed} == {"words": "torch", "fast": "openvino"}
    asked = {"inputs": [text.inputs(1)[0]["text"]]}
    one, other = (service.ask("POST", f"/predict/{name}", json=asked).json()["predictions"] for name in ("words", "fast"))
    assert same(one, other, backends.TOLERANCE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda logits: logits + 3e-4, r"differ from PyTorch's by \S+e-0\d for 1 examples, more than 0\.0001"),
        (lambda logits: logits * float("nan"), r"differ from PyTorch's by nan"),
        (lambda logits: logits[:, :1], r"gives logits \[1, 1\], PyTorch \[1, 2\]"),
    ],
)
def test_other_logits_are_refused_with_the_numbers(
    text: Loaded, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor], says: str
) -> None:
    forward = backends.OpenVino.forward

    def changed(self: backends.OpenVino, **inputs: torch.Tensor) -> Any:
        return SimpleNamespace(logits=change(forward(self, **inputs).logits))

    monkeypatch.setattr(backends.OpenVino, "forward", changed)
    with pytest.raises(ModelError, match=says):
        backends.with_backend(text.predictor, OPENVINO)


class Branching(torch.nn.Module):
    """A model whose trace freezes the length that it saw."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> Any:
        found = self.model(**inputs)
        found.logits = found.logits * (1.0 if int(inputs["input_ids"].shape[1]) > 10 else 2.0)
        return found


def test_a_trace_that_froze_something_is_found_out(text: Loaded) -> None:
    predictor = copy.copy(text.predictor)
    predictor.model = Branching(text.predictor.model)
    with pytest.raises(ModelError, match="differ from PyTorch's"):
        backends.with_backend(predictor, OPENVINO)


def test_calibration_is_translated_with_the_model(text: Loaded) -> None:
    from tunesmith.evaluation.predictor import calibrated

    predictor = copy.copy(text.predictor)
    predictor.model = calibrated(copy.deepcopy(text.predictor.model), 3.0)
    inputs = text.inputs(5)
    got = backends.with_backend(predictor, OPENVINO).predict(inputs)
    assert all(same(one, other, backends.TOLERANCE) for one, other in zip(got, predictor.predict(inputs), strict=True))
    assert not same(got[0]["probabilities"], text.predictor.predict(inputs)[0]["probabilities"], 1e-2)


def test_nobody_is_told_of_its_use(text: Loaded) -> None:
    """As it comes, OpenVINO tells Google Analytics of its import and of each translation."""
    backends.with_backend(text.predictor, OPENVINO)
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
    assert sys.modules["openvino_telemetry"] is None


def test_a_missing_package_and_a_gpu_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_backend(OPENVINO)
    with pytest.raises(UserError, match=r"computes on CPUs, and serving\.num_gpus is 0\.5"):
        check_backend(ServingSection(backend="openvino", num_gpus=0.5))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tunesmith\[openvino\]'"):
        check_backend(OPENVINO)
    check_backend(ServingSection())
