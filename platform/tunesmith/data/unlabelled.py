"""Rows without a label: prepared with the labelled data's state, kept apart from what is judged, added to what is learned."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tunesmith import storage
from tunesmith.data import key, media_files, rows, tables
from tunesmith.data.cache import Cache
from tunesmith.data.care import groups
from tunesmith.data.care.inputs import Inputs, of_split
from tunesmith.data.care.leaks import leaks
from tunesmith.data.care.treat import near_codes
from tunesmith.data.encode import Encoder, batch_size
from tunesmith.data.ingest import Ingested, Progress
from tunesmith.data.inputs_only import SPLIT, encode_inputs
from tunesmith.data.prepare import silent
from tunesmith.data.prepared import FEATURES, MANIFEST, ROWS, PreparedData, Split
from tunesmith.data.sources import resolve
from tunesmith.data.split_columns import is_number, moments_of
from tunesmith.errors import DataError
from tunesmith.tasks.base import Preprocessing, Task
from tunesmith.tasks.weights import measure

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

log = logging.getLogger(__name__)

_APART = 4
"""Version of what is left out: rows that an earlier one kept are looked through anew."""

_LATE = "are as late as what is judged, or have no time (data.split.time)"


def prepare_unlabelled(
    recipe: Recipe, task: Task, labelled: PreparedData, progress: Progress | None = None
) -> PreparedData | None:
    """The rows of ``data.unlabelled``, encoded, as the one split ``unlabelled``; None where the recipe has none.

    Left out are copies of each other, copies of training rows, rows that stand in the validation or test split, exactly or
    nearly, and rows of a group that ``data.split.group`` keeps there, or as late as ``data.split.time`` puts there. The
    manifest has ``left_out`` with their numbers, and ``truth``: the column of labels that was there all the same.

    Raises:
        DataError: what is wrong with the rows, none that is left, or a task whose examples have not one class each.
    """
    section = recipe.data.unlabelled
    if section.data is None:
        return None
    if not one_class(task, labelled):
        raise DataError(
            f"data.unlabelled: an example of {task.name} does not have one class here, so a model cannot label it whole"
            "\n    → Remove data.unlabelled"
        )
    sources = {SPLIT: resolve(section.data, recipe.data.format, recipe.base_dir, SPLIT)[SPLIT]}
    cache = Cache(recipe.data.cache_dir or storage.join(recipe.training.output_dir, ".cache"))
    hashes = key.data_hashes(sources, cache.local)
    places = [source.files[0].uri for source in sources[SPLIT]]
    parts = {"labelled": storage.name(labelled.path), "data": hashes, "places": places, "apart": _APART, "format": key.FORMAT}
    if named := media_files.stamps(sources, task, recipe.data.columns):
        parts["media"] = named
    name = key.digest(parts)

    def choose(data: Ingested) -> tuple[np.ndarray, dict[str, Any]]:
        chosen, left_out = _apart(recipe, task, data, labelled)
        if not len(chosen):
            raise _none_left(data.count, left_out, labelled.manifest["split"]["by"])
        return chosen, left_out

    def build(folder: Path) -> None:
        encode_inputs(recipe, task, labelled.state, sources[SPLIT], hashes[SPLIT], folder, progress or silent, choose)

    return cache.get(name, build)


def _none_left(count: int, left_out: Mapping[str, Any], by: str) -> DataError:
    """The error that says why no row stays, by the numbers of :func:`_apart`."""
    beyond = sum(one.get(by, 0) for one in left_out.values() if isinstance(one, dict))
    why = "they stand in the labelled data"
    if beyond:
        side = "are of a group that is judged (data.split.group)" if by == "group" else _LATE
        why = f"{beyond:,} {side}" + (", the others stand in the labelled data" if beyond < count else "")
    return DataError(
        f"data.unlabelled: none of its {count:,} usable rows is left: {why}"
        "\n    → Give rows that are not among those of data.train, data.validation and data.test"
        + (", nor on the side of what is judged." if beyond else ".")
    )


def one_class(task: Task, labelled: PreparedData) -> bool:
    """Whether every example has exactly one class of the state's labels."""
    several = labelled.state.get("multi_label", False)
    return task.columns[task.target].kind in ("label", "labels") and "labels" in labelled.state and not several


