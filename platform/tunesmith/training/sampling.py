"""Which examples an epoch draws, before the batch plan cuts them into updates: a pure function of the seed and the epoch.

An epoch always has as many draws as there are examples, so that its number of updates, and with it the learning-rate schedule,
does not depend on the sampling. The draw knows nothing of workers or accumulation, and a run resumes by counting.

``balanced`` draws each class equally often (to within one, in each epoch and over all of them together: which classes have
one draw more, or any where there are fewer draws than classes, goes round). Its examples take turns: a class of fewer
examples than its share is gone through several times in an epoch, a larger one is continued where the epoch before stopped,
so that nothing is left out for ever. Where an example shows several classes (labels, the tags of a sentence) it is drawn for
each of them and brings the others along; examples that show none are one class more.

Where named data sets (domains) have weights, each is drawn by its share of them, to within one draw (largest remainders), and
its examples take turns alike. With ``balanced`` the domain's share comes first, and within it each of its classes is drawn
equally often. Without weights domains do not matter: every example is drawn once.

``data.groups.method: balanced`` draws each group equally often in the same way, and with ``training.sampling: balanced`` each
class in each group, as far as there are any; within a domain's share where domains have weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tunesmith.data.domains import Domains
from tunesmith.data.split import apportion
from tunesmith.errors import DataError, UserError
from tunesmith.recipe.data import weights_of
from tunesmith.training.batch_plan import Indices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import State, Task
    from tunesmith.training.spec import Examples, FitSpec, Groups

AT_ONCE = 4096
"""Examples looked at together when their classes are read."""


class Sampler(Protocol):
    """What an epoch is made of."""

    @property
    def units(self) -> float:
        """Loss units of an epoch, on average."""

    def draw(self, epoch: int) -> Indices:
        """The examples of an epoch ``[n]``, n being the same for all; one may stand there several times."""


@dataclass(frozen=True)
class EveryExample:
    """Each example once."""

    examples: int
    units: float

    def draw(self, epoch: int) -> Indices:
        """All of them, in order: the batch plan shuffles."""
        return np.arange(self.examples, dtype=np.int64)


@dataclass(frozen=True)
class Balanced:
    """So many draws of each domain (of all examples, where there are none), shared out evenly among its groups of examples.

    >>> sampler = Balanced(((np.array([0, 1, 2, 3]), np.array([4])),), (5,), units=5.0, seed=0)
    >>> sorted(sampler.draw(0).tolist() + sampler.draw(1).tolist())[5:]  # as often the class of one example as that of four
    [4, 4, 4, 4, 4]
    """

    members: tuple[tuple[Indices, ...], ...]
    """The examples of each group of each domain; groups without any are left out."""
    draws: tuple[int, ...]
    """Of each domain in every epoch."""
    units: float
    seed: int

    def draw(self, epoch: int) -> Indices:
        """Every group from where the epoch before stopped."""
        drawn: list[Indices] = []
        for groups, draws in zip(self.members, self.draws, strict=True):
            for place, group in enumerate(groups):
                begin, end = (_turns(at * draws, len(groups), place) for at in (epoch, epoch + 1))
                drawn.append(_in_turn(group, begin, end, (self.seed, len(drawn))))
        return np.concatenate(drawn)


def make_sampler(spec: FitSpec, train: Examples, domains: Domains | None = None, groups: Groups | None = None) -> Sampler:
    """The sampler that the recipe asks for; ``domains`` and ``groups`` are those of the examples.

    Raises :class:`UserError` where the task has no classes to draw by, :class:`DataError` where a domain has nothing to draw.
    """
    weights, even = weights_of(spec.recipe.data.train), spec.recipe.training.sampling != "none"
    of_groups = groups if spec.recipe.data.groups.method == "balanced" else None
    if weights is None and not even and of_groups is None:
        return EveryExample(len(train), float(train.counts.sum()))
    check_sampling(spec.recipe, spec.task, train, spec.preprocessing.state, domains)
    parts = _members(spec, train) if even else [np.arange(len(train), dtype=np.int64)]
    parts = parts if of_groups is None else _by_group(parts, of_groups)
    members: tuple[tuple[Indices, ...], ...] = (tuple(parts),)
    draws: tuple[int, ...] = (len(train),)
    if weights is not None:
        assert domains is not None
        members, draws = _by_domain(parts, domains), tuple(domain_quotas(len(train), weights).values())
    units = sum(n * float(np.mean([train.counts[one].mean() for one in some])) for n, some in zip(draws, members, strict=True))
    return Balanced(members, draws, units, spec.recipe.training.seed)


def domain_quotas(draws: int, weights: Mapping[str, float]) -> dict[str, int]:
    """How many of an epoch's draws each domain has: its share of the weights, by largest remainders.

    >>> domain_quotas(100, {"clinic": 2, "lab": 1})
    {'clinic': 67, 'lab': 33}
    """
    shares = np.array(list(weights.values()), dtype=np.float64)
    exact = draws * (shares / shares.sum())
    return dict(zip(weights, apportion(exact, draws, np.full(len(exact), draws)).tolist(), strict=True))


def drawn_by_domain(sampler: Sampler, domains: Domains, epochs: int) -> dict[str, float]:
    """Draws of each domain in an epoch: the mean over the first ``epochs``."""
    drawn = np.concatenate([domains.codes[sampler.draw(epoch)] for epoch in range(epochs)])
    counts = np.bincount(drawn, minlength=len(domains.names)) / epochs
    return dict(zip(domains.names, counts.tolist(), strict=True))


def check_sampling(recipe: Recipe, task: Task, train: Examples, state: State, domains: Domains | None = None) -> None:
    """That the task and the domains can be sampled as the recipe says. Raises :class:`UserError`."""
    weights = weights_of(recipe.data.train)
    if weights is not None:
        if domains is None:
            raise ValueError("the recipe weighs domains, and nobody says of which domain an example is")
        _check_drawn(domains.counts(), domain_quotas(len(train), weights), len(train))
    if recipe.training.sampling != "none" and task.classes_of(train.features([0]), state) is None:
        raise UserError(
            f"training.sampling is {recipe.training.sampling}, and the task {recipe.task} has no classes to draw by\n"
            "    → Remove it"
        )


def _check_drawn(rows: Mapping[str, int], quotas: Mapping[str, int], draws: int) -> None:
    """That every domain has rows to draw, and is drawn. Raises :class:`DataError`."""
    for name, quota in quotas.items():
        if not rows.get(name):
            raise DataError(
                f"data.train: the domain {name} has a weight, and no row in the training split: nothing can be drawn of it\n"
                "    → Leave the domain or all weights out, give it more rows, or split otherwise (data.split, data.few_shot)."
            )
        if not quota:
            raise DataError(
                f"data.train: the weight of the domain {name} comes to none of the {draws:,} draws of an epoch\n"
                "    → Raise its weight, or leave the domain out."
            )


def _by_domain(groups: list[Indices], domains: Domains) -> tuple[tuple[Indices, ...], ...]:
    """The examples of each group, domain by domain."""
    codes = range(len(domains.names))
    return tuple(tuple(some for one in groups if len(some := one[domains.codes[one] == code])) for code in codes)


def _by_group(parts: list[Indices], groups: Groups) -> list[Indices]:
    """Each of the parts by group; those without any example are left out."""
    codes = range(len(groups.names))
    return [some for code in codes for one in parts if len(some := one[groups.codes[one] == code])]


def _turns(draws: int, groups: int, place: int) -> int:
    """How many of the first ``draws`` draws are the group's at ``place``, where all groups take turns.

    >>> [_turns(5, 3, place) for place in range(3)]
    [2, 2, 1]
    """
    return (draws - place + groups - 1) // groups


def _members(spec: FitSpec, train: Examples) -> list[Indices]:
    """The examples that show each class, and those that show none; classes without any are left out."""
    state, examples, shown = spec.preprocessing.state, [], []
    for start in range(0, len(train), AT_ONCE):
        held = spec.task.classes_of(train.features(range(start, min(start + AT_ONCE, len(train)))), state)
        assert held is not None
        rows, columns = np.nonzero(np.column_stack([held, ~held.any(axis=1)]))
        examples.append(rows + start)
        shown.append(columns)
    columns = np.concatenate(shown)
    order = np.argsort(columns, kind="stable")
    return np.split(np.concatenate(examples)[order], np.flatnonzero(np.diff(columns[order])) + 1)


def _in_turn(members: Indices, begin: int, end: int, seed: tuple[int, int]) -> Indices:
    """The members from ``begin`` to ``end`` of an endless row of their permutations; whole ones are left in order."""
    if begin >= end:
        return members[:0]

    def permuted(number: int) -> Indices:
        return np.random.default_rng((*seed, number)).permutation(members)

    size = len(members)
    first, last = begin // size, (end - 1) // size
    if first == last:
        return permuted(first)[begin - first * size : end - first * size]
    whole = np.tile(members, last - first - 1)
    return np.concatenate([permuted(first)[begin - first * size :], whole, permuted(last)[: end - last * size]])
