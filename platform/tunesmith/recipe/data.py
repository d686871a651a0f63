"""``data:``: where the examples are, what their columns mean, how they are split, checked and prepared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from tunesmith.recipe.augment import AnyOperation
from tunesmith.recipe.base import Section
from tunesmith.recipe.clean import CleanSection
from tunesmith.recipe.few_shot import FewShotSection
from tunesmith.recipe.groups import GroupsSection
from tunesmith.recipe.unlabelled import UnlabelledSection

Source = str | Annotated[list[str], Field(min_length=1)]

DOMAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a domain may be called."""

UNLISTED, MIXED = "domains_unlisted", "domains_mixed"
"""Kinds of mistakes in the shape of named data sets."""


class DomainSection(Section):
    """One of several data sets with names (domains). Each is judged by itself as well; the same name in ``train`` and ``test``
    is the same domain.
    """

    name: str = Field(pattern=DOMAIN_NAME, max_length=80)
    """What the domain is called: letters, digits, dots, dashes, underscores."""

    path: Source
    """A file, folder, glob, URI or Hub id, or a list of them, as a data set without a name has it."""

    weight: float | None = Field(default=None, gt=0)
    """In ``data.train``: this domain's share of an epoch's draws, relative to the others' weights; 1 where another domain has a
    weight. An epoch has as many draws as there are training rows in all, whatever the weights. Without any weight every row
    is drawn once in an epoch."""


Sources = Source | Annotated[list[DomainSection], Field(min_length=1)]


def domains_of(given: Sources | None) -> list[DomainSection]:
    """The named data sets of a split; none where its data has no names."""
    return [one for one in given if isinstance(one, DomainSection)] if isinstance(given, list) else []


def weights_of(given: Sources | None) -> dict[str, float] | None:
    """Each domain's weight, 1 where it has none; None where no domain has any.

    >>> weights_of([DomainSection(name="clinic", path="a.csv", weight=2), DomainSection(name="lab", path="b.csv")])
    {'clinic': 2.0, 'lab': 1.0}
    """
    found = domains_of(given)
    if all(one.weight is None for one in found):
        return None
    return {one.name: 1.0 if one.weight is None else one.weight for one in found}


class SplitSection(Section):
    """How the splits that were not given are made from ``train``: once, on the driver, seeded. Given ones are held to ``group``
    and ``time`` too, as ``data.leakage`` says.
    """

    by: Literal["auto", "random", "stratified", "group", "time"] = "auto"
    """``stratified`` keeps each class's share; ``group`` never parts a group (a patient, a customer); ``time`` tests on the
    latest rows. ``auto`` is ``group`` if ``group`` is set, ``time`` if ``time`` is set, ``stratified`` where the task has
    classes, else ``random``."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows, between 0 and 1; not used where ``data.validation`` is given."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows, between 0 and 1; not used where ``data.test`` is given."""

    group: str | None = None
    """The column whose equal values stay together. Of given splits, rows of a group that ``train`` has too are refused."""

    time: str | None = None
    """The column by which rows are ordered: numbers, dates or ISO 8601 text. Of given splits, rows that are not later than
    all of ``train`` are refused."""

    seed: int = 42
    """Seed of the split alone, so that training seeds can vary over the same split."""


class DataSection(Section):
    """The labelled data."""

    train: Sources
    """A file, folder, glob, URI (``s3://…``, ``gs://…``, ``hdfs://…``) or Hub id (``hf://stanfordnlp/imdb``), or a list of
    them. CSV, JSON Lines, Parquet, Arrow, or a folder of images. Relative to the recipe's file. Several data sets may have
    names and weights: ``[{name: clinic, path: clinic.csv, weight: 2}, {name: lab, path: lab/*.parquet}]``. With ``federation:``
    it may be left out: then the rows are the sites' (``federate --superlink``)."""

    validation: Sources | None = None
    """Rows to choose the checkpoint by. None splits them off ``train``."""

    test: Sources | None = None
    """Rows for the verdict, never seen in training. None splits them off ``train``. With names, each domain is judged by itself
    too; one that ``train`` lacks is marked as unseen."""

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
    ``error`` refuses both, ``move`` takes them out of the evaluation (near ones into ``train``, unless group or time keep that
    apart). Splits that are made keep such rows on one side. ``report`` only counts them, ``off`` does not look. The same holds
    for rows of given splits on the side of ``train`` by ``data.split.group`` or ``data.split.time``: ``auto`` and ``error``
    refuse them, ``move`` takes them out."""

    label_errors: Literal["off", "report", "drop"] = "off"
    """Audit of the training labels by confident learning: names rows whose label is likely wrong. ``drop`` trains without
    them. One class for each row only; ``drop`` is refused elsewhere."""

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
    """Train on at most so many rows of the training split, drawn by ``data.split.seed`` so that classes and domains keep their
    shares; None uses all."""

    max_validation_samples: int | None = Field(default=None, ge=1)
    """Judge at most so many rows of the validation split, cut off or given (seeded); None judges all."""

    few_shot: FewShotSection = Field(default_factory=FewShotSection)
    """Train on a few rows of each class."""

    unlabelled: UnlabelledSection = Field(default_factory=UnlabelledSection)
    """Rows without a label, to learn from by self-training."""

    groups: GroupsSection = Field(default_factory=GroupsSection)
    """Groups that training is to treat alike."""

    engine: Literal["auto", "local", "ray"] = "auto"
    """Where rows are prepared: in this process, or by Ray Data over the cluster. ``auto`` is ``ray`` on a cluster of several
    nodes from 200,000 rows on."""

    cache_dir: str | None = None
    """Where prepared data is kept, any URI that every node reaches. None is ``.cache`` under ``training.output_dir``."""

    @field_validator("train", "validation", "test", mode="before")
    @classmethod
    def _all_named_or_none(cls, value: Any) -> Any:
        """Named data sets stand in a list, with none that has no name among them."""
        if isinstance(value, dict):
            raise PydanticCustomError(UNLISTED, "a data set with a name stands in a list")
        if isinstance(value, list) and len({isinstance(one, dict | DomainSection) for one in value}) > 1:
            raise PydanticCustomError(MIXED, "data sets with and without names are mixed")
        return value