def _apart(recipe: Recipe, task: Task, data: Ingested, labelled: PreparedData) -> tuple[np.ndarray, dict[str, Any]]:
    """The rows that stay, sorted, and how many were left out for what."""
    order = [name for name in ("validation", "test", "train") if name in labelled.splits]
    given: dict[str, Ingested] = {name: of_split(labelled.splits[name], task) for name in order}
    inputs = Inputs(task, {**given, SPLIT: data})
    exact = groups.codes_of(inputs.keys)
    near, looked = near_codes(inputs, exact, recipe.data.clean)
    span = inputs.span(SPLIT)
    mine = np.arange(span.start, span.stop)
    kept = np.sort(span.start + np.unique(exact[span], return_index=True)[1])
    found: dict[str, Any] = {"seen": data.count, "copies": len(mine) - len(kept), "near_looked_for": looked["done"]}
    for name in order:
        theirs = np.arange(inputs.span(name).start, inputs.span(name).stop)
        same = leaks(theirs, kept, exact).gone
        kept = np.setdiff1d(kept, same)
        close = (
            leaks(theirs, kept, near).gone if name != "train" else same[:0]
        )  # what is near a training row can be learned from
        kept = np.setdiff1d(kept, close)
        found[name] = {"exact": len(same), "near": len(close)}
    chosen = kept - span.start
    by = labelled.manifest["split"]["by"]
    for cut, mine in _beyond_the_cut(by, recipe, task, data, labelled).items():
        together = chosen[mine[chosen]]
        chosen = np.setdiff1d(chosen, together)
        found[cut][by] = len(together)
    return chosen, found


def _beyond_the_cut(by: str, recipe: Recipe, task: Task, data: Ingested, labelled: PreparedData) -> dict[str, np.ndarray]:
    """For each split that is apart from ``train`` by group or time, which rows are on its side.

    Those are the rows of its groups, or those as late as its first one: what the model is judged by must still be ahead of it.
    A given split is apart where ``data.leakage`` sees to it.
    """
    if by not in ("group", "time"):
        return {}
    column = (recipe.data.split.group if by == "group" else recipe.data.split.time) or ""
    kept = rows.kept_name(column, task.columns)
    apart = recipe.data.leakage not in ("report", "off")
    judged: dict[str, pa.ChunkedArray] = {}
    for name in (name for name in ("validation", "test") if name in labelled.splits):
        if labelled.manifest["splits"][name]["given"] and not apart:  # its rows may be on the side of train
            continue
        table = labelled.splits[name].rows()
        there = next((one for one in (column, kept) if one in table.column_names), None)
        if there is not None and table[there].null_count < len(table):  # a given split may lack it
            judged[name] = table[there]
    if not judged:
        return {}
    own = next((role for role, name in data.mapping.items() if name == column and role != task.target), kept)
    if own not in data.schema.names:
        what = "of the groups that are judged" if by == "group" else "as late as those that are judged"
        log.warning("data.unlabelled has no column %r: rows %s cannot be told and left out", column, what)
        return {}
    return (_of_groups if by == "group" else _as_late)(data.column(own), judged)


def _of_groups(mine: pa.ChunkedArray, judged: Mapping[str, pa.ChunkedArray]) -> dict[str, np.ndarray]:
    """Which rows have a group of each split, by the values of the column of groups."""
    texts = [tables.as_text(value) for value in mine.to_pylist()]
    groups = {name: {tables.as_text(value) for value in column.to_pylist()} for name, column in judged.items()}
    return {name: np.array([text is not None and text in some for text in texts], bool) for name, some in groups.items()}


def _as_late(mine: pa.ChunkedArray, judged: Mapping[str, pa.ChunkedArray]) -> dict[str, np.ndarray]:
    """Which rows are not earlier than the first of each split, or have no time that can be read; raises :class:`DataError`."""
    moments, bad = moments_of(mine)
    found: dict[str, np.ndarray] = {}
    for name, column in reversed(list(judged.items())):  # the latest first: a row counts for the last split that it reaches
        if is_number(mine) != is_number(column):
            raise DataError(
                "data.unlabelled: the column of data.split.time holds numbers here and dates in data.train, or the other way "
                "round: rows later than those that are judged cannot be told\n    → Write both alike."
            )
        late = moments >= moments_of(column.drop_null())[0].min()
        late[bad] = True
        found[name] = late
    return found


def truth_of(unlabelled: PreparedData) -> list[Any] | None:
    """The labels that the rows had all the same, in their order; None where there is no such column."""
    column = unlabelled.manifest["truth"]
    return None if column is None else unlabelled.splits[SPLIT].rows()[column].to_pylist()


def with_pseudo_labels(
    recipe: Recipe, task: Task, labelled: PreparedData, unlabelled: PreparedData, chosen: np.ndarray, names: Sequence[str]
) -> PreparedData:
    """The labelled data with the rows ``chosen`` (sorted) of the unlabelled ones behind its training rows.

    ``names`` are their labels. Validation and test rows are the same; labels are counted anew.
    """
    drawn = hashlib.blake2b(chosen.astype("<i8").tobytes() + "\0".join(names).encode(), digest_size=16).hexdigest()
    cache = Cache(recipe.data.cache_dir or storage.join(recipe.training.output_dir, ".cache"))
    own = [storage.name(one.path) for one in (labelled, unlabelled)]
    name = key.digest({"labelled": own[0], "unlabelled": own[1], "drawn": drawn, "format": key.FORMAT})
    return cache.get(name, lambda folder: _join(recipe, task, labelled, unlabelled, chosen, names, drawn, folder))


