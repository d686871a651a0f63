"""Prepare once: read and check the rows, split them, freeze the state, encode. Every worker opens the result by memory map.

The result is kept under a key of everything that matters, so a second run with the same data and settings starts at once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import storage
from tunesmith.data import key, rows, split
from tunesmith.data.cache import Cache
from tunesmith.data.care.audit import audit
from tunesmith.data.care.known import measured, read_known
from tunesmith.data.care.treat import Treated, count_made, treat
from tunesmith.data.domains import check_filled, check_labels, tell_unseen
from tunesmith.data.encode import Encoder
from tunesmith.data.ingest import Progress, ingest
from tunesmith.data.partition import partition
from tunesmith.data.parts import PASS, Part, collect, domains_of, labels_of, limited, problem_of, rows_hash
from tunesmith.data.prepared import MANIFEST, QUARANTINE, PreparedData
from tunesmith.data.problems import Problems
from tunesmith.data.sources import Source, Spec, describe, resolve, resolve_splits
from tunesmith.data.split_columns import method
from tunesmith.data.writing import EngineName, engine_for, write_split
from tunesmith.errors import DataError
from tunesmith.recipe.paths import absolute
from tunesmith.tasks.base import Preprocessing, State, Stats, Task
from tunesmith.tasks.labels import recounted
from tunesmith.tasks.weights import measure

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

Sources = Mapping[str, tuple[Source, ...]]


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
            storage.write_json(place, {"stats": collect(task, parts[0]), "rows": rows_of})
    found = storage.read_json(place)
    return found["stats"], found["rows"]


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
        state = task.freeze(collect(task, parts[0]), recipe) if frozen is None else frozen.state
        learned_from = len(parts[0].rows)
        parts = [limited(_admitted(part, task, state, problems), recipe) for part in parts]
        if frozen is None and len(parts[0].rows) != learned_from:
            state = recounted(state, collect(task, parts[0]))
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


def _check_domain_labels(train: Part, task: Task, recipe: Recipe) -> None:
    """That the named data sets of ``train`` have classes in common, where the task has classes."""
    stats = {name: collect(task, part).get("labels") for name, part in train.of_domains().items()}
    held = {name: [label for label, count in found.items() if count] for name, found in stats.items() if found is not None}
    check_labels(held, declared=recipe.data.labels is not None)


def _admitted(part: Part, task: Task, state: State, problems: Problems) -> Part:
    """The split without the rows that the frozen state cannot take; those are problems."""
    kept = []
    for indices, table in part.tables(PASS):
        examples = rows.examples(table, task.columns)
        reasons = [task.admit(example, state) for example in examples]
        good = np.array([reason is None for reason in reasons])
        kept.append(indices[good])
        for index in np.flatnonzero(~good):
            problems.add(problem_of(part, table, int(index), str(reasons[index])), examples[index])
    return Part(part.name, part.data, np.concatenate(kept) if kept else part.rows)


def check_usable(counts: Mapping[str, int], problems: Problems, total: int) -> None:
    """That every split has rows left."""
    empty = next((name for name, count in counts.items() if count == 0), None)
    if empty is not None:
        raise DataError(f"no row of the {empty} split can be used\n{problems.message(total)}")


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
                "labels": labels_of(part),
                **domains_of(part),
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
