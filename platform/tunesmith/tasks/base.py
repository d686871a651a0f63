"""What a task is: the one Protocol between the data, the loop, the predictor and the test bench.

A task says what an example is, how it becomes tensors, how a model is built for it, what the loss is, and how outputs become
answers that can be judged. Nothing outside ``tasks/`` branches on a task's name.

The words used here:

=============  =====================================================================================================
Example        a mapping by *role* (``text``, ``image``, ``label`` …), whatever the user's columns are called
State          frozen preprocessing state, plain JSON: labels, lengths, sizes, vocabulary, scaling
Preprocessing  the state with the Hugging Face processor (tokenizer, image processor, feature extractor)
Features       what is stored for one example: NumPy arrays and numbers, plus its ``length`` and ``count``
Batch          the tensors of one micro-batch
Answer         what the model says of one example, plain Python: ``{"label": "cat", "probabilities": [0.1, 0.9]}``
Record         an answer held against its reference: the flat row that goes into ``predictions.parquet``
=============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from tunesmith.recipe import Recipe
    from tunesmith.tasks.losses import Criterion

Example = Mapping[str, Any]
State = Mapping[str, Any]
Stats = Mapping[str, Any]
Batch = dict[str, Any]
Answer = dict[str, Any]
Record = dict[str, Any]
Metrics = dict[str, float]

Kind = Literal["text", "image", "audio", "label", "labels", "strings", "tags", "boxes", "mask", "number", "json"]


@dataclass(frozen=True)
class Column:
    """One role of an example."""

    kind: Kind
    """What its values are. ``label`` is one class (text, integer or boolean), ``labels`` one class or a list of classes,
    ``strings`` a list of words, ``tags`` a list of classes as long as the words."""
    description: str
    """One line for ``tunesmith init`` and the documentation."""
    aliases: tuple[str, ...] = ()
    """Column names that are taken for this role where the recipe's ``data.columns`` does not say."""
    required: bool = True
    """False for a role that a data set may lack (``text_pair``)."""


@dataclass(frozen=True)
class Features:
    """One example, ready for tensors, as it is stored in the prepared data."""

    values: dict[str, np.ndarray | int | float]
    """Named arrays of any shape (``uint8`` pixels, ``int32`` token ids) or numbers."""
    length: int = 1
    """What the example costs in a batch, in the model's own steps: tokens of a text, frames (not samples) of a sound; 1 where
    every example costs the same."""
    count: int = 1
    """How many units of loss it brings: 1 for a class, the labelled tokens for tagging."""


