"""The one predictor: evaluation in process, a served replica and a federated client all answer through it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.errors import DataError
from tunesmith.evaluation.packing import Packing
from tunesmith.evaluation.padding import is_harmless
from tunesmith.runs.artefact import Artefact
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Answer, Batch, Example, Features, Preprocessing, State, Task

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 16384}
"""Tokens of one forward pass, with its padding. On a CPU larger padded batches leave the caches and are slower per token
(``tests/benchmarks``); a GPU needs more to be busy."""

TOKENS_BESIDE = {"cpu": 53, "cuda": 1024}
"""What a forward pass costs beside its tokens, in tokens: whether a padded batch is cut where lengths differ. On two cores a
BERT of 6 layers, 384 wide, took 13.6 ms a pass and 0.257 ms a token (``docs/log.md``): 53. On a GPU it is reckoned."""

EXAMPLES_PER_BATCH = 64
"""Most examples of one forward pass; the size of a batch where all examples cost the same."""


class Encoded(Protocol):
    """Examples that are encoded already: a split of the prepared data."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """What each example costs."""

    def features(self, indices: Sequence[int]) -> list[Features]:
        """The features of these examples."""


class Predictor:
    """A model with its task and preprocessing, ready to answer."""

    def __init__(
        self,
        task: Task,
        model: torch.nn.Module,
        preprocessing: Preprocessing,
        *,
        device: str | torch.device = "auto",
        batch_size: int = EXAMPLES_PER_BATCH,
        dtype: torch.dtype | None = None,
        padding_is_harmless: bool | None = None,
    ) -> None:
        """Wrap a model that is in memory.

        Args:
            device: ``auto`` is the first GPU, or the CPU.
            batch_size: most examples of one forward pass.
            dtype: autocast to this type (``torch.bfloat16``); None computes in float32.
            padding_is_harmless: whether examples of different lengths may share a batch; None tries it when it is first asked.
        """
        self.task = task
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device)
        self.model = model.to(self.device).eval()
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.dtype = dtype
        self.packing: Packing | None = None
        self._padding_is_harmless = padding_is_harmless

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Predictor:
        """The artefact of a run, ``runs/…/model``. Raises :class:`ModelError` where it is none."""
        artefact = Artefact.read(folder)
        task = load_task(artefact.task)
        processor = task.load_processor(None, source=str(folder))
        model = task.load_model(str(folder))
        told = artefact.calibration or {}
        if told.get("temperature") and not told.get("folded"):
            model = calibrated(model, float(told["temperature"]))
        return cls(task, model, Preprocessing(artefact.state, processor), **options).packed()

    @classmethod
    def load_base(cls, recipe: Recipe, task: Task, state: State, **options: Any) -> Predictor | None:
        """The pre-trained model as it is, or None where its own head does not answer in the terms of the state."""
        model = task.load_base(recipe, state)
        return (
            None if model is None else cls(task, model, Preprocessing(state, task.load_processor(recipe)), **options).packed()
        )

    def packed(self) -> Self:
        """This predictor, answering texts of different lengths without padding where its model can (on a CPU)."""
        if self.task.ragged and self.device.type == "cpu":
            self.packing = Packing.of(self.model)
        return self

    def with_model(self, model: torch.nn.Module) -> Self:
        """The same predictor over another model, of which nothing is known yet."""
        other = copy.copy(self)
        other.model, other.packing, other._padding_is_harmless = model, None, None
        return other

    @property
    def padding_is_harmless(self) -> bool:
        """Whether an example's answer stays the same, in float32, whatever the lengths of those that share its batch."""
        if self._padding_is_harmless is None:
            exact = copy.copy(self)
            exact.dtype = None
            self._padding_is_harmless = is_harmless(exact)
        return self._padding_is_harmless

    def predict(self, examples: Sequence[Example | Any]) -> list[Answer]:
        """What the model says of each example, in order.

        An example is a mapping by role (``{"text": …, "text_pair": …}``), or only the value of the task's first role.

        Raises:
            DataError: an example that the task cannot use; says which, counted from 0, and why.
        """
        first = next(iter(self.task.columns))
        # Without the target, so that an example needs no label to be answered.
        given = [
            {k: v for k, v in e.items() if k != self.task.target} if isinstance(e, Mapping) else {first: e} for e in examples
        ]
        for index, example in enumerate(given):
            if why := self.task.check(example):
                raise DataError(f"example {index}: {why}")
        encoded = self.task.encode(given, self.preprocessing) if given else []
        answers: list[Answer | None] = [None] * len(given)
        lengths = np.asarray([one.length for one in encoded], dtype=np.int32)
        for indices in self.batches(lengths):
            for index, answer in zip(indices, self.forward([encoded[i] for i in indices]), strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def predict_split(
        self, split: Encoded, batches: Sequence[npt.NDArray[np.int64]] | None = None
    ) -> Iterator[tuple[npt.NDArray[np.int64], list[Answer]]]:
        """Batches of indices with their answers, longest examples first; nothing is kept."""
        for indices in self.batches(split.lengths) if batches is None else batches:
            yield indices, self.forward(split.features(indices))  # type: ignore[arg-type]  # an array is as good as a sequence

    def batches(self, lengths: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int64]]:
        """The batches that these lengths make; of equal lengths where padding would change the answers."""
        budget = TOKENS_PER_BATCH.get(self.device.type, TOKENS_PER_BATCH["cpu"])
        if self.task.ragged and len(np.unique(lengths)) > 1 and not self.padding_is_harmless:
            return batches_of_one_length(lengths, budget, self.batch_size)
        if self.packing is not None:
            return batches_by_tokens(lengths, budget, self.batch_size)
        return batches_by_length(lengths, budget if self.task.ragged else self.batch_size, self.batch_size, self.beside)

    @property
    def beside(self) -> int:
        """What a pass costs beside its tokens, in tokens."""
        return TOKENS_BESIDE.get(self.device.type, TOKENS_BESIDE["cpu"])

    def forward(self, features: Sequence[Features]) -> list[Answer]:
        """One forward pass."""
        batch = to_device(self.task.collate(features, self.preprocessing), self.device)
        with torch.inference_mode(), self._autocast(), self.packing.on() if self.packing else nullcontext():
            return self.task.answers(self.model, batch, self.preprocessing)

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up (PyTorch's CPU allocator raises a plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def calibrated(model: torch.nn.Module, temperature: float) -> torch.nn.Module:
    """The model with its logits divided by the temperature (:mod:`tunesmith.evaluation.calibration`), in memory only."""

    def divide(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
        output.logits = output.logits / temperature
        return output

    model.register_forward_hook(divide)
    return model


def batches_by_length(lengths: npt.NDArray[np.int32], budget: int, most: int, beside: int) -> list[npt.NDArray[np.int64]]:
    """The batches of similar length that cost least in all, longest first, each of at most ``budget`` padded tokens and
    ``most`` examples.

    Longest first, so that a batch which does not fit into memory shows at once. The examples are cut where they are sorted, at
    the least sum of padded tokens and of ``beside`` for each batch (dynamic programming over the places to cut).

    Args:
        lengths: tokens of each example, ``[examples]``.
        budget: most padded tokens of a batch; a longer example is a batch by itself.
        most: most examples of a batch.
        beside: what a batch costs beside its tokens, in tokens; at least 1.

    >>> lengths = np.array([3, 9, 4])
    >>> [batch.tolist() for batch in batches_by_length(lengths, budget=10, most=8, beside=2)]
    [[1], [2, 0]]
    >>> [batch.tolist() for batch in batches_by_length(lengths, budget=100, most=8, beside=20)]
    [[1, 2, 0]]
    """
    ordered = np.argsort(-lengths, kind="stable").astype(np.int64)
    count = len(ordered)
    cost = np.full(count + 1, np.inf)  # of the cheapest way to answer the first k
    cost[0] = 0
    begin = np.zeros(count + 1, np.int64)  # where the last batch of that way begins
    for start, longest in enumerate(lengths[ordered].tolist()):
        size = max(1, min(most, budget // max(1, longest), count - start))
        costs = cost[start] + beside + longest * np.arange(1, size + 1)
        ends = slice(start + 1, start + size + 1)
        cheaper = costs <= cost[ends]  # of equal ones the larger first batch, which is found later
        cost[ends][cheaper], begin[ends][cheaper] = costs[cheaper], start
    batches = []
    while count:
        batches.append(ordered[begin[count] : count])
        count = int(begin[count])
    return batches[::-1]


def batches_by_tokens(lengths: npt.NDArray[np.int32], budget: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Batches of at most ``budget`` tokens and ``most`` examples, longest first; a longer example is a batch by itself.

    >>> [batch.tolist() for batch in batches_by_tokens(np.array([3, 9, 4]), budget=10, most=8)]
    [[1], [2, 0]]
    """
    batches: list[list[int]] = []
    tokens = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        tokens += int(lengths[index])
        if not batches or tokens > budget or len(batches[-1]) == most:
            batches.append([])
            tokens = int(lengths[index])
        batches[-1].append(index)
    return [np.asarray(batch, np.int64) for batch in batches]


def batches_of_one_length(lengths: npt.NDArray[np.int32], budget: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Batches without padding: of one length each, at most ``budget`` tokens and ``most`` examples, longest first.

    >>> [batch.tolist() for batch in batches_of_one_length(np.array([3, 9, 3, 3]), budget=8, most=8)]
    [[1], [0, 2], [3]]
    """
    ordered = np.argsort(-lengths, kind="stable").astype(np.int64)
    batches = []
    for same in np.split(ordered, np.flatnonzero(np.diff(lengths[ordered])) + 1):
        size = max(1, min(most, budget // int(lengths[same].max(initial=1))))
        batches += [same[start : start + size] for start in range(0, len(same), size)]
    return batches


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
    }