def _join(
    recipe: Recipe,
    task: Task,
    labelled: PreparedData,
    unlabelled: PreparedData,
    chosen: np.ndarray,
    names: Sequence[str],
    drawn: str,
    folder: Path,
) -> None:
    for other in (name for name in labelled.splits if name != "train"):
        shutil.copytree(labelled.folder / other, folder / other, copy_function=_linked)
    (folder / "train").mkdir()
    encode = Encoder(task, Preprocessing(labelled.state, task.load_processor(recipe)))
    before, added = labelled.splits["train"], unlabelled.splits[SPLIT]
    offset = len(labelled.manifest["splits"]["train"]["files"])
    blocks = range(0, len(chosen), batch_size(task))
    fresh = [_labelled(added, task, chosen[at : at + blocks.step], names[at : at + blocks.step], offset) for at in blocks]
    schema = _common([_schema(before.folder / ROWS), *(table.schema for table in fresh)])
    with tables.TableWriter(folder / "train" / ROWS) as row_file, tables.TableWriter(folder / "train" / FEATURES) as features:
        for table in _stored(before.folder / ROWS):
            row_file.write(tables.fit(table, schema))
        for table in _stored(before.folder / FEATURES):
            features.write(table)
        for table in fresh:
            found = encode(table)
            assert found.features is not None, "rows that were encoded once are encoded again"
            assert not found.failures, "rows that were encoded once are encoded again"
            row_file.write(tables.fit(table, schema))
            features.write(found.features)
    storage.write_json(folder / MANIFEST, _manifest(labelled, unlabelled, names, drawn))


def _labelled(split: Split, task: Task, indices: np.ndarray, names: Sequence[str], offset: int) -> pa.Table:
    """Some unlabelled rows with their label, and the number of their file among those of both."""
    with pa.memory_map(str(split.folder / ROWS)) as stream:
        table = pa.ipc.open_file(stream).read_all().take(pa.array(indices))
    files = pa.array(np.asarray(table[rows.FILE]) + offset, pa.int32())
    table = table.set_column(table.column_names.index(rows.FILE), rows.FILE, files)
    kept = [name for name in table.column_names if name.removesuffix(":bytes") in task.columns or name in rows.OWN]
    return table.select(kept).append_column(task.target, pa.array(list(names), pa.string()))


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """All columns, each with the type that holds its values in both: the labelled rows' first."""
    order = dict.fromkeys(name for schema in schemas for name in schema.names)
    kinds = {name: tables.common_type(one.field(name).type for one in schemas if name in one.names) for name in order}
    return pa.schema(list(kinds.items()))


def _manifest(labelled: PreparedData, unlabelled: PreparedData, names: Sequence[str], drawn: str) -> dict[str, Any]:
    """That of the labelled data, with the training split as it is now."""
    state = labelled.state
    known = state["labels"]
    added = np.bincount([known.index(name) for name in names], minlength=len(known))
    counts = {name: int(count) for name, count in zip(known, added, strict=True)}
    first, more = labelled.manifest["splits"]["train"], unlabelled.manifest["splits"][SPLIT]
    before = first["labels"] or {}
    train = {
        **first,
        "rows": first["rows"] + len(names),
        "hash": hashlib.blake2b(f"{first['hash']}{more['hash']}{drawn}".encode(), digest_size=16).hexdigest(),
        "source": [*first["source"], *more["source"]],
        "files": [*first["files"], *more["files"]],
        "labels": {name: n for name in sorted(counts) if (n := before.get(name, 0) + counts[name])},
    }
    if "label_counts" in state:
        state = {**state, "label_counts": [old + counts[name] for name, old in zip(known, state["label_counts"], strict=True)]}
    found = {**labelled.manifest, "splits": {**labelled.manifest["splits"], "train": train}, "state": state}
    return {**found, "imbalance": measure(known, state["label_counts"]) if "label_counts" in state else None}


def _schema(file: Path) -> pa.Schema:
    with pa.memory_map(str(file)) as stream:
        return pa.ipc.open_file(stream).schema


def _stored(file: Path) -> Iterator[pa.Table]:
    """The record batches of a file, one at a time."""
    with pa.memory_map(str(file)) as stream:
        reader = pa.ipc.open_file(stream)
        for index in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(index)])


def _linked(source: str, target: str) -> None:
    """The same file under another name, or a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
