"""Old data beside the new: what is replayed, and what is judged for retention; prepared once, and kept apart from each other.

Rows are compared by their inputs alone (the same image with another label is still the same image). The same ones, byte by
byte, are refused. Of what is replayed, those that are nearly the same as a judged row are found too, as ``data.leakage`` says
it of ``data.train``: refused where that is ``error``, told in a warning and the record otherwise.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunesmith import storage
from tunesmith.data import key as keys
from tunesmith.data import rows
from tunesmith.data.care import groups
from tunesmith.data.care.inputs import Inputs, of_split
from tunesmith.data.care.leaks import leaks
from tunesmith.data.care.treat import near_codes
from tunesmith.data.ingest import Progress
from tunesmith.data.inputs_only import SPLIT, have_targets, prepare_inputs
from tunesmith.data.prepare import prepare, prepare_frozen
from tunesmith.data.prepared import PreparedData, Split
from tunesmith.errors import DataError
from tunesmith.recipe.data import SplitSection
from tunesmith.recipe.few_shot import FewShotSection
from tunesmith.tasks.base import Preprocessing, Task

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.recipe.data import Source

log = logging.getLogger(__name__)

UNNAMED = "old"
"""The name of a retention set that has none in the recipe, and whose place gives none."""

_BLOCK = 4096

Make = Callable[["Recipe", Task, Preprocessing, "Source", str, Progress | None], "OldPlace"]
"""Prepares a retention set; the text is its key, for messages."""


@dataclass(frozen=True)
class OldPlace:
    """One prepared set."""

    path: str
    """Where its prepared data is."""
    split: str
    """The split's name there."""
    by: Literal["score", "drift"] = "score"
    """Whether the base's own head answers with its classes, or only representations can be compared: it has others, or none."""
    rows: int = 0
    source: tuple[str, ...] = ()
    near: Mapping[str, int] = field(default_factory=dict)
    """Of what is replayed, the rows that are nearly the same as one of a split that is judged, by split."""

    def open(self) -> Split:
        """The split."""
        return PreparedData.open(self.path).splits[self.split]


@dataclass(frozen=True)
class OldPlaces:
    """Everything old that a run has."""

    replay: OldPlace | None = None
    retention: Mapping[str, OldPlace] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> OldPlaces:
        """What :meth:`to_json` gave."""
        replay = stored.get("replay")
        kept = {name: OldPlace(**one) for name, one in (stored.get("retention") or {}).items()}
        return cls(OldPlace(**replay) if replay else None, kept)


def prepare_old(recipe: Recipe, task: Task, prepared: PreparedData, progress: Progress | None = None) -> OldPlaces:
    """Prepare what the recipe replays and retains, with the frozen state of the new data.

    Raises:
        DataError: replay data with other classes; replayed rows in the validation or test split; retained rows in what is
            trained on.
    """
    replay, sets = recipe.training.replay.data, named(recipe.evaluation.retention.data)
    if replay is None and not sets:
        return OldPlaces()
    preprocessing, found = Preprocessing(prepared.state, task.load_processor(recipe)), None
    if replay is not None:
        found = _frozen(recipe, task, preprocessing, replay, "training.replay.data", progress)
        for name in ("validation", "test"):
            if name in prepared.splits:
                why = "what is judged must not have been trained on"
                refuse_shared(task, "training.replay.data", found.open(), f"the {name} split", prepared.splits[name], why)
        if recipe.data.leakage != "off":
            found = replace(found, near=_near(recipe, task, found, prepared))
    retention = {}
    same = bool(sets) and task.load_base(recipe, prepared.state) is not None
    for name, source in sets.items():
        key = "evaluation.retention.data" + (f".{name}" if isinstance(recipe.evaluation.retention.data, dict) else "")
        make = _maker(recipe, task, source, key, same)
        retention[name] = make(recipe, task, preprocessing, source, key, progress)
        why = "rows that are trained on tell nothing of what was forgotten"
        if "train" in prepared.splits:  # else it is at other places
            refuse_shared(task, key, retention[name].open(), "the training split", prepared.splits["train"], why)
        if found is not None:
            refuse_shared(task, key, retention[name].open(), "the replayed data", found.open(), why)
    return OldPlaces(found, retention)


def _maker(recipe: Recipe, task: Task, source: Source, key: str, same: bool) -> Make:
    """How a retention set is prepared: by whether its rows have targets, and the base's head answers with the same classes."""
    split = "test" if same else "train"
    try:
        if not have_targets(recipe, task, source, split):
            return partial(_reference, split)
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
    return _frozen if same else _own


def named(data: Source | Mapping[str, Source] | None) -> dict[str, Source]:
    """The retention sets by name; one that the recipe gives without a name is called after its file or folder."""
    if data is None:
        return {}
    if isinstance(data, Mapping):
        return dict(data)
    first = storage.name(data if isinstance(data, str) else data[0])
    return {re.sub(r"[^A-Za-z0-9_-]+", "-", first.partition(".")[0]).strip("-") or UNNAMED: data}


def refuse_shared(task: Task, key: str, one: Split, what: str, other: Split, why: str) -> None:
    """Raises :class:`DataError` where rows of ``one``, the data at ``key``, stand in ``other`` with the same inputs."""
    mine, theirs = input_hashes(one, task), input_hashes(other, task)
    shared = np.flatnonzero(np.isin(mine, theirs))
    if len(shared):
        raise DataError(
            f"{key}: {len(shared):,} of its {len(mine):,} rows also stand in {what} ({_shown(one, shared)})"
            f"\n    → Take them out of one of the two: {why}"
        )


