"""Who computes a served model's passes: PyTorch, or OpenVINO, which the model is translated for when it starts.

A backend takes the place of the predictor's model and of nothing else: the preprocessing, the batches and how answers are made
of logits stay the same. It serves only after it has been held against PyTorch on made-up examples (:func:`verified`).
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from tunesmith.errors import ModelError
from tunesmith.evaluation import padding
from tunesmith.evaluation.predictor import Predictor, to_device
from tunesmith.recipe.serving import ServingSection
from tunesmith_serving.plan import check_backend

TOLERANCE = 1e-4
"""Most that a logit may differ from PyTorch's (of its size, where that is above 1). Both compute in float32."""
LENGTHS = (*padding.LENGTHS, 200)
"""Words of the made-up examples; the last is cut at what the model takes. A trace that froze a length shows there."""
BATCHES = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 0, 1, 0, 1), (0,) * 9)
"""Which of them are tried together: several sizes and lengths, with padding and without."""
INSTEAD = "Leave it to PyTorch: serving.backend=torch"

_LOG = logging.getLogger("tunesmith.serving")


def with_backend(predictor: Predictor, settings: ServingSection) -> Predictor:
    """The predictor, its model computed by the backend of the settings.

    Raises:
        UserError: the backend's package is not installed.
        ModelError: the model cannot be translated, or the backend's logits are not PyTorch's.
    """
    if settings.backend == "torch":
        return predictor
    check_backend(settings)
    if predictor.device.type != "cpu":
        raise ModelError(f"serving.backend: openvino computes on CPUs, and the model is on {predictor.device}. {INSTEAD}")
    encoded = _encoded(predictor)
    inputs = asked(predictor, encoded)
    replaced = predictor.with_model(OpenVino(predictor.model, inputs, ragged=predictor.task.ragged))
    worst = verified(predictor, replaced, encoded)
    _LOG.info("openvino answers in place of PyTorch; its logits differ by %.1e at the most", worst)
    return replaced


class OpenVino(torch.nn.Module):
    """A model with logits, translated and compiled for this CPU. Takes and gives what the model does, but logits alone."""

    def __init__(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], *, ragged: bool) -> None:
        """Translate ``model`` by a trace over ``inputs``, float32; the first axis is free, and the second too where ``ragged``.

        Raises:
            ModelError: it cannot be translated.
        """
        super().__init__()
        openvino = _package()
        self.names = list(inputs)
        free = 2 if ragged else 1
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # of constants in the trace, which `verified` finds where they matter
                translated = _translated(_Logits(model, self.names).eval(), tuple(inputs.values()))
            shapes = [openvino.PartialShape([-1] * free + list(inputs[name].shape[free:])) for name in self.names]
            translated.reshape(dict(zip(translated.inputs, shapes, strict=True)))
            compiled = openvino.compile_model(
                translated,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    "INFERENCE_PRECISION_HINT": "f32",
                },
            )
        except Exception as error:  # whatever a foreign compiler raises
            raise ModelError(
                f"serving.backend: openvino cannot translate this model ({_first_line(error)}). {INSTEAD}"
            ) from error
        self._request = compiled.create_infer_request()

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        """``logits`` as PyTorch's tensor, of the model's own shape. One pass at a time."""
        given = [inputs[name].contiguous().numpy() for name in self.names]
        found = self._request.infer(given, share_inputs=True)
        return SimpleNamespace(logits=torch.from_numpy(found[0].copy()))


def _package() -> Any:
    """OpenVINO, which tells Google Analytics of its import and of translations, unless its package for that is missing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: cannot be imported
    import openvino

    return openvino


def _translated(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """OpenVINO's own form of a module, by the front end under ``openvino.convert_model``."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    manager = FrontEndManager()  # must live as long as its front end
    front_end, decoder = manager.load_by_framework("pytorch"), TorchScriptPythonDecoder(model, example_input=inputs)
    return front_end.convert(front_end.load(decoder))


class _Logits(torch.nn.Module):
    """A model that takes its inputs by place and gives the logits alone, with whatever hooks it has (calibration)."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return found


class _Listener(torch.nn.Module):
    """Stands before a model and keeps what it was given."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.given: dict[str, Any] = {}

    def forward(self, **inputs: Any) -> Any:
        self.given = inputs
        return self.model(**inputs)


def asked(predictor: Predictor, encoded: list[Any]) -> dict[str, torch.Tensor]:
    """What the task gives the model for a short and a long example together.

    Raises:
        ModelError: it gives something else than tensors, or the model gives no logits.
    """
    listener = _Listener(predictor.model)
    listening = copy.copy(predictor)
    listening.model = listener
    listening.forward(encoded[:2])
    given = listener.given
    strange = [name for name, value in given.items() if not isinstance(value, torch.Tensor)]
    if strange or not given:
        raise ModelError(f"serving.backend: the task gives the model {', '.join(strange) or 'nothing'}, no tensor. {INSTEAD}")
    return given


def verified(ours: Predictor, theirs: Predictor, encoded: list[Any]) -> float:
    """The greatest difference of a logit, of its size where that is above 1.

    Raises:
        ModelError: it is above :data:`TOLERANCE`, or the task needs more of the model than its logits.
    """
    worst = 0.0
    for places in BATCHES:
        batch = [encoded[place] for place in places]
        want = _logits(ours, batch)
        try:
            got = _logits(theirs, batch)
        except AttributeError as error:
            raise ModelError(
                f"serving.backend: openvino gives logits, and {ours.task.name} reads more of the model ({error}). {INSTEAD}"
            ) from error
        except Exception as error:
            raise ModelError(
                f"serving.backend: openvino fails on {len(batch)} examples together ({_first_line(error)}). {INSTEAD}"
            ) from error
        if got.shape != want.shape:
            raise ModelError(f"serving.backend: openvino gives logits {list(got.shape)}, PyTorch {list(want.shape)}. {INSTEAD}")
        difference = float(((got - want).abs() / want.abs().clamp(min=1)).max())
        if not difference <= TOLERANCE:
            raise ModelError(
                f"serving.backend: openvino's logits differ from PyTorch's by {difference:.1e} for {len(batch)} examples, "
                f"more than {TOLERANCE:g}. {INSTEAD}"
            )
        worst = max(worst, difference)
    return worst


def _logits(predictor: Predictor, batch: list[Any]) -> torch.Tensor:
    """The logits of one pass, made as every pass is: by the task's own answers."""
    kept: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        kept.append(output.logits)

    hook = predictor.model.register_forward_hook(keep)
    try:
        collated = to_device(predictor.task.collate(batch, predictor.preprocessing), predictor.device)
        with torch.inference_mode():
            predictor.task.answers(predictor.model, collated, predictor.preprocessing)
    finally:
        hook.remove()
    return kept[0].float()


def _encoded(predictor: Predictor) -> list[Any]:
    """A short, a longer and a long example. Raises :class:`ModelError` where they cannot be made up."""
    made = padding.samples(predictor, LENGTHS)
    if not made:
        raise ModelError(
            f"serving.backend: no example of {predictor.task.name} can be made up to try the backend on. {INSTEAD}"
        )
    return list(predictor.task.encode(made, predictor.preprocessing))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]
