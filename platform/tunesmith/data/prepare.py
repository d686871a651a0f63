"""Prepare once: read and check the rows, split them, freeze the state, encode. Every worker opens the result by memory map.

The result is kept under a key of everything that matters, so a second run with the same data and settings starts at once.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from tunesmith import storage
from tunesmith.data import key, rows, split, tables
from tunesmith.data.cache import Cache
from tunesmith.data.care import groups
from tunesmith.data.care.audit import audit
from tunesmith.data.care.known import measured, read_known
from tunesmith.data.care.treat import Treated, count_made, treat
from tunesmith.data.domains import Domains, check_filled, check_labels, tell_unseen
from tunesmith.data.encode import Encoder, Engine, batch_size, encode_here
from tunesmith.data.ingest import Ingested, Progress, ingest
from tunesmith.data.partition import partition
from tunesmith.data.prepared import FEATURES, MANIFEST, QUARANTINE, ROWS, PreparedData
from tunesmith.data.problems import Problem, Problems
from tunesmith.data.sources import Source, Spec, describe, resolve, resolve_splits
from tunesmith.data.split_columns import method
from tunesmith.errors import DataError
from tunesmith.recipe.paths import absolute
from tunesmith.tasks.base import Preprocessing, State, Stats, Task
from tunesmith.tasks.labels import recounted
from tunesmith.tasks.weights import measure

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

log = logging.getLogger(__name__)

EngineName = Literal["auto", "local", "ray"]
Sources = Mapping[str, tuple[Source, ...]]

RAY_ROWS = 200_000
"""Rows from which ``data.engine: auto`` takes Ray Data, on a cluster of several nodes."""

_PASS = 4096
"""Rows at a time where they are only looked at."""


def prepare(
    recipe: Recipe, task: Task, *, output_dir: str, progress: Progress | None = None, engine: EngineName | None = None
) -> PreparedData:
    """The recipe's data, prepared: found under its key, or made.

    ``output_dir`` is where runs are kept; the cache is ``.cache`` in it unless ``data.cache_dir`` says otherwise.
    Raises :class:`DataError` for what is wrong with the data, :class:`UserError` where the cache cannot be written.
    """
    sources = resolve_splits(recipe.data, recipe.base_dir)
    cache = Cache(recipe.data.cache_dir or storage.join(output_dir, ".cache"))
    hashes = key.data_hashes(sources, cache.local)
    name = key.prepared_key(recipe, task, hashes, sources)
    return cache.get(name, lambda folder: _build(recipe, task, sources, folder, progress or silent, engine, hashes))


def prepare_frozen(
    recipe: Recipe,
    task: Task,
    preprocessing: Preprocessing,
    source: Spec,
    *,
    output_dir: str,
    base_dir: str = ".",
    progress: Progress | None = None,
    engine: EngineName | None = None,
) -> PreparedData:
    """Other data for a model whose state is frozen, as the one split ``test``: the same checks, nothing learned from it.

    ``source`` is a path, glob, URI or Hub id, a list of them, or a mapping from names to such, each a domain; relative to
    ``base_dir``. A label that the state lacks is a bad row. Raises :class:`DataError`.
    """
    sources = {"test": resolve(source, "auto", base_dir, "test")["test"]}
    cache = Cache(recipe.data.cache_dir or storage.join(output_dir, ".cache"))
    hashes = key.data_hashes(sources, cache.local)
    name = key.prepared_key(recipe, task, hashes, sources, state=preprocessing.state)

    def build(folder: Path) -> None:
        _build(recipe, task, sources, folder, progress or silent, engine, hashes, preprocessing)

    return cache.get(name, build)


def statistics(recipe: Recipe, task: Task, *, output_dir: str) -> tuple[Stats, dict[str, int]]:
    """What the state of :func:`prepare` would be frozen from, and the rows of each split.

    Nothing is frozen or encoded: rows of one class alone have statistics too. They are kept beside the prepared data, under its
    key: the same rows are read once. Raises as :func:`prepare` does of rows.
    """
    sources = resolve_splits(recipe.data, recipe.base_dir)
    where = recipe.data.cache_dir or storage.join(output_dir, ".cache")
    cache = Cache(where)
    name = key.prepared_key(recipe, task, key.data_hashes(sources, cache.local), sources)
    place = storage.join(where, f"statistics-{name}.json")
    if not storage.exists(place):
        with cache.scratch("statistics") as folder, Problems(recipe.data.on_bad_row, folder / QUARANTINE) as problems:
            parts = _read(recipe, task, sources, folder / "scratch", problems, silent, _Clock(), learning=True).parts
            rows_of = {part.name: len(part.rows) for part in parts}
            storage.write_json(place, {"stats": _collect(task, parts[0]), "rows": rows_of})
    found = storage.read_json(place)
    return found["stats"], found["rows"]


@dataclass
class Part:
    """The rows of one split: which ones of an ingested file."""

    name: str
    data: Ingested
    rows: np.ndarray
    """Sorted indices, int64."""

    @property
    def domains(self) -> Domains | None:
        """The named data set of each row."""
        return self.data.domains.take(self.rows) if self.data.domains is not None else None

    def of_domains(self) -> dict[str, Part]:
        """The rows of each named data set that has any here."""
        found = self.domains.rows() if self.domains is not None else {}
        return {name: Part(self.name, self.data, self.rows[chosen]) for name, chosen in found.items()}

    def tables(self, size: int) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """The rows in order, ``size`` at a time, each with their indices."""
        chosen = np.zeros(self.data.count, dtype=bool)
        chosen[self.rows] = True
        start = done = waiting = 0
        parts: list[pa.Table] = []
        for table in self.data.tables(size):
            mask = chosen[start : start + len(table)]
            start += len(table)
            if not mask.any():
                continue
            parts.append(table if mask.all() else table.filter(mask))
            waiting += len(parts[-1])
            if waiting >= size:
                whole = pa.concat_tables(parts)
                yield self.rows[done : done + size], whole.slice(0, size)
                parts, waiting, done = [whole.slice(size)], waiting - size, done + size
        if waiting:
            yield self.rows[done:], pa.concat_tables(parts)


def _build(
    recipe: Recipe,
    task: Task,
    sources: Sources,
    folder: Path,
    progress: Progress,
    engine: EngineName | None,
    hashes: Mapping[str, str],
    frozen: Preprocessing | None = None,
) -> None:
    """Everything, from files to a folder of prepared data, in order."""
    clock = _Clock()
    scratch = folder / "scratch"
    with Problems(recipe.data.on_bad_row, folder / QUARANTINE) as problems:
        read = _read(recipe, task, sources, scratch, problems, progress, clock, learning=frozen is None)
        parts, seen, treated = read.parts, read.seen, read.treated
        state = task.freeze(_collect(task, parts[0]), recipe) if frozen is None else frozen.state
        learned_from = len(parts[0].rows)
        parts = [_limited(_admitted(part, task, state, problems), recipe) for part in parts]
        if frozen is None and len(parts[0].rows) != learned_from:
            state = recounted(state, _collect(task, parts[0]))
        problems.settle(seen)
        check_usable({part.name: len(part.rows) for part in parts}, problems, sum(seen.values()))
        clock.lap("split")

        preprocessing = frozen or Preprocessing(state, task.load_processor(recipe))
        encoder, total = Encoder(task, preprocessing), sum(len(part.rows) for part in parts)
        run = engine_for(engine or recipe.data.engine, total)
        done = 0
        for part in parts:
            part.rows = write_split(
                part, encoder, run, folder / part.name, problems, lambda n, d=done: progress("encode", d + n, total)
            )
            done += len(part.rows)
        problems.settle(seen)
        check_usable({part.name: len(part.rows) for part in parts}, problems, sum(seen.values()))
        for part in parts:
            if part.data.name == part.name != "train":  # given as it is, and perhaps with classes that training lacks
                check_filled(part.name, part.domains, f"can be used\n{problems.message(sum(seen.values()))}")
        if frozen is None:
            tell_unseen(parts[0].domains)
        clock.lap("encode")
    shutil.rmtree(scratch)
    storage.write_json(folder / MANIFEST, _manifest(recipe, task, sources, hashes, parts, state, problems, treated, clock))


@dataclass
class _Read:
    """Rows that were read, checked, cared for and split; nothing is learned of them yet."""

    parts: list[Part]
    seen: dict[str, int]
    """Rows that each source had."""
    treated: Treated


def _read(
    recipe: Recipe,
    task: Task,
    sources: Sources,
    scratch: Path,
    problems: Problems,
    progress: Progress,
    clock: _Clock,
    *,
    learning: bool,
) -> _Read:
    """From files to the rows of each split; without ``learning`` all of them are the split ``test``."""
    given = {
        name: ingest(name, members, task, recipe.data.columns, problems, scratch / name, progress, recipe.data.clean.normalize)
        for name, members in sources.items()
    }
    seen = {name: data.seen for name, data in given.items()}
    problems.settle(seen)
    check_usable({name: data.count for name, data in given.items()}, problems, sum(seen.values()))
    for name, data in given.items():
        check_filled(name, data.domains, f"can be used\n{problems.message(sum(seen.values()))}")
    listed = absolute(recipe.data.known_faults, recipe.base_dir) if recipe.data.known_faults and learning else None
    known = read_known(listed, task, given)
    clock.lap("read")

    progress("care", 0, 0)
    treated = treat(recipe.data, task, given, scratch, learning=learning)
    for name, data in treated.given.items():
        left = data.domains and data.domains.take(treated.kept[name])
        check_filled(name, left, "is left without duplicates, conflicts and leaks\n    → Leave the domain out.")
    clock.lap("care")

    made = partition(recipe.data, treated) if learning else {"test": (given["test"], treated.kept["test"])}
    parts = [Part(name, data, chosen) for name, (data, chosen) in made.items()]
    if learning:
        count_made(treated, task, made)
        if recipe.data.label_errors != "off":
            progress("audit", 0, 0)
        parts[0].rows, treated.found["label_errors"] = audit(recipe.data, task, parts[0].data, parts[0].rows, treated.flags)
        treated.found |= {"known_faults": measured(known, treated.flags)} if known else {}
        _check_domain_labels(parts[0], task, recipe)
    return _Read(parts, seen, treated)


def _collect(task: Task, part: Part) -> Stats:
    """The statistics of all rows of a split, shard by shard."""
    stats: list[Stats] = []
    for _, table in part.tables(_PASS):
        stats.append(task.collect(rows.examples(table, task.columns)))
        if len(stats) == 64:
            stats = [task.merge(stats)]
    return task.merge(stats)


def _check_domain_labels(train: Part, task: Task, recipe: Recipe) -> None:
    """That the named data sets of ``train`` have classes in common, where the task has classes."""
    stats = {name: _collect(task, part).get("labels") for name, part in train.of_domains().items()}
    held = {name: [label for label, count in found.items() if count] for name, found in stats.items() if found is not None}
    check_labels(held, declared=recipe.data.labels is not None)


def _admitted(part: Part, task: Task, state: State, problems: Problems) -> Part:
    """The split without the rows that the frozen state cannot take; those are problems."""
    kept = []
    for indices, table in part.tables(_PASS):
        examples = rows.examples(table, task.columns)
        reasons = [task.admit(example, state) for example in examples]
        good = np.array([reason is None for reason in reasons])
        kept.append(indices[good])
        for index in np.flatnonzero(~good):
            problems.add(_problem(part, table, int(index), str(reasons[index])), examples[index])
    return Part(part.name, part.data, np.concatenate(kept) if kept else part.rows)


def _limited(part: Part, recipe: Recipe) -> Part:
    """The training and validation splits cut to ``data.max_train_samples`` and ``data.max_validation_samples``, drawn so that
    classes and domains keep their shares, or the first to ``data.few_shot.per_class`` rows of each class; others as they are.
    """
    if part.name == "train" and recipe.data.few_shot.per_class is not None:
        return _few(part, recipe.data.few_shot.per_class, recipe.data.few_shot.seed)
    limits = {"train": recipe.data.max_train_samples, "validation": recipe.data.max_validation_samples}
    size = limits.get(part.name)
    if size is None or size >= len(part.rows):
        return part
    strata = part.data.strata[part.rows] if part.data.strata is not None else None
    if part.domains is not None:
        strata = part.domains.codes if strata is None else groups.pair_codes(strata, part.domains.codes)
    return Part(part.name, part.data, part.rows[split.subset(len(part.rows), size, strata, recipe.data.split.seed)])


def _few(part: Part, per_class: int, seed: int) -> Part:
    """So many rows of each class, of which domains keep their shares.

    Raises :class:`DataError` where there are no classes, or too few rows of one.
    """
    if part.data.strata is None:
        raise DataError("data.few_shot: the rows have no class to draw by\n    → Use data.max_train_samples.")
    strata = part.data.strata[part.rows]
    counts = np.bincount(strata, minlength=len(part.data.classes))
    short = [f"{part.data.classes[c]!r} has {counts[c]}" for c in np.flatnonzero((counts > 0) & (counts < per_class))]
    if short:
        more = f", and {len(short) - 5} more" if len(short) > 5 else ""
        raise DataError(
            f"data.few_shot.per_class is {per_class}, but the training split has fewer rows of some classes: "
            f"{', '.join(short[:5])}{more}\n    → Lower data.few_shot.per_class to {int(counts[counts > 0].min())}."
        )
    if part.domains is None:
        return Part(part.name, part.data, part.rows[split.per_class(strata, per_class, seed)])
    of_class = (np.flatnonzero(strata == code) for code in np.unique(strata))
    drawn = [some[split.subset(len(some), per_class, part.domains.codes[some], seed)] for some in of_class]
    return Part(part.name, part.data, part.rows[np.sort(np.concatenate(drawn))])


def write_split(part: Part, encoder: Encoder, engine: Engine, folder: Path, problems: Problems, progress: Any) -> np.ndarray:
    """Encode a split into its two files; returns the indices of the rows that could be encoded."""
    folder.mkdir()
    waiting: list[tuple[np.ndarray, pa.Table]] = []

    def batches() -> Iterator[pa.Table]:
        for indices, table in part.tables(batch_size(encoder.task)):
            waiting.append((indices, table))
            yield table

    ids = _ids(part)
    kept = []
    with tables.TableWriter(folder / ROWS) as row_file, tables.TableWriter(folder / FEATURES) as feature_file:
        done = 0
        for encoded in engine(encoder, batches()):
            indices, table = waiting.pop(0)
            for index, reason in encoded.failures:
                example = rows.examples(table.slice(index, 1), encoder.task.columns)[0]
                problems.add(_problem(part, table, index, reason), example)
            if encoded.features is not None:
                named = table.append_column(rows.ID, ids(indices)).drop_columns([rows.HASH])
                row_file.write(named.filter(encoded.kept) if encoded.failures else named)
                feature_file.write(encoded.features)
            kept.append(indices[encoded.kept])
            done += len(indices)
            progress(done)
    return np.concatenate(kept)


def _ids(part: Part) -> Any:
    """A function from row indices to ids: the content's hash, with ``-2``, ``-3`` … for further rows of the same content."""
    hashes = part.data.hashes
    ordinals = np.zeros(part.data.count, dtype=np.int32)
    ordinals[part.rows] = split.rank_within(hashes[part.rows])

    def ids(indices: np.ndarray) -> pa.Array:
        pairs = zip(hashes[indices].tolist(), ordinals[indices].tolist(), strict=True)
        return pa.array(
            [f"{value:016x}" if ordinal == 0 else f"{value:016x}-{ordinal + 1}" for value, ordinal in pairs], pa.string()
        )

    return ids


