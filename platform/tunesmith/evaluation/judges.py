"""Who answers for a run when it is judged: its models in this process (:class:`Here`), or on a cluster
(:mod:`tunesmith.cluster.judges`), with the same records.

A split is answered block by block, and a block in parts that do not depend on who answers: part ``k`` of ``m`` is every m-th of
the block's batches. Put together in order they are the same batches, whoever forms them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tunesmith.errors import TunesmithError
from tunesmith.evaluation.predictions import BLOCK, Progress, Records, block_indices
from tunesmith.evaluation.predictor import Predictor, is_out_of_memory

if TYPE_CHECKING:
    from tunesmith.data.prepared import Split
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Answer, Features, Preprocessing, Record, Task

Which = Literal["model", "base", "start"]
"""The run's model; the pre-trained one with its own head; the pre-trained one with the head that training began with."""

Scored = tuple[npt.NDArray[np.int64], "list[Record]"]
"""Places in a block, and the record of each."""


class Judges(Protocol):
    """The models of one run, ready to answer."""

    task: Task
    preprocessing: Preprocessing

    def has(self, which: Which) -> bool:
        """Whether the run has that model: a base may answer with other classes. Raises :class:`UserError` if it is gone."""

    def records(self, which: Which, split: Split, progress: Progress | None = None) -> Records:
        """The split predicted and scored, block by block: indices, and the records in their order."""

    def representation(self, which: Which, split: Split, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The trunk's hidden states of these examples ``[n, width]`` (:mod:`tunesmith.evaluation.drift`)."""


class Here:
    """In this process: on its first GPU, or its CPU."""

    def __init__(self, run: Run, predictor: Predictor | None = None) -> None:
        self._run = run
        self._model = predictor or Predictor.load(run.local_model())
        self._other: tuple[Which, Predictor | None] | None = None
        self.task: Task = self._model.task
        self.preprocessing: Preprocessing = self._model.preprocessing

    @property
    def predictor(self) -> Predictor:
        """The run's own model."""
        return self._model

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``: batches differ between the two."""
        return self._model.device.type

    def has(self, which: Which) -> bool:
        """Whether there is such a model."""
        return self._loaded(which) is not None

    def records(self, which: Which, split: Split, progress: Progress | None = None) -> Records:
        """One block after the other."""
        return records_of(self._there(which), split, progress)

    def part(self, which: Which, split: Split, block: npt.NDArray[np.int64], part: int, of: int) -> Scored:
        """One of several parts of a block; a part may be empty."""
        found = list(_batches(self._there(which), split, block, slice(part, None, of)))
        if not found:
            return np.zeros(0, np.int64), []
        return np.concatenate([places for places, _ in found]), [record for _, records in found for record in records]

    def representation(self, which: Which, split: Split, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The hidden states of one of the models."""
        from tunesmith.evaluation import drift

        return drift.representation(self._there(which), split, indices)

    def _there(self, which: Which) -> Predictor:
        found = self._loaded(which)
        assert found is not None, "asked for a model that the run has not"
        return found

    def _loaded(self, which: Which) -> Predictor | None:
        """The model, and beside the run's own at most one other in memory."""
        if which == "model":
            return self._model
        if self._other is None or self._other[0] != which:
            self._other = None
            self._other = (which, self._load(which))
        return self._other[1]

    def _load(self, which: Which) -> Predictor | None:
        recipe, device = self._run.recipe, self._model.device
        if which == "base":
            return Predictor.load_base(recipe, self.task, self.preprocessing.state, device=device)
        model = self.task.build_model(recipe, self.preprocessing.state)
        return Predictor(self.task, model, self.preprocessing, device=device)


def records_of(predictor: Predictor, split: Split, progress: Progress | None = None) -> Records:
    """The split predicted by one model and scored, block by block: indices, and the records in their order."""
    done = 0
    for block in block_indices(len(split)):
        found: list[Record | None] = [None] * len(block)
        for places, records in _batches(predictor, split, block):
            for place, record in zip(places, records, strict=True):
                found[place] = record
            done += len(places)
            if progress:
                progress("predict", done, len(split))
        yield block, [record for record in found if record is not None]


def records_at(predictor: Predictor, split: Split, indices: npt.NDArray[np.int64]) -> Iterator[Record]:
    """The records of some examples of a split, in the order of their indices."""
    for start in range(0, len(indices), BLOCK):
        block = indices[start : start + BLOCK]
        found: list[Record | None] = [None] * len(block)
        for places, records in _batches(predictor, split, block):
            for place, record in zip(places, records, strict=True):
                found[place] = record
        yield from (record for record in found if record is not None)


def _batches(predictor: Predictor, split: Split, block: npt.NDArray[np.int64], chosen: slice = slice(None)) -> Iterator[Scored]:
    task, state = predictor.task, predictor.preprocessing.state
    for places in predictor.batches(split.lengths[block])[chosen]:
        indices = block[places]
        answers = _forward(predictor, split.features(indices))
        examples = split.examples(indices)
        yield places, [task.score(answer, one, state) for answer, one in zip(answers, examples, strict=True)]


def _forward(predictor: Predictor, features: list[Features]) -> list[Answer]:
    try:
        return predictor.forward(features)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TunesmithError(
            f"out of memory while {len(features)} examples were judged on {predictor.device} ({reason})\n"
            f"    → free memory there, lower data.max_length or data.image_size for the next training, or judge on the CPU: "
            f'CUDA_VISIBLE_DEVICES="" tunesmith evaluate …'
        ) from error
