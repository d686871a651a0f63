"""The tasks that Tunesmith ships, by name: what the recipe must know of them without importing torch.

The classes themselves stand in ``tunesmith.tasks``, one file each; a test holds this table to what they say of themselves.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from tunesmith.errors import nearest
from tunesmith.recipe import augment


@dataclass(frozen=True)
class TaskFacts:
    """What the recipe, ``validate`` and ``init`` say of a task."""

    path: str
    """``module:Class`` of the implementation."""
    summary: str
    """One line for people."""
    roles: tuple[str, ...]
    """The roles that ``data.columns`` may name, inputs first."""
    metric: str
    """The metric that chooses the checkpoint where the recipe does not say."""
    ragged: bool
    """True where examples differ in length, so that batches are made by token budget."""
    model: str
    """A base model to begin with."""
    data: str
    """A name for the data file, as ``tunesmith init`` writes it."""
    one_label: bool = False
    """Whether an example has one class, so that a model can label it by itself."""
    augmentations: tuple[str, ...] = ()
    """The operations of ``data.augment`` that fit its examples."""


KNOWN: dict[str, TaskFacts] = {
    "image-classification": TaskFacts(
        path="tunesmith.tasks.image_classification:ImageClassification",
        summary="one class for each image",
        roles=("image", "label"),
        metric="accuracy",
        ragged=False,
        model="microsoft/resnet-18",
        data="images",
        one_label=True,
        augmentations=augment.IMAGES,
    ),
    "text-classification": TaskFacts(
        path="tunesmith.tasks.text_classification:TextClassification",
        summary="one or several classes for each text or pair of texts",
        roles=("text", "text_pair", "label"),
        metric="f1_macro",
        ragged=True,
        model="google-bert/bert-base-uncased",
        data="train.csv",
        one_label=True,
        augmentations=augment.TEXTS,
    ),
    "token-classification": TaskFacts(
        path="tunesmith.tasks.token_classification:TokenClassification",
        summary="a class for each word: names, places, products in a text",
        roles=("tokens", "tags"),
        metric="f1",
        ragged=True,
        model="google-bert/bert-base-cased",
        data="train.jsonl",
        augmentations=augment.WORDS,
    ),
}

TASKS: dict[str, str] = {name: facts.path for name, facts in KNOWN.items()}
"""Task name → ``module:Class``."""


def problem(name: str) -> tuple[str, str] | None:
    """Why ``name`` is no task, and what to write instead; None where it is one. A module is looked for, not imported.

    >>> problem("text-classification") is None
    True
    >>> problem("text-clasification")
    ('there is no task text-clasification', 'did you mean text-classification?')
    >>> problem("no_such_module:Task")[0]
    'module no_such_module, which should hold the task, is not installed'
    """
    if name in TASKS:
        return None
    if ":" in name:
        module, _, attribute = name.partition(":")
        if not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            return f"{name} is no path to a class", "write it as package.module:Class"
        if _findable(module):
            return None
        return f"module {module}, which should hold the task, is not installed", "install the package that brings it"
    near = nearest(name.lower().replace("_", "-"), TASKS)
    known = ", ".join(sorted(TASKS))
    fix = f"did you mean {near}?" if near else f"write one of {known}, or the module:Class of your own"
    return f"there is no task {name}", fix


def _findable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