def _problem(part: Part, table: pa.Table, index: int, reason: str) -> Problem:
    file = part.data.files[table[rows.FILE][index].as_py()]
    return Problem(part.name, file, table[rows.ROW][index].as_py(), reason)


def check_usable(counts: Mapping[str, int], problems: Problems, total: int) -> None:
    """That every split has rows left."""
    empty = next((name for name, count in counts.items() if count == 0), None)
    if empty is not None:
        raise DataError(f"no row of the {empty} split can be used\n{problems.message(total)}")


def engine_for(name: EngineName, total: int) -> Engine:
    """The function that encodes: in this process, or over the cluster."""
    if name == "local" or (name == "auto" and not (total >= RAY_ROWS and _several_nodes())):
        return encode_here
    from tunesmith.data.engine_ray import encode_on_cluster

    return encode_on_cluster


def _several_nodes() -> bool:
    """Whether this process has joined a Ray cluster of several nodes."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and sum(bool(node["Alive"]) for node in ray.nodes()) > 1


def _manifest(
    recipe: Recipe,
    task: Task,
    sources: Sources,
    hashes: Mapping[str, str],
    parts: Sequence[Part],
    state: State,
    problems: Problems,
    treated: Treated,
    clock: _Clock,
) -> dict[str, Any]:
    """What was prepared, as plain data."""
    specs = describe(sources)
    first = parts[0].data
    return {
        "format": key.FORMAT,
        "task": recipe.task,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "columns": first.mapping,
        "roles": {role: column.kind for role, column in task.columns.items()},
        "splits": {
            part.name: {
                "rows": len(part.rows),
                "hash": rows_hash(part),
                "source": specs[part.data.name],
                "source_hash": hashes[part.data.name],
                "given": part.name in sources,
                "files": part.data.files,
                "labels": _labels(part),
                **_domains(part),
            }
            for part in parts
        },
        "split": {**recipe.data.split.model_dump(mode="json"), "by": method(recipe.data, first)},
        "split_hash": split.indices_hash({part.name: part.rows for part in parts}),
        "imbalance": measure(state["labels"], state["label_counts"]) if "label_counts" in state else None,
        "problems": problems.report(),
        "care": {**treated.found, "missing": problems.count("missing", "empty")},
        "state": state,
        "durations": clock.laps,
    }


def _domains(part: Part) -> dict[str, Any]:
    """Rows and classes of each named data set, in the order of their codes; nothing where data sets have no names."""
    if part.domains is None:
        return {}
    of_domains, counts = part.of_domains(), part.domains.counts()
    labels = {name: _labels(one) for name, one in of_domains.items()}
    return {"domains": {name: {"rows": count, "labels": labels.get(name)} for name, count in counts.items()}}


def rows_hash(part: Part) -> str:
    """BLAKE2b-128 over the contents of the split's rows, in order."""
    return hashlib.blake2b(part.data.hashes[part.rows].astype("<u8").tobytes(), digest_size=16).hexdigest()


def _labels(part: Part) -> dict[str, int] | None:
    """Rows of each class, or None where the task has no classes."""
    if part.data.strata is None:
        return None
    counts = np.bincount(part.data.strata[part.rows], minlength=len(part.data.classes))
    return {name: int(count) for name, count in sorted(zip(part.data.classes, counts, strict=True)) if count}


class _Clock:
    """Seconds that each stage took."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


def silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""
