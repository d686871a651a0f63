"""``data:``: where the examples are, what their columns mean, how they are split, checked and prepared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.augment import AnyOperation
from tunesmith.recipe.base import Section
from tunesmith.recipe.clean import CleanSection
from tunesmith.recipe.few_shot import FewShotSection
from tunesmith.recipe.unlabelled import UnlabelledSection

Source = str | Annotated[list[str], Field(min_length=1)]


class SplitSection(Section):
    """How the splits that were not given are made from ``train``: once, on the driver, seeded."""

    by: Literal["auto", "random", "stratified", "group", "time"] = "auto"
    """``stratified`` keeps each class's share; ``group`` never parts a group (a patient, a customer); ``time`` tests on the
    latest rows. ``auto`` is ``group`` if ``group`` is set, ``time`` if ``time`` is set, ``stratified`` where the task has
    classes, else ``random``."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows, between 0 and 1; not used where ``data.validation`` is given."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows, between 0 and 1; not used where ``data.test`` is given."""

    group: str | None = None
    """The column whose equal values stay together."""

    time: str | None = None
    """The column by which rows are ordered: numbers, dates or ISO 8601 text."""

    seed: int = 42
    """Seed of the split alone, so that training seeds can vary over the same split."""


class DataSection(Section):
    """The labelled data."""

    train: Source
    """A file, folder, glob, URI (``s3://…``, ``gs://…``, ``hdfs://…``) or Hub id (``hf://stanfordnlp/imdb``), or a list of
    them. CSV, JSON Lines, Parquet, Arrow, or a folder of images. Relative to the recipe's file."""

    validation: Source | None = None
    """Rows to choose the checkpoint by. None splits them off ``train``."""

    test: Source | None = None
    """Rows for the verdict, never seen in training. None splits them off ``train``."""

    format: Literal["auto", "csv", "json", "parquet", "arrow", "imagefolder", "hub"] = "auto"
    """``auto`` tells by the file's ending; a folder of class folders, or one with ``metadata.csv`` or ``metadata.jsonl``,
    is an image folder."""

    columns: dict[str, str] = Field(default_factory=dict)
    """The task's role → the data's column, such as ``{text: review, label: stars}``. Roles not named are looked for by their
    usual names."""

    labels: list[str] | None = None
    """The classes, in the order of the model's outputs. None collects them from ``train``, sorted."""

    split: SplitSection = Field(default_factory=SplitSection)
    """How missing splits are made."""

    clean: CleanSection = Field(default_factory=CleanSection)
    """What is done about duplicates and contradictions."""

    leakage: Literal["auto", "error", "move", "report", "off"] = "auto"
    """Rows to judge by whose input also stands in ``train``. Given splits: ``auto`` refuses exact ones and reports near ones,
    ``error`` refuses both, ``move`` takes them out of the evaluation (near ones into ``train``). Splits that are made keep such
    rows on one side. ``report`` only counts them, ``off`` does not look."""

    label_errors: Literal["off", "report", "drop"] = "off"
    """Audit of the training labels by confident learning: names rows whose label is likely wrong. ``drop`` trains without
    them. One class for each row only."""

    known_faults: str | None = None
    """A CSV file of rows that you know to be bad: ``split,row,fault`` and, if you like, ``of``, the row that it is a copy of. A
    row is its line in the data's file, or its image's name; a fault is ``duplicate``, ``near-duplicate``, ``conflict``,
    ``mislabelled``, ``leak`` or ``near-leak``. The report says how many of them data care found; nothing else changes."""

    on_bad_row: Literal["error", "drop", "quarantine"] = "error"
    """What to do with a row that the task cannot use. ``quarantine`` writes it, with the reason, into the run."""

    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens; longer ones are cut. None takes what the model can hold, at most 512."""

    image_size: int | None = Field(default=None, ge=8)
    """Height and width in pixels. None takes the image processor's."""

    augment: list[AnyOperation] = Field(default_factory=list)
    """What is changed at random in the training examples, in this order: ``[{name: rotation, degrees: 15}, {name: hflip}]``.
    Drawn anew in each epoch; validation and test rows stay as they are."""

    max_train_samples: int | None = Field(default=None, ge=1)
    """Use only the first so many rows of the training split (after the split, seeded); None uses all."""

    few_shot: FewShotSection = Field(default_factory=FewShotSection)
    """Train on a few rows of each class."""

    unlabelled: UnlabelledSection = Field(default_factory=UnlabelledSection)
    """Rows without a label, to learn from by self-training."""

    engine: Literal["auto", "local", "ray"] = "auto"
    """Where rows are prepared: in this process, or by Ray Data over the cluster. ``auto`` is ``ray`` on a cluster of several
    nodes from 200,000 rows on."""

    cache_dir: str | None = None
    """Where prepared data is kept, any URI that every node reaches. None is ``.cache`` under ``training.output_dir``."""
