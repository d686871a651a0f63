"""What all tasks with classes share: reading labels, counting them, fixing their order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError, nearest
from tunesmith.tasks import hub
from tunesmith.tasks.base import Example, State, Stats

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe


def label_name(value: Any) -> str | None:
    """A label as text, or None for a missing one.

    >>> label_name(3), label_name(3.0), label_name(" spam "), label_name(True), label_name(float("nan"))
    ('3', '3', 'spam', 'true', None)
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() else str(value)
    return str(value).strip() or None


def listed(value: Any) -> list[Any] | None:
    """The items of a list, or of a text that is a JSON list; None for anything else.

    >>> listed(("a", 1)), listed(' ["a"]'), listed("[OTHER]"), listed("a")
    (['a', 1], ['a'], None, None)
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    return list(value) if isinstance(value, list | tuple) or hasattr(value, "tolist") else None


def label_names(value: Any) -> list[str] | None:
    """Several labels as a list of text: a list, a JSON list, or one label. None where there is no value at all.

    >>> label_names(["a", "b"]), label_names('["a"]'), label_names("a"), label_names([]), label_names(None)
    (['a', 'b'], ['a'], ['a'], [], None)
    """
    items = listed(value)
    if items is not None:
        names = [label_name(item) for item in items]
        return None if None in names else [name for name in names if name is not None]
    one = label_name(value)
    return None if one is None else [one]


def words(value: Any) -> list[str] | None:
    """A list of words: a list, a JSON list, or text split at white space; None where it is none of these."""
    items = listed(value)
    if items is not None:
        return [str(item) for item in items]
    return value.split() if isinstance(value, str) else None


def tag_names(value: Any) -> list[str] | None:
    """The tags of a sentence: a list, a JSON list, or text split at white space; None where one is missing.

    >>> tag_names("O O B-LOC"), tag_names(["O", 3]), tag_names(["O", None]), tag_names(None)
    (['O', 'O', 'B-LOC'], ['O', '3'], None, None)
    """
    return words(value) if isinstance(value, str) else label_names(value)


def count(names: Iterable[str]) -> dict[str, int]:
    """Names with their counts, sorted by name: the same for every order of the rows."""
    return dict(sorted(Counter(names).items()))


def merge(stats: Sequence[Stats], key: str = "labels") -> Stats:
    """Counts of all shards added up."""
    total: Counter[str] = Counter()
    for one in stats:
        total.update(one[key])
    return {key: dict(sorted(total.items()))}


def freeze(counts: dict[str, int], recipe: Recipe, what: str = "class") -> list[str]:
    """The labels in the order of the model's outputs.

    Those of ``data.labels`` if given; else the base model's own order where it has exactly these labels; else sorted, numbers
    by value. Raises :class:`DataError` for a label that ``data.labels`` lacks and for fewer than two labels, and
    :class:`ModelError` where the base model has other labels and must keep them.
    """
    found = sorted(counts, key=_order)
    declared = recipe.data.labels
    if declared is not None:
        extra = [label for label in found if label not in declared]
        if extra:
            near = nearest(extra[0], declared)
            hint = f"Did you mean {near!r}? " if near else ""
            raise DataError(
                f"training data has the label {extra[0]!r} ({counts[extra[0]]} rows), which data.labels does not name\n"
                f"    → {hint}Add it to data.labels, or mend the rows"
            )
        hub.check_labels(recipe, list(declared))
        return list(declared)
    if len(found) < 2:
        only = f"only the {what} {found[0]!r} ({counts[found[0]]} rows)" if found else f"no {what} at all"
        raise DataError(
            f"training data has {only}; there is nothing to tell apart\n"
            f"    → At least two are needed: add rows of another {what}, or see whether data.columns names the right column"
        )
    own = hub.own_labels(hub.load_config(recipe))
    chosen = own if sorted(own) == sorted(found) else found
    hub.check_labels(recipe, chosen)
    return chosen


def frozen(counts: dict[str, int], recipe: Recipe, what: str = "class") -> dict[str, Any]:
    """The part of a state that every task with classes has: ``labels``, and their ``label_counts`` in the same order.

    Counts are of loss units in the training split: examples of each class, positives of each label, words of each tag. Losses
    are weighed by them. Raises as :func:`freeze`.
    """
    names = freeze(counts, recipe, what)
    return {"labels": names, "label_counts": [counts.get(name, 0) for name in names]}


def recounted(state: State, stats: Stats) -> State:
    """The state with the counts of ``stats``, for a training split that was cut after its labels were fixed."""
    if "label_counts" not in state:
        return state
    return {**state, "label_counts": [stats["labels"].get(name, 0) for name in state["labels"]]}


def unknown(names: Iterable[str], state: State) -> str | None:
    """Why these labels cannot be used: the first that the state lacks, with the nearest one it has."""
    known = state["labels"]
    for name in names:
        if name not in known:
            near = nearest(name, known)
            return f"label {name!r} is not among the {len(known)} labels of the training data" + (
                f" (did you mean {near!r}?)" if near else ""
            )
    return None


def shares(examples: Iterable[Example], role: str, labels: Sequence[str]) -> list[float]:
    """Each label's share of the training rows, in the order of ``labels``."""
    counted = Counter(label_name(example[role]) for example in examples)
    total = sum(counted.values()) or 1
    return [counted[label] / total for label in labels]


def _order(label: str) -> tuple[int, float, str]:
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)