def _near(recipe: Recipe, task: Task, replayed: OldPlace, prepared: PreparedData) -> dict[str, int]:
    """How many of the replayed rows are nearly the same as a row of each split that is judged.

    Looked for once: the answer is kept beside the prepared data. Raises :class:`DataError` where ``data.leakage`` is ``error``.
    """
    asked = {"near": [storage.name(place) for place in (replayed.path, prepared.path)], "clean": recipe.data.clean.model_dump()}
    cache = recipe.data.cache_dir or storage.join(recipe.training.output_dir, ".cache")
    place = storage.join(cache, f"near-{keys.digest(asked)}.json")
    if not storage.exists(place):
        storage.write_json(place, _count_near(recipe, task, replayed.open(), prepared))
    found: dict[str, dict[str, Any]] = storage.read_json(place)
    for name, one in found.items():
        if not one["rows"]:
            continue
        what = f"{one['rows']:,} of its {replayed.rows:,} rows are nearly the same as rows of the {name} split ({one['shown']})"
        if recipe.data.leakage == "error":
            raise DataError(
                f"training.replay.data: {what}\n    → Take them out of it, or set data.leakage: report (the record says so)"
            )
        log.warning("training.replay.data: %s", what)
    return {name: one["rows"] for name, one in found.items()}


def _count_near(recipe: Recipe, task: Task, mine: Split, prepared: PreparedData) -> dict[str, dict[str, Any]]:
    """For each split that is judged, the number of rows of ``mine`` that are nearly in it, and where the first stand."""
    judged = {name: prepared.splits[name] for name in ("validation", "test") if len(prepared.splits.get(name, ()))}
    if not judged or not len(mine):
        return {}
    inputs = Inputs(task, {name: of_split(split, task) for name, split in {**judged, "replay": mine}.items()})
    near, _ = near_codes(inputs, groups.codes_of(inputs.keys), recipe.data.clean)
    places = {name: np.arange(inputs.span(name).start, inputs.span(name).stop) for name in inputs.given}
    found = {}
    for name in judged:
        gone = leaks(places[name], places["replay"], near).gone - inputs.starts["replay"]
        found[name] = {"rows": len(gone), "shown": _shown(mine, gone)}
    return found


def _shown(split: Split, indices: np.ndarray) -> str:
    """Where the first of some rows stand, for messages."""
    return "; ".join(split.place(int(index)) for index in indices[:3]) + (" …" if len(indices) > 3 else "")


def input_hashes(split: Split, task: Task) -> np.ndarray:
    """64 bits of each row's inputs, uint64 ``[n]``: the target left out, files by their contents."""
    made = (rows.content_hash(inputs, task.columns) for inputs in _inputs(split, task.target))
    return np.fromiter(made, np.uint64, len(split))


def _inputs(split: Split, target: str) -> Iterator[dict[str, Any]]:
    for start in range(0, len(split), _BLOCK):
        for example in split.examples(np.arange(start, min(start + _BLOCK, len(split)))):
            yield {role: value for role, value in example.items() if role != target}


def _frozen(
    recipe: Recipe, task: Task, preprocessing: Preprocessing, source: Source, key: str, progress: Progress | None
) -> OldPlace:
    """The data with the new data's own state: its classes must be among those."""
    try:
        prepared = prepare_frozen(
            recipe,
            task,
            preprocessing,
            source,
            output_dir=recipe.training.output_dir,
            base_dir=recipe.base_dir,
            progress=progress,
        )
    except DataError as error:
        fix = "Its rows must be as those of data.train, with classes that are there too"
        raise DataError(f"{key}: {_without(error, 'test')}\n    → {fix}") from error
    return _place(prepared, "test", "score")


def _own(
    recipe: Recipe, task: Task, preprocessing: Preprocessing, source: Source, key: str, progress: Progress | None
) -> OldPlace:
    """The data with classes of its own, of which only the inputs will be used."""
    nothing = SplitSection(validation=0.0, test=0.0)
    changes: dict[str, Any] = {
        "train": source,
        "validation": None,
        "test": None,
        "labels": None,
        "max_train_samples": None,
        "split": nothing,
    }
    changes |= {"known_faults": None, "few_shot": FewShotSection(), "label_errors": "off"}  # all rows, whatever their classes
    alone = recipe.model_copy(update={"data": recipe.data.model_copy(update={**changes, "format": "auto"})})
    try:
        prepared = prepare(alone, task, output_dir=recipe.training.output_dir, progress=progress)
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
    return _place(prepared, "train", "drift")


def _reference(
    split: str, recipe: Recipe, task: Task, preprocessing: Preprocessing, source: Source, key: str, progress: Progress | None
) -> OldPlace:
    """The data without targets, such as a reference text."""
    try:
        prepared = prepare_inputs(recipe, task, preprocessing.state, source, split, progress)
    except DataError as error:
        raise DataError(f"{key}: {_without(error, SPLIT)}") from error
    return _place(prepared, SPLIT, "drift")


def _without(error: DataError, split: str) -> str:
    """What an error says, without the name of the split as which the data is prepared: that is no matter of the user's."""
    return str(error).replace(f" ({split}): ", ": ").replace(f" of the {split} split", "")


def _place(prepared: PreparedData, split: str, by: Literal["score", "drift"]) -> OldPlace:
    found = prepared.splits[split]
    return OldPlace(prepared.path, split, by, len(found), tuple(found.source))
