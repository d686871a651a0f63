"""What cannot be seen in one field of data sets with names: names that stand twice or nowhere, weights that share nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tunesmith.errors import nearest
from tunesmith.recipe.checks import Finding
from tunesmith.recipe.data import domains_of, weights_of
from tunesmith.recipe.recipe import Recipe


def names(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """No two data sets of a split have one name."""
    for split in ("train", "validation", "test"):
        seen: dict[str, int] = {}
        for index, one in enumerate(domains_of(getattr(recipe.data, split))):
            first = seen.setdefault(one.name, index)
            if first != index:
                what = f"two data sets are called {one.name}, this one and data.{split}[{first}]"
                fix = "give each a name of its own, or put both places into one path: [FILE, FILE]"
                yield Finding(("data", split, index, "name"), what, fix)


def weights(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Weights stand where rows are drawn, and there are several domains to share the draws."""
    for split in ("validation", "test"):
        for index, one in enumerate(domains_of(getattr(recipe.data, split))):
            if one.weight is not None:
                what = f"every row of {split} is judged once, and a weight says how often rows are drawn in training"
                yield Finding(("data", split, index, "weight"), what, "remove it, or give the weight in data.train")
    found = domains_of(recipe.data.train)
    if len(found) == 1 and weights_of(found) is not None:
        what = "there is no other domain to share the draws with"
        yield Finding(("data", "train", 0, "weight"), what, "remove it, or name another data set")


def in_domain(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """What counts as in domain is one of the data sets with names, where there are such."""
    splits = (recipe.data.train, recipe.data.validation, recipe.data.test)
    known = [one.name for split in splits for one in domains_of(split)]
    for index, name in enumerate(recipe.evaluation.in_domain if known else ()):
        if name not in known:
            near = nearest(name, known)
            fix = f"did you mean {near}?" if near else f"there are {', '.join(dict.fromkeys(known))}"
            yield Finding(("evaluation", "in_domain", index), f"no data set is called {name}", fix)


CHECKS = (names, weights, in_domain)
