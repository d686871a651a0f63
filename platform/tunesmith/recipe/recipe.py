"""The recipe: the one file that says everything, as a frozen tree of typed sections."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, PrivateAttr

from tunesmith.recipe.base import Section
from tunesmith.recipe.data import DataSection
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.recipe.federation import FederationSection
from tunesmith.recipe.model import ModelSection
from tunesmith.recipe.search import SearchSection
from tunesmith.recipe.serving import ServingSection
from tunesmith.recipe.training import TrainingSection


class Recipe(Section):
    """What is fine-tuned, on what, how, and how it is judged.

    >>> recipe = Recipe.from_dict({
    ...     "task": "text-classification",
    ...     "model": {"model_name_or_path": "google-bert/bert-base-uncased"},
    ...     "data": {"train": "hf://stanfordnlp/imdb"},
    ... }, ["training.learning_rate=3e-5"])
    >>> recipe.training.learning_rate, recipe.resolved().training.per_device_eval_batch_size
    (3e-05, 16)
    >>> recipe.override("training.lerning_rate=1")
    Traceback (most recent call last):
    tunesmith.errors.RecipeError: 1 mistake in the recipe
      override: training.lerning_rate: there is no such key
          → did you mean training.learning_rate?
    """

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """Name of the runs, used for their folders: letters, digits, dots, dashes, underscores. Left out, it is the recipe's file
    name, or its folder's where the file is called ``recipe.yaml``."""

    task: str
    """What kind of problem it is: ``image-classification``, ``text-classification``, ``token-classification``, or the
    ``module:Class`` of a task of your own."""

    model: ModelSection
    """The pre-trained model."""

    data: DataSection
    """The labelled data."""

    training: TrainingSection = Field(default_factory=TrainingSection)
    """How the model is fine-tuned."""

    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    """How the fine-tuned model is judged."""

    federation: FederationSection = Field(default_factory=FederationSection)
    """How several sites fine-tune it together (``tunesmith federate``)."""

    serving: ServingSection = Field(default_factory=ServingSection)
    """How the fine-tuned model answers when it is served."""

    search: SearchSection = Field(default_factory=SearchSection)
    """Which hyperparameters are searched, and how."""

    _path: str | None = PrivateAttr(default=None)
    _base_dir: str = PrivateAttr(default_factory=os.getcwd)
    _provenance: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> str | None:
        """The file it was read from, as it was named; None where it was made in Python."""
        return self._path

    @property
    def base_dir(self) -> str:
        """The folder (or URI) that relative inputs start from: the recipe file's, else the working directory."""
        return self._base_dir

    @property
    def provenance(self) -> dict[str, str]:
        """Where the value of each dotted key comes from: ``recipe.yaml:12``, ``command line``, ``default``, ``derived: …``."""
        from tunesmith.recipe.keys import leaves

        return {key: self._provenance.get(key, "default") for key, _ in leaves(type(self))}

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Sequence[str] = (), *, check_paths: bool = True) -> Recipe:
        """The recipe in a YAML file (local or at a URI), with dotted overrides such as ``training.learning_rate=3e-5``.

        ``check_paths=False`` leaves out whether local inputs exist, as for the record of an old run.
        Raises :class:`RecipeError` with every mistake, :class:`UserError` where there is no such file.
        """
        from tunesmith.recipe.load import load

        return load(path, overrides, check_paths=check_paths)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        overrides: Sequence[str] = (),
        *,
        base_dir: str | os.PathLike[str] | None = None,
        check_paths: bool = True,
    ) -> Recipe:
        """The recipe made from nested mappings, checked like a file. Raises :class:`RecipeError` with every mistake."""
        from tunesmith.recipe.load import from_dict

        return from_dict(values, overrides, base_dir=base_dir, check_paths=check_paths)

    def override(self, *overrides: str, check_paths: bool = True) -> Recipe:
        """The same recipe with other values: ``recipe.override("training.seed=7")``."""
        from tunesmith.recipe.load import override

        return override(self, overrides, check_paths=check_paths)

    def with_values(self, values: Mapping[str, Any], *, without: Sequence[str] = (), check_paths: bool = True) -> Recipe:
        """The same recipe with other values by dotted key, and without some sections or keys (``("search",)``)."""
        from tunesmith.recipe.load import with_values

        return with_values(self, values, without=without, check_paths=check_paths)

    def resolved(self) -> Recipe:
        """The recipe with the derived values filled in and every local path absolute; resolving twice changes nothing."""
        from tunesmith.recipe.resolve import resolve

        return resolve(self)

    def fingerprint(self, *keys: str) -> str:
        """16 hexadecimal digits that stand for resolved values: of sections (``"data"``) or dotted keys (``"model.revision"``).

        Without keys: everything but the name, ``search``, ``serving`` and ``federation``. Where results are kept
        (``training.output_dir``, ``data.cache_dir``) and reported (``training.report_to``) never counts.
        """
        from tunesmith.recipe.resolve import fingerprint

        return fingerprint(self, keys)

    def to_yaml(self) -> str:
        """YAML that :meth:`load` reads back to the same recipe from anywhere: all that was set, local paths absolute."""
        from tunesmith.recipe.resolve import to_yaml

        return to_yaml(self)
