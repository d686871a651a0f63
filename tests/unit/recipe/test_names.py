"""The tables of names agree with the libraries and tasks that they stand for, which the recipe itself never imports."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest

from tunesmith.errors import UserError
from tunesmith.recipe import Recipe, hf_names
from tunesmith.recipe.keys import leaves, sections
from tunesmith.recipe.task_names import KNOWN
from tunesmith.recipe.training import TrainingSection
from tunesmith.tasks import TASKS, load_task


@pytest.fixture(scope="module")
def arguments() -> set[str]:
    """The fields of the real ``TrainingArguments``."""
    from transformers import TrainingArguments

    return {field.name for field in dataclasses.fields(TrainingArguments)}


def test_every_training_argument_is_taken_or_refused_with_an_alternative(arguments: set[str]) -> None:
    ours = set(TrainingSection.model_fields)
    assert arguments - ours - set(hf_names.TRAINING_ARGUMENTS) == set()
    assert set(hf_names.TRAINING_ARGUMENTS) - arguments == set()
    assert ours & set(hf_names.TRAINING_ARGUMENTS) == set()


def test_former_arguments_are_neither_ours_nor_of_today(arguments: set[str]) -> None:
    assert set(hf_names.FORMER_ARGUMENTS) & (arguments | set(TrainingSection.model_fields)) == set()


def test_every_key_named_by_an_alternative_exists() -> None:
    known = {key for key, _ in leaves(Recipe)} | set(sections(Recipe))
    advice = [*hf_names.TRAINING_ARGUMENTS.values(), *hf_names.FORMER_ARGUMENTS.values(), *hf_names.SAME_AS.values()]
    named = {key for text in advice for key in re.findall(r"\b(?:training|data|model|evaluation)\.[a-z_.0-9]*[a-z_0-9]", text)}
    assert named - known == set()


def test_schedules_are_those_of_transformers() -> None:
    from transformers import SchedulerType

    assert [schedule.value for schedule in SchedulerType] == list(hf_names.SCHEDULES)


def test_optimizers_are_those_of_torch() -> None:
    import torch

    classes = {name for name, found in vars(torch.optim).items() if isinstance(found, type)} - {"Optimizer"}
    assert classes == set(hf_names.TORCH_OPTIMIZERS)
    assert set(hf_names.UNUSABLE_OPTIMIZERS) <= classes


def test_attentions_are_those_of_transformers() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # The packing of texts registers one of its own where it was loaded.
    theirs = {name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if not name.startswith("tunesmith")}
    assert set(hf_names.ATTENTIONS) == {"eager", *theirs}


@pytest.mark.parametrize("name", TASKS)
def test_the_table_of_tasks_says_what_the_task_says(name: str) -> None:
    task, facts = load_task(name), KNOWN[name]
    assert (task.name, task.metric, task.ragged, tuple(task.columns)) == (name, facts.metric, facts.ragged, facts.roles)


def test_a_task_of_ones_own_is_loaded_by_its_path() -> None:
    assert type(load_task("collections:OrderedDict")).__name__ == "OrderedDict"
    with pytest.raises(UserError, match="module collections has no Nothing"):
        load_task("collections:Nothing")


def test_the_recipe_and_the_names_of_tasks_import_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "datasets", "ray", "sklearn", "matplotlib", "pandas", "numpy", "pyarrow", "rich"]
    ours = "tunesmith.recipe.load, tunesmith.recipe.template, tunesmith.tasks"
    code = f"import sys, {ours}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
