"""Rows of which only the inputs are used, encoded with a frozen state: no target is asked for, and none reaches a feature."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import storage
from tunesmith.data import columns, key, rows
from tunesmith.data.cache import Cache
from tunesmith.data.encode import Encoder
from tunesmith.data.ingest import Ingested, Progress, ingest
from tunesmith.data.parts import Part, rows_hash
from tunesmith.data.prepare import check_usable, silent
from tunesmith.data.prepared import MANIFEST, QUARANTINE, PreparedData
from tunesmith.data.problems import Problems
from tunesmith.data.readers import Chunk
from tunesmith.data.sources import Source, Spec, describe, resolve
from tunesmith.data.writing import engine_for, write_split
from tunesmith.tasks.base import Preprocessing, State, Task

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

SPLIT = "unlabelled"

Choose = Callable[[Ingested], tuple[np.ndarray, dict[str, Any]]]
"""The rows that stay, sorted, and how many were left out for what."""


def have_targets(recipe: Recipe, task: Task, source: Spec, split: str) -> bool:
    """Whether any file of the data has a column for the task's target; of data with several splits ``split`` is read."""
    for chunk in itertools.chain.from_iterable(map(_heads, resolve(source, "auto", recipe.base_dir, split)[split])):
        there = chunk.table.column_names
        said = {role: name for role, name in recipe.data.columns.items() if role != task.target or name in there}
        if task.target in columns.match(there, task, said, chunk.file, need_target=False):
            return True
    return False


def _heads(source: Source) -> Iterator[Chunk]:
    """The first rows of each file; of a folder of images, whose files are rows, those of the folder."""
    alone = [source] if source.format == "imagefolder" else [replace(source, files=(file,)) for file in source.files]
    for one in alone:
        yield from itertools.islice(one.chunks(), 1)


def prepare_inputs(
    recipe: Recipe, task: Task, state: State, source: Spec, split: str, progress: Progress | None = None
) -> PreparedData:
    """All rows of other data, as the one split ``unlabelled``: found under its key, or made. Raises :class:`DataError`.

    ``split`` is what is read of data with several splits.
    """
    sources = {SPLIT: resolve(source, "auto", recipe.base_dir, split)[split]}
    cache = Cache(recipe.data.cache_dir or storage.join(recipe.training.output_dir, ".cache"))
    hashes = key.data_hashes(sources, cache.local)
    name = key.digest({"inputs": key.prepared_key(recipe, task, hashes, sources, state=state)})

    def build(folder: Path) -> None:
        encode_inputs(recipe, task, state, sources[SPLIT], hashes[SPLIT], folder, progress or silent, _all)

    return cache.get(name, build)


def encode_inputs(
    recipe: Recipe,
    task: Task,
    state: State,
    sources: Sequence[Source],
    data_hash: str,
    folder: Path,
    tell: Progress,
    choose: Choose,
) -> None:
    """The rows that ``choose`` takes, from files to a folder of prepared data.

    Raises :class:`DataError` for what is wrong with the rows, and where none can be used.
    """
    preprocessing = Preprocessing(state, task.load_processor(recipe))
    scratch = folder / "scratch"
    with Problems(recipe.data.on_bad_row, folder / QUARANTINE) as problems:
        settings = recipe.data
        data = ingest(SPLIT, sources, task, settings.columns, problems, scratch, tell, settings.clean.normalize, labelled=False)
        problems.settle({SPLIT: data.seen})
        check_usable({SPLIT: data.count}, problems, data.seen)
        chosen, left_out = choose(data)
        part = Part(SPLIT, data, chosen)
        encode = engine_for(settings.engine, len(chosen))
        part.rows = write_split(
            part, Encoder(task, preprocessing), encode, folder / SPLIT, problems, lambda n: tell("encode", n, len(chosen))
        )
        problems.settle({SPLIT: data.seen})
        check_usable({SPLIT: len(part.rows)}, problems, data.seen)
    shutil.rmtree(scratch)
    given = data.mapping.get(task.target)
    entry = {"rows": len(part.rows), "hash": rows_hash(part), "source_hash": data_hash, "files": data.files, "labels": None}
    about = {
        "format": key.FORMAT,
        "task": recipe.task,
        "columns": {role: name for role, name in data.mapping.items() if role != task.target},
        "roles": {role: column.kind for role, column in task.columns.items()},
        "splits": {SPLIT: {**entry, "source": describe({SPLIT: tuple(sources)})[SPLIT], "given": True}},
        "truth": rows.kept_name(given, task.columns) if given is not None else None,
        "left_out": left_out,
        "problems": problems.report(),
        "state": state,
    }
    storage.write_json(folder / MANIFEST, about)


def _all(data: Ingested) -> tuple[np.ndarray, dict[str, Any]]:
    return np.arange(data.count), {}
