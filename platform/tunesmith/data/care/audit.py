"""Which training labels are likely wrong: confident learning over cross-validated predictions of a small linear model.

Confident learning is Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels (JAIR 2021), as
cleanlab has it. The predictions come from logistic regression on hashed words and characters, or on small grey images: that
needs neither the base model nor a GPU, and takes seconds.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.types as types

from tunesmith.data import split
from tunesmith.data.care import groups
from tunesmith.data.care.inputs import Inputs
from tunesmith.data.care.known import Flagged, Flags
from tunesmith.data.ingest import Ingested
from tunesmith.errors import DataError
from tunesmith.recipe.data import DataSection
from tunesmith.tasks.base import Task
from tunesmith.tasks.labels import listed

FOLDS = 5
MOST_ROWS = 50_000
"""Rows that are audited; of more, as many are drawn with the shares of the classes kept, and at least a row for each fold."""
FEATURES = 1 << 16
"""Hashed words and characters of a text, each."""
PIXELS = 16
"""Height and width of the grey image that the linear model sees."""
SHOWN = 200
"""Suspects that are listed, the surest first."""


@dataclass(frozen=True)
class Suspects:
    """Rows whose label is likely wrong, the surest first."""

    rows: np.ndarray
    """Places among the audited rows, int64 ``[suspects]``."""
    suggested: np.ndarray
    """The class that the model would give, ``[suspects]``."""
    scores: np.ndarray
    """The probability that it gives to the label as it is, ``[suspects]``."""


def audit(
    data: DataSection, task: Task, train: Ingested, chosen: np.ndarray, flags: Flags | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The training rows that stay of ``chosen`` (sorted), and the entry for the manifest; ``flags`` takes the suspects.

    Raises :class:`DataError` where suspects are to be dropped and such rows can never be audited. Of one class there are none.
    """
    entry: dict[str, Any] = {"action": data.label_errors, "applied": False, "audited": 0, "suspects": 0, "left_out": 0}
    inputs = Inputs(task, {"train": train})
    why = _not_applied(data, task, train, inputs)
    if why is not None and data.label_errors == "drop":
        raise DataError(
            f"data.label_errors is drop, and the audit cannot look at the rows of data.train: {why}\n    → Remove it; "
            "training.loss: symmetric_cross_entropy bears wrong labels."
        )
    strata = np.asarray(train.strata)
    if why is None and len(np.unique(strata[chosen])) < 2:
        why = "the rows have one class only"
    if why is not None:
        return chosen, {**entry, "why": why, "examples": []}
    some = chosen[_drawn(strata[chosen], data.split.seed)]
    labels = np.unique(strata[some], return_inverse=True)
    features = text_features(inputs, some) if inputs.kind == "text" else image_features(inputs, some)
    chances = cross_validated(features, labels[1], train.inputs[some], data.split.seed)
    found = suspects(labels[1], chances)
    cards = inputs.cards(some[found.rows[:SHOWN]])
    examples = [
        {**cards[int(some[row])], "suggested": train.classes[labels[0][kind]], "score": round(float(score), 4)}
        for row, kind, score in zip(found.rows[:SHOWN], found.suggested, found.scores, strict=False)
    ]
    entry |= {"applied": True, "audited": len(some), "suspects": len(found.rows), "examples": examples}
    if flags is not None:
        flags.by_kind["mislabelled"] = Flagged(some[found.rows], looked_at=some, ranked=True)
    if data.label_errors == "drop":
        chosen = np.setdiff1d(chosen, some[found.rows])
        entry["left_out"] = len(found.rows)
    return chosen, entry


def _drawn(strata: np.ndarray, seed: int) -> np.ndarray:
    """Which rows are audited, sorted: of each class its share, and no fewer than there are folds."""
    return np.union1d(split.subset(len(strata), MOST_ROWS, strata, seed), split.per_class(strata, FOLDS, seed))


def _not_applied(data: DataSection, task: Task, train: Ingested, inputs: Inputs) -> str | None:
    """Why rows of this kind are not audited, or None where they are."""
    if data.label_errors == "off":
        return "data.label_errors is off"
    if train.strata is None:
        return f"it judges one class for each row, and rows of {task.name} have none"
    if inputs.kind is None:
        return "it can judge texts and single images only"
    targets = train.column(task.target)
    several = types.is_list(targets.type) or (
        types.is_string(targets.type) and any(listed(value) is not None for value in targets.to_pylist())
    )
    return "it judges one class for each row, and these rows have lists of labels" if several else None


def text_features(inputs: Inputs, rows: np.ndarray) -> Any:
    """Sparse TF-IDF ``[rows, features]`` of hashed words, pairs of words and pieces of words."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline, make_union

    words = HashingVectorizer(ngram_range=(1, 2), n_features=FEATURES, alternate_sign=False, norm=None)
    pieces = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=FEATURES, alternate_sign=False, norm=None)
    texts = [text for part in inputs.texts(rows) for text in part]
    return make_pipeline(make_union(words, pieces), TfidfTransformer(sublinear_tf=True)).fit_transform(texts)


def image_features(inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    """Standardised grey values ``[rows, PIXELS * PIXELS]``."""
    from tunesmith.data.care.pictures import SIDE, thumbnails

    step = SIDE // PIXELS
    small = [one.reshape(len(one), PIXELS, step, PIXELS, step).mean(axis=(2, 4)) for one in thumbnails(inputs.images, rows)]
    flat = np.concatenate(small).reshape(len(rows), -1)
    return np.asarray((flat - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1.0) / PIXELS)


def cross_validated(features: Any, labels: np.ndarray, keys: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities ``[rows, classes]`` of each row by a model that has not seen it, nor a copy of it (equal ``keys``).

    Sparse features have many more columns than a second-order solver takes in seconds: they are learned by averaged SGD.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    fold = _folds(labels, keys, seed)
    chances = np.zeros((len(labels), int(labels.max()) + 1))
    for number in np.unique(fold):
        held = fold == number
        if len(np.unique(labels[~held])) < 2:
            continue
        model: Any = LogisticRegression(C=10.0, max_iter=300)
        if not isinstance(features, np.ndarray):
            model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=20, average=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[~held], labels[~held])
        chances[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    lost = chances.sum(axis=1) == 0
    chances[lost, labels[lost]] = 1.0  # nobody could judge them
    return chances


def _folds(labels: np.ndarray, keys: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each row: copies together, each class shared out evenly."""
    copies = groups.codes_of(keys)
    first = np.unique(copies, return_index=True)[1]
    order = np.random.default_rng(seed).permutation(len(first))
    fold = np.empty(len(first), dtype=np.int64)
    fold[order] = split.rank_within(labels[first[order]]) % FOLDS
    return np.asarray(fold[copies])


def suspects(labels: np.ndarray, chances: np.ndarray) -> Suspects:
    """The rows whose label (codes ``[rows]``) confident learning takes for wrong, by the margin to the best other class."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "May not flag all label issues")  # the last row of a class stays
        found = find_label_issues(labels, chances, return_indices_ranked_by="normalized_margin", n_jobs=1)
    rows = np.asarray(found, dtype=np.int64)
    others = chances[rows].copy()
    others[np.arange(len(rows)), labels[rows]] = -1.0
    return Suspects(rows, others.argmax(axis=1), chances[rows, labels[rows]])
