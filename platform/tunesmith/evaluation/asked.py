"""A target asked about a whole split, resumable at the sample: what a log beside the result has is not asked again."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.prepared import Split
from tunesmith.errors import DataError, ServiceError, UserError
from tunesmith.evaluation.journal import Journal
from tunesmith.evaluation.judges import Which
from tunesmith.evaluation.predictions import Progress, Records, block_indices, in_blocks
from tunesmith.evaluation.results import SuiteResult
from tunesmith.evaluation.statistics import Estimate
from tunesmith.evaluation.targets import ServedTarget, Target
from tunesmith.tasks.base import Example, Preprocessing, Task
from tunesmith.tasks.classes import SAID

FORMAT = 1
LOG = "answers.jsonl"
"""Beside ``predictions.parquet``: one line for each sample, in the order in which the answers came."""
SUITES_LOG = "suites.jsonl"
"""The same of what suites ask (:mod:`tunesmith.evaluation.remembered`), until the evaluation is finished."""
HOPELESS = 16
"""Refused samples without one answer, after which it is not the samples."""
MOST_TOLD = 10


def job(target: ServedTarget, split: Split) -> dict[str, Any]:
    """What must be the same for answers to belong together: they are kept as they were read, so how that was counts too."""
    labels = hashlib.blake2b("\0".join(target.state.get("labels") or ()).encode(), digest_size=8).hexdigest()
    asked = {"name": target.name, "version": target.version, "task": target.task.name, "labels": labels}
    mapping = hashlib.blake2b(json.dumps(target.mapping(), sort_keys=True).encode(), digest_size=8).hexdigest()
    return {"format": FORMAT, "target": asked, "mapping": mapping, "data": split.hash}


def unfinished(base: Path, stem: str, wanted: dict[str, Any], finished: str) -> Path | None:
    """The newest folder ``STEM-…`` below ``base`` that was begun for the same job, and has no file ``finished`` yet."""
    for folder in sorted(base.glob(f"{stem}-*"), reverse=True):
        if not (folder / finished).exists() and begun(folder, wanted):
            return folder
    return None


def begun(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether a folder has a log of the same job."""
    try:
        with (folder / LOG).open("rb") as stream:
            return bool(json.loads(stream.readline()) == wanted)
    except (OSError, ValueError):
        return False


class Asked:
    """A target as a judge (:class:`tunesmith.evaluation.judges.Judges`): its answers come from the log, or are asked for."""

    def __init__(self, target: Target, journal: Journal) -> None:
        self.task: Task = target.task
        self.preprocessing = Preprocessing(target.state)
        self.resumed = len(journal)
        """Samples that an earlier command has asked for."""
        self.rate = math.nan
        """Samples that were answered a second, while this command asked."""
        self._target, self._journal = target, journal

    def has(self, which: Which) -> bool:
        """The model alone."""
        return which == "model"

    def records(self, which: Which, split: Split, progress: Progress | None = None) -> Records:
        """The split asked for and scored. Raises :class:`DataError` for samples that the target refuses."""
        assert which == "model", "a target is one model"
        self._ask(split, progress)
        for block in block_indices(len(split)):
            answers = [self._journal.get(int(index))["a"] for index in block]
            examples = split.examples(block)
            yield block, [self.task.score(a, e, self.preprocessing.state) for a, e in zip(answers, examples, strict=True)]

    def representation(self, which: Which, split: Split, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Raises :class:`UserError`: no server tells its hidden states."""
        raise UserError("a served model does not tell its hidden states\n    → Judge its run: tunesmith evaluate RUN.")

    def seconds(self) -> npt.NDArray[np.float64]:
        """How long the request of each sample took, where that is known."""
        kept = (self._journal.get(index).get("t") for index in range(len(self._journal)))
        return np.asarray([one for one in kept if one is not None], dtype=np.float64)

    def unmatched(self) -> list[tuple[int, str]]:
        """The samples whose answers name no label, in their order, with what was said instead."""
        kept = ((index, self._journal.get(index).get("a") or {}) for index in range(len(self._journal)))
        return [(index, str(answer[SAID])) for index, answer in kept if SAID in answer]

    def _ask(self, split: Split, progress: Progress | None) -> None:
        """Ask about every sample that the log does not have."""
        places: list[int] = []

        def waiting() -> Iterator[Example]:
            for index, example in enumerate(in_blocks(split)):
                if index not in self._journal:
                    places.append(index)
                    yield example

        start, before = time.monotonic(), len(self._journal)
        told = _throttled(progress, len(split))
        refused: list[tuple[int, str]] = []
        for reply in self._target.replies(waiting()):
            index = places[reply.index]
            if reply.answer is None:
                refused.append((index, str(reply.problem)))
                if len(refused) >= HOPELESS and not len(self._journal):
                    raise ServiceError(
                        f"{self._target.name} refuses every sample: {refused[0][1]}\n    → Does it take this data? "
                        "A target.yaml says how it is asked."
                    )
                continue
            self._journal.add(index, split.ids[index].as_py(), reply)
            told(len(self._journal))
        now = len(self._journal) - before
        self.rate = now / (time.monotonic() - start) if now else math.nan
        if refused:
            self._refused(sorted(refused), split)

    def _refused(self, refused: list[tuple[int, str]], split: Split) -> None:
        listed = "\n".join(f"    {split.place(index)}: {why}" for index, why in refused[:MOST_TOLD])
        more = f"\n    … and {len(refused) - MOST_TOLD:,} more" if len(refused) > MOST_TOLD else ""
        raise DataError(
            f"{self._target.name} refuses {len(refused):,} of {len(split):,} samples, so that nothing can be said of all:\n"
            f"{listed}{more}\n    → Leave them out of the data, or mend the server; what was answered is not asked again."
        )


def latency(judges: Asked, concurrency: int, batch_size: int) -> SuiteResult:
    """The suite ``latency`` by the requests of the evaluation itself: how long the request of each sample took."""
    from tunesmith.evaluation.load.figures import QUANTILES, quantile

    took = 1000 * judges.seconds()
    how = f"By the evaluation's own requests: up to {{}} each, {concurrency} at a time, repetitions included."
    each = f"{batch_size} samples" if batch_size > 1 else "one sample"
    return SuiteResult(
        title="Latency and load",
        n=len(took),
        measures={f"p{100 * q:g}_ms": quantile(took, q) for q in QUANTILES}
        | {"samples_per_second": Estimate(judges.rate, math.nan, math.nan, len(took), "none")},
        notes=[how.format(each), "`tunesmith loadtest` measures single requests, at a rate."],
    )


def _throttled(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Progress at most ten times a second."""
    last = 0.0

    def told(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if progress is not None and (done == total or now - last > 0.1):
            last = now
            progress("predict", done, total)

    return told
