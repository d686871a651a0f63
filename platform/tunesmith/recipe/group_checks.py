"""What cannot be seen in one field of ``data.groups``: groups twice, and keys that would undo what it does."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tunesmith.recipe import task_names
from tunesmith.recipe.checks import Finding
from tunesmith.recipe.data import weights_of
from tunesmith.recipe.recipe import Recipe

COLUMNS, METHOD = ("data", "groups", "columns"), ("data", "groups", "method")


def groups(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Columns stand there once, and nothing else decides of which rows training is made."""
    section = recipe.data.groups
    for index, name in enumerate(section.columns):
        if name in section.columns[:index]:
            yield Finding((*COLUMNS, index), f"the column {name} is named twice", "name each column once")
    if not section.columns:
        if section.method != "reweigh":
            yield Finding(METHOD, "no column says what the groups are", "add data.groups.columns: [COLUMN], or remove it")
        return
    if recipe.data.unlabelled.data is not None:
        what = "rows that a teacher labels keep no columns: nothing says of which group they are"
        yield Finding(COLUMNS, what, "remove data.groups or data.unlabelled", ("data.unlabelled.data",))
    if section.method == "reweigh":
        yield from _reweighing(recipe)


def _reweighing(recipe: Recipe) -> Iterator[Finding]:
    facts = task_names.KNOWN.get(recipe.task)
    if facts is not None and not facts.one_label:
        what = f"an example of {recipe.task} has more than one class, and reweigh goes by its class"
        yield Finding(METHOD, what, "set data.groups.method: balanced", ("task",))
    if weights_of(recipe.data.train) is not None:
        what = "reweigh goes by how often rows stand there, and the weights of data sets draw them otherwise"
        yield Finding(METHOD, what, "set data.groups.method: balanced, or remove the weights", ("data.train",))
    mixing = [one.name for one in recipe.data.augment if one.name in ("mixup", "cutmix")]
    if mixing:
        what = f"{mixing[0]} makes one example of two, and reweigh weighs each by its own group and class"
        yield Finding(METHOD, what, f"set data.groups.method: balanced, or remove {mixing[0]}", ("data.augment",))


CHECKS = (groups,)
