"""Temperature scaling: one number by which all logits are divided, so that a model is as sure as it is right.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599). The temperature is the one that minimises the
negative log-likelihood on the validation split; it changes no answer, only how sure it is. In ``1/T`` the likelihood is convex,
so the root of its derivative is found by bisection. Several labels at once share one temperature on their sigmoids.

It is folded into the head's last linear layer (weight and bias divided by T) where one gives the logits, so that any loader
agrees; elsewhere it stands in ``tunesmith.json``, and our predictor applies it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.evaluation.predictor import Encoded, Predictor, calibrated
from tunesmith.tasks import metrics

Array = npt.NDArray[np.float64]

RANGE = (0.05, 20.0)
"""Temperatures that are looked at. One at the edge means that the split cannot tell (every answer right, or pure noise)."""

MOST = 20_000
"""Examples of the validation split that are taken, the first in a seeded order: one number needs no more."""

STEPS = 60
"""Bisections: the interval of log(1/T) is 6 wide, and ends at 1e-17."""


def calibrate(predictor: Predictor, split: Encoded, seed: int = 42) -> dict[str, Any]:
    """Fit the temperature, fold it into the model, and say what it did, as plain data.

    The result has ``temperature``, ``folded``, ``layer``, ``n`` (units of loss), and ``ece`` and ``nll``, each ``before`` and
    ``after``; or, where nothing was changed, ``skipped`` with the reason.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(split.lengths))[:MOST])
    found = class_logits(predictor, split, chosen)
    if found is None:
        return {"method": "temperature", "skipped": "this task's outputs are not one logit for each class"}
    logits, targets = found
    temperature = fit_temperature(logits, targets)
    if not RANGE[0] * 1.01 < temperature < RANGE[1] / 1.01:
        return {"method": "temperature", "skipped": f"the validation split cannot tell a temperature (n = {len(logits)})"}
    one_batch = split.features([int(chosen[0])])
    layer = fold(predictor, one_batch, temperature)
    if layer is None:
        predictor.model = calibrated(predictor.model, temperature)
    return {
        "method": "temperature",
        "temperature": temperature,
        "folded": layer is not None,
        "layer": layer,
        "n": len(logits),
        "ece": {"before": ece(logits, targets), "after": ece(logits / temperature, targets)},
        "nll": {"before": nll(logits, targets), "after": nll(logits / temperature, targets)},
    }


