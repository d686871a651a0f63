"""Choosing one class of many, or any number of them: loss, answers, records, metrics; for texts and images alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.tasks import labels as names
from tunesmith.tasks import metrics
from tunesmith.tasks.base import Answer, Batch, Chart, Example, Features, Metrics, Record, State

if TYPE_CHECKING:
    import torch

    from tunesmith.tasks.losses import Criterion

THRESHOLD = 0.5
"""Probability from which a label of a multi-label task is given."""

TARGETS = ("labels", "mixed_labels", "mix_share")
"""What of a batch is no input of the model."""

NO_LABEL = "(no label)"
"""What is kept as the prediction where an answer names none of the labels: its probabilities are all 0, and it is wrong."""

SAID = "said"
"""Where an answer that names no label keeps what was said instead."""

TINY = 1e-12
"""Probabilities are kept this far from 0 in a logarithm, as scikit-learn's log_loss does for float64."""


def loss(logits: torch.Tensor, batch: Batch, criterion: Criterion) -> torch.Tensor:
    """The criterion's losses, summed; ``labels`` is ``[batch]`` int64 (one class) or ``[batch, classes]`` float (any number).

    In a batch whose inputs are mixed (mixup, Zhang et al. 2018, arXiv:1710.09412), ``mix_share`` ``[batch]`` is the share of
    each example's own label, and the rest is that of ``mixed_labels``.
    """
    losses = criterion(logits, batch["labels"])
    if "mixed_labels" in batch:
        share = batch["mix_share"]
        losses = share * losses + (1 - share) * criterion(logits, batch["mixed_labels"])
    return losses.sum()


def targets(values: Sequence[Any], state: State) -> torch.Tensor:
    """The stored targets as the tensor that :func:`loss` takes."""
    import torch

    if state.get("multi_label"):
        return torch.from_numpy(np.stack([np.asarray(value) for value in values]).astype(np.float32))
    return torch.from_numpy(np.asarray(values, dtype=np.int64))


def classes_of(features: Sequence[Features], state: State) -> np.ndarray:
    """Which classes each example is of: booleans ``[n, classes]``."""
    values = [feature.values["labels"] for feature in features]
    if state.get("multi_label"):
        return np.stack([np.asarray(value) for value in values]).astype(bool)
    held = np.zeros((len(values), len(state["labels"])), dtype=bool)
    held[np.arange(len(values)), np.asarray(values, dtype=np.int64)] = True
    return held


def encode_target(value: Any, state: State) -> np.ndarray | int | None:
    """The stored form of an example's label: its index, or a 0/1 vector ``uint8 [classes]``. None where it has none."""
    if state.get("multi_label"):
        given = names.label_names(value)
        if given is None:
            return None
        index = {label: i for i, label in enumerate(state["labels"])}
        vector = np.zeros(len(index), dtype=np.uint8)
        vector[[index[label] for label in given if label in index]] = 1
        return vector
    name = names.label_name(value)
    return state["labels"].index(name) if name in state["labels"] else None


def answers(logits: torch.Tensor, state: State) -> list[Answer]:
    """One answer a row: ``label``, ``probabilities`` in the order of the state's labels (``labels`` where several may hold)."""
    logits = logits.float()
    known = state["labels"]
    if state.get("multi_label"):
        rows = logits.sigmoid().cpu().numpy()
        return [{"labels": [known[i] for i in np.flatnonzero(row >= THRESHOLD)], "probabilities": row.tolist()} for row in rows]
    rows = logits.double().softmax(-1).cpu().numpy()
    return [{"label": known[int(row.argmax())], "probabilities": row.tolist()} for row in rows]


def score(answer: Answer, value: Any, state: State) -> Record:
    """The record of one example: what was asked for, what was said, how sure, and the loss (natural logarithm).

    The loss is the plain log loss of the example, whatever criterion and weights the model was trained with.
    """
    given = np.asarray(answer["probabilities"], dtype=np.float64)
    if state.get("multi_label"):
        reference = names.label_names(value) or []
        truth = np.isin(state["labels"], reference)
        right = np.clip(np.where(truth, given, 1 - given), TINY, 1)
        return {
            "reference": reference,
            "prediction": answer["labels"],
            "correct": set(reference) == set(answer["labels"]),
            "confidence": float(np.maximum(given, 1 - given).mean()),
            "loss": float(-np.log(right).mean()),
            "probabilities": answer["probabilities"],
        }
    name = names.label_name(value)
    chance = float(given[state["labels"].index(name)]) if name in state["labels"] else 0.0
    return {
        "reference": name,
        "prediction": answer["label"],
        "correct": name == answer["label"],
        "confidence": float(given.max()),
        "loss": float(-np.log(max(chance, TINY))),
        "probabilities": answer["probabilities"],
    }


def aggregate(records: pa.Table, state: State, weights: np.ndarray | None = None) -> Metrics:
    """All classification metrics of the records; see :mod:`tunesmith.tasks.metrics` for each definition."""
    truth, probabilities = arrays(records, state)
    judge = metrics.multi_label if state.get("multi_label") else metrics.single_label
    found = judge(truth, probabilities, state["labels"], weights)
    return {"loss": metrics.weighted_mean(records["loss"].to_numpy(), weights), **found}


def arrays(records: pa.Table, state: State) -> tuple[np.ndarray, np.ndarray]:
    """References (``[n]`` indices, or ``[n, classes]`` booleans) and probabilities ``[n, classes]`` of the records."""
    known = state["labels"]
    column = records["probabilities"].combine_chunks()
    probabilities = np.asarray(column.values if isinstance(column, pa.ListArray) else column.flatten(), dtype=np.float64)
    probabilities = probabilities.reshape(len(records), len(known))
    if state.get("multi_label"):
        truth = (
            np.stack([np.isin(known, row) for row in records["reference"].to_pylist()])
            if len(records)
            else np.zeros((0, len(known)), bool)
        )
        return truth, probabilities
    index = pc.index_in(records["reference"].combine_chunks().cast(pa.string()), value_set=pa.array(known))
    return index.to_numpy(zero_copy_only=False).astype(np.int64), probabilities


def majority(train: Iterable[Example], role: str, state: State) -> Answer | None:
    """The answer with the training labels' shares as probabilities; None for several labels at once."""
    if state.get("multi_label"):
        return None
    share = names.shares(train, role, state["labels"])
    return {"label": state["labels"][int(np.argmax(share))], "probabilities": share}


def charts(records: pa.Table, state: State) -> list[Chart]:
    """Confusion matrix (one class of many), reliability."""
    truth, probabilities = arrays(records, state)
    if state.get("multi_label"):
        hit = (probabilities >= THRESHOLD) == truth
        sure = np.maximum(probabilities, 1 - probabilities)
        return [Chart("reliability", "Reliability of each label", {"confidence": sure.ravel(), "correct": hit.ravel()})]
    said = metrics.guesses(probabilities)
    known = [*state["labels"], *([NO_LABEL] if (said == len(state["labels"])).any() else [])]
    size = len(known)
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (truth, said), 1)
    return [
        Chart("confusion", "Confusion matrix", {"labels": known, "counts": counts}),
        Chart("reliability", "Reliability", {"confidence": probabilities.max(-1), "correct": truth == said}),
    ]


def inputs_of(batch: Batch) -> Batch:
    """The batch without its targets: what the model's forward takes."""
    return {name: tensor for name, tensor in batch.items() if name not in TARGETS}
