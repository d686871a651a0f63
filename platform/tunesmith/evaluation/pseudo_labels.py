"""Pseudo-labels: what a teacher says of unlabelled rows, and which of it is sure enough to learn from.

Lee 2013, "Pseudo-Label"; Xie et al. 2020, "Self-training with Noisy Student" (arXiv:1911.04252), from which are the threshold
on the confidence and the limit for each class. Labels are hard: the likeliest class. The confidence is the teacher's
probability of it after temperature scaling on the validation split (Guo et al. 2017, arXiv:1706.04599), which changes no label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.inputs_only import SPLIT
from tunesmith.data.unlabelled import truth_of
from tunesmith.evaluation.calibration import RANGE, class_logits, fit_temperature
from tunesmith.evaluation.statistics import wilson
from tunesmith.tasks.classes import TINY
from tunesmith.tasks.labels import label_name

if TYPE_CHECKING:
    from tunesmith.data.prepared import PreparedData
    from tunesmith.evaluation.predictions import Progress
    from tunesmith.evaluation.predictor import Predictor
    from tunesmith.recipe.unlabelled import UnlabelledSection

Array = npt.NDArray[np.float64]

BINS = 20
"""Bars of the histogram of confidences, from 0 to 1."""


@dataclass(frozen=True)
class PseudoLabels:
    """What the teacher said of each unlabelled row."""

    codes: npt.NDArray[np.int64]
    """The likeliest class, ``[n]``."""
    confidence: Array
    """Its probability, ``[n]``."""
    taken: npt.NDArray[np.bool_]
    """Whether the student learns from it, ``[n]``."""
    temperature: float
    """By which the teacher's logits were divided; 1 where its probabilities are taken as they are."""


def pseudo_labels(
    predictor: Predictor, labelled: PreparedData, unlabelled: PreparedData, settings: UnlabelledSection, tell: Progress
) -> PseudoLabels:
    """Ask the teacher about every row, and choose those to learn from."""
    split, known = unlabelled.splits[SPLIT], labelled.state["labels"]
    temperature = _temperature(predictor, labelled) if settings.calibrate else 1.0
    codes, confidence = np.zeros(len(split), np.int64), np.zeros(len(split))
    done = 0
    for indices, answers in predictor.predict_split(split):
        scaled = np.log(np.clip(np.array([answer["probabilities"] for answer in answers]), TINY, 1)) / temperature
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        codes[indices], confidence[indices] = scaled.argmax(axis=1), raised.max(axis=1) / raised.sum(axis=1)
        done += len(indices)
        tell("label", done, len(split))
    counts = labelled.manifest["splits"]["train"]["labels"] or {}
    shares = np.array([counts.get(name, 0) for name in known], np.float64)
    taken = select(codes, confidence, settings.threshold, settings.balance, shares / max(shares.sum(), 1.0))
    return PseudoLabels(codes, confidence, taken, temperature)


def select(
    codes: npt.NDArray[np.int64], confidence: Array, threshold: float, balance: float | None, shares: Array
) -> npt.NDArray[np.bool_]:
    """Which rows are taken: those at or above the threshold, and of each class at most ``⌈balance · share · rows above it⌉``.

    The surest of a class come first; of equally sure ones the earlier row.

    >>> select(np.array([0, 0, 0, 1]), np.array([0.9, 1.0, 0.95, 0.5]), 0.9, 1.0, np.array([0.5, 0.5]))
    array([False,  True,  True, False])
    """
    sure = confidence >= threshold
    if balance is None:
        return sure
    taken, total = np.zeros_like(sure), int(sure.sum())
    for code, share in enumerate(shares):
        mine = np.flatnonzero(sure & (codes == code))
        # a product such as 1.5 · 0.1 · 100 is a hair above 15
        most = math.ceil(balance * float(share) * total - 1e-9)
        taken[mine[np.argsort(-confidence[mine], kind="stable")[:most]]] = True
    return taken


def _temperature(predictor: Predictor, labelled: PreparedData) -> float:
    """The temperature of the validation split; 1 where there is none or it cannot tell."""
    validation = labelled.splits.get("validation")
    if validation is None or not len(validation):
        return 1.0
    found = class_logits(predictor, validation, np.arange(len(validation)))
    temperature = fit_temperature(*found) if found is not None else 1.0
    return temperature if RANGE[0] * 1.01 < temperature < RANGE[1] / 1.01 else 1.0


def account(made: PseudoLabels, unlabelled: PreparedData, known: Sequence[str]) -> dict[str, Any]:
    """What was labelled, as plain data for the record: counts, the histogram, and how right it was where the truth is known."""
    sure, truth = made.taken, truth_of(unlabelled)
    found: dict[str, Any] = {
        "rows": len(made.codes),
        "taken": int(sure.sum()),
        "highest": float(made.confidence.max()),
        "temperature": made.temperature,
        "histogram": np.histogram(made.confidence, BINS, (0.0, 1.0))[0].tolist(),
        "per_class": dict(zip(known, np.bincount(made.codes[sure], minlength=len(known)).tolist(), strict=True)),
        "left_out": unlabelled.manifest["left_out"],
        "truth": None,
    }
    if truth is not None:
        names = [label_name(value) for value in truth]
        told = np.array([name is not None for name in names])
        right = np.array([name == known[code] for name, code in zip(names, made.codes, strict=True)])
        parts = {"all": told, "taken": told & sure}
        found["truth"] = {name: _accuracy(right[part]) for name, part in parts.items() if part.any()}
    return found


def _accuracy(right: npt.NDArray[np.bool_]) -> dict[str, float | int]:
    """The share that is right, with Wilson's interval."""
    share = float(right.mean())
    low, high = wilson(share, len(right))
    return {"value": share, "low": low, "high": high, "n": len(right)}