def fit_temperature(logits: Array, targets: npt.NDArray[Any]) -> float:
    """The temperature within :data:`RANGE` of least negative log-likelihood.

    Args:
        logits: ``[n, classes]``.
        targets: the right class of each row, ``[n]`` integers, or 0/1 ``[n, classes]`` where several labels may hold.
    """
    low, high = math.log(1 / RANGE[1]), math.log(1 / RANGE[0])
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _slope(logits, targets, math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def _slope(logits: Array, targets: npt.NDArray[Any], sharpness: float) -> float:
    """The derivative of the mean negative log-likelihood of ``sharpness · logits`` by ``sharpness``."""
    if targets.ndim == 2:
        return float(((_sigmoid(sharpness * logits) - targets) * logits).mean())
    right = logits[np.arange(len(logits)), targets]
    return float(((_softmax(sharpness * logits) * logits).sum(axis=1) - right).mean())


def nll(logits: Array, targets: npt.NDArray[Any]) -> float:
    """Mean negative log-likelihood, natural logarithm; over all (row, class) pairs where several labels may hold."""
    if targets.ndim == 2:
        return float((np.logaddexp(0, logits) - targets * logits).mean())
    top = logits.max(axis=1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return float((total - logits[np.arange(len(logits)), targets]).mean())


def ece(logits: Array, targets: npt.NDArray[Any]) -> float:
    """The expected calibration error as :mod:`tunesmith.tasks.metrics` defines it."""
    weights = np.ones((1, len(logits)))
    if targets.ndim == 2:
        return float(metrics.pooled_ece(_sigmoid(logits), targets.astype(bool), weights)[0])
    p = _softmax(logits)
    return float(metrics.top_label_ece(p.max(axis=1), p.argmax(axis=1) == targets, weights)[0])


def class_logits(predictor: Predictor, split: Encoded, indices: npt.NDArray[np.int64]) -> tuple[Array, npt.NDArray[Any]] | None:
    """Logits ``[n, classes]`` and targets of these examples (of every labelled token, where tokens have classes).

    None where the model's logits are not one for each class and each target.
    """
    logits, targets = [], []
    with outputs(predictor.model) as caught:
        for places in predictor.batches(split.lengths[indices]):
            features = split.features(indices[places])  # type: ignore[arg-type]  # an array is as good as a sequence
            labels = predictor.task.collate(features, predictor.preprocessing).get("labels")
            predictor.forward(features)
            found = getattr(caught[-1], "logits", None)
            pair = _paired(found, labels, len(predictor.preprocessing.state.get("labels", ())))
            if pair is None:
                return None
            logits.append(pair[0])
            targets.append(pair[1])
    return np.concatenate(logits), np.concatenate(targets)


def _paired(logits: Any, labels: Any, classes: int) -> tuple[Array, npt.NDArray[Any]] | None:
    """Logits and targets of one batch, row by row; targets below 0 (padding, further pieces of a word) are left out."""
    if not isinstance(logits, torch.Tensor) or not isinstance(labels, torch.Tensor) or logits.shape[-1] != classes:
        return None
    values, wanted = logits.double().cpu().numpy(), labels.cpu().numpy()
    if wanted.shape == values.shape:
        return values.reshape(-1, classes), wanted.reshape(-1, classes)
    if wanted.shape != values.shape[:-1] or labels.is_floating_point():
        return None
    kept = wanted.reshape(-1) >= 0
    return values.reshape(-1, classes)[kept], wanted.reshape(-1)[kept]


@torch.no_grad()
def fold(predictor: Predictor, features: Any, temperature: float) -> str | None:
    """Divide the last linear layer by the temperature; returns its name, or None where no layer's output is the logits.

    It is tried on ``features``: a layer that does more than give the logits is put back.
    """
    before = _logits(predictor, features)
    for name, layer in _last_layers(predictor, features, before):
        kept = [parameter.detach().clone() for parameter in layer.parameters(recurse=False)]
        for parameter in layer.parameters(recurse=False):
            parameter.div_(temperature)
        if torch.allclose(_logits(predictor, features), before / temperature, rtol=1e-4, atol=1e-5):
            return name
        for parameter, old in zip(layer.parameters(recurse=False), kept, strict=True):
            parameter.copy_(old)
    return None


def _last_layers(predictor: Predictor, features: Any, logits: torch.Tensor) -> list[tuple[str, torch.nn.Module]]:
    """The linear layers whose output is these logits."""
    given: dict[str, torch.Tensor] = {}
    linear = [(name, module) for name, module in predictor.model.named_modules() if isinstance(module, torch.nn.Linear)]
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: given.__setitem__(name, output.detach().clone()))
        for name, module in linear
    ]
    try:
        predictor.forward(features)
    finally:
        for handle in handles:
            handle.remove()
    return [(n, m) for n, m in linear if n in given and given[n].shape == logits.shape and torch.equal(given[n], logits)]


def _logits(predictor: Predictor, features: Any) -> torch.Tensor:
    with outputs(predictor.model) as caught:
        predictor.forward(features)
    logits: torch.Tensor = caught[-1].logits.detach().clone()
    return logits


@contextlib.contextmanager
def outputs(model: torch.nn.Module) -> Iterator[list[Any]]:
    """What the model's forward returns inside the block; only the last is kept."""
    caught: list[Any] = []

    def catch(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        caught[:] = [output]

    handle = model.register_forward_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def _softmax(logits: Array) -> Array:
    raised: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances: Array = raised / raised.sum(axis=1, keepdims=True)
    return chances


def _sigmoid(logits: Array) -> Array:
    chances: Array = np.exp(-np.logaddexp(0, -logits))
    return chances


def sentence(record: Mapping[str, Any]) -> str:
    """What calibration did, for people.

    >>> sentence({"skipped": "the validation split cannot tell a temperature (n = 3)"})
    'Not calibrated: the validation split cannot tell a temperature (n = 3).'
    """
    if record.get("skipped"):
        return f"Not calibrated: {record['skipped']}."
    before, after = record["ece"]["before"], record["ece"]["after"]
    place = f"folded into {record['layer']}" if record["folded"] else "applied by Tunesmith's predictor only"
    return (
        f"Calibrated with the temperature {record['temperature']:.3f}, {place}: calibration error {100 * before:.1f} % before, "
        f"{100 * after:.1f} % after, on the validation split it was fitted on."
    )