@dataclass(frozen=True)
class Preprocessing:
    """Everything that turns examples into tensors and outputs into answers; saved in the artefact, never re-guessed."""

    state: State
    processor: Any = None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the Open Inference Protocol v2: a name, a datatype (``BYTES``, ``FP32`` …), a shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 for a free dimension; the first is the batch."""


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs that a served model of this task shows."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Chart:
    """A figure that the report draws for a task, as plain data: ``kind`` is a key of the report's renderers."""

    kind: str
    title: str
    data: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Outlines(Protocol):
    """A task that knows its model's modules without its weights: what they do not allow is refused before workers start."""

    def outline(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The model of :meth:`Task.build_model` on the ``meta`` device. Raises :class:`ModelError`."""


class Task(Protocol):
    """One kind of problem. Implementations are stateless: whatever they learn from data is in the :class:`Preprocessing`.

    A task whose training examples can be augmented has the methods of :class:`tunesmith.tasks.augment.Augments` too; one whose
    model can be outlined from its config, that of :class:`Outlines`.
    """

    name: str
    """As written in a recipe: ``text-classification``."""
    pipeline: str
    """The ``transformers.pipeline`` task that loads the artefact."""
    columns: Mapping[str, Column]
    """The roles of an example, inputs first."""
    target: str
    """The role that holds the reference."""
    metric: str
    """The metric that chooses the best checkpoint where the recipe does not say; a key of :meth:`aggregate`."""
    ragged: bool
    """True where examples differ in length, so that batches are made by token budget."""
    exact: bool
    """False where the loss of a batch is not the sum of its examples' losses (detection's matching)."""

    def check(self, example: Example) -> str | None:
        """Why this example cannot be used, in a few words, or None. Cheap: no tensors, no processor."""

    def stratum(self, example: Example) -> str | None:
        """The class by which a stratified split keeps its shares, or None where the task has none."""

    def collect(self, examples: Iterable[Example]) -> Stats:
        """Statistics of one shard, plain JSON, that :meth:`merge` adds up and :meth:`freeze` turns into the state."""

    def merge(self, stats: Sequence[Stats]) -> Stats:
        """The statistics of all shards together: the same as those of one shard that held all examples."""

    def freeze(self, stats: Stats, recipe: Recipe) -> State:
        """The preprocessing state, plain JSON. Raises :class:`DataError` where the data does not fit (one class only)."""

    def load_processor(self, recipe: Recipe | None, source: str | None = None) -> Any:
        """The Hugging Face processor of the recipe's base model, or of the artefact at ``source`` (then there is no recipe).

        Raises :class:`ModelError`.
        """

    def admit(self, example: Example, state: State) -> str | None:
        """Why the frozen state cannot take this example (a label that training lacks), or None."""

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        """Tokenise, decode, resize: once, before training. Examples without the target role are encoded too (prediction)."""

    def collate(self, features: Sequence[Features], preprocessing: Preprocessing) -> Batch:
        """The padded tensors of one batch, each with a row for every example; ``labels`` where the features have them."""

    def build_model(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The pre-trained base with a head for ``state``. Raises :class:`ModelError`."""

    def load_model(self, folder: str) -> torch.nn.Module:
        """The model of a saved artefact, as it is."""

    def load_base(self, recipe: Recipe, state: State) -> torch.nn.Module | None:
        """The pre-trained model as it is, or None where its own head does not answer in the terms of ``state``."""

    def classes_of(self, features: Sequence[Features], state: State) -> np.ndarray | None:
        """Which classes each example shows, booleans ``[n, classes]`` in the order of the state's labels.

        Balanced sampling goes by it. None where the task has no classes to draw by.
        """

    def loss(self, model: torch.nn.Module, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, int]:
        """The *sum* of the losses over the batch's units, with a graph, and the number of units.

        ``criterion`` is the recipe's loss with its weights (:mod:`tunesmith.tasks.losses`); a task whose loss is the model's
        own (matching, alignment) leaves it unused and has no ``label_counts`` in its state. Units are counted, not weighed.
        """

    def answers(self, model: torch.nn.Module, batch: Batch, preprocessing: Preprocessing) -> list[Answer]:
        """One forward pass: what the model says of each example of the batch, in order."""

    def score(self, answer: Answer, example: Example, state: State) -> Record:
        """The flat row that goes into ``predictions.parquet``: the same keys and types for every example.

        ``loss`` (a float, never weighed by class) and ``correct`` (a truth value) are always there; ``reference``,
        ``prediction`` and ``confidence`` are shown where they are. A list that may be empty is a NumPy array, which knows its
        type, unless it is one of texts.
        """

    def aggregate(self, records: pa.Table, state: State, weights: np.ndarray | None = None) -> Metrics:
        """All metrics of the records, pure. ``weights`` ``[n]`` counts each record (a bootstrap resample); None is all ones.

        A task whose metrics take weights ``[b, n]`` and then give arrays ``[b]`` (:mod:`tunesmith.tasks.metrics` does) is asked
        for many resamples at once; any other is asked for one at a time.
        """

    def majority(self, train: Iterable[Example], state: State) -> Answer | None:
        """The answer that knows only the training labels' shares (the baseline every model must beat), or None."""

    def charts(self, records: pa.Table, state: State) -> list[Chart]:
        """Figures that the report draws from the records (confusion matrix, reliability)."""

    def signature(self, state: State) -> Signature:
        """What a served model of this task takes and gives."""
