"""The site that this process answers for: the wing's :class:`Site` over the owner's data, with the owner's word before it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.errors import DataError, UserError
from tunesmith_federated import asked_recipe
from tunesmith_federated.deployment.audit import DiskTrouble
from tunesmith_federated.deployment.copies import keep_last
from tunesmith_federated.deployment.group import alone
from tunesmith_federated.deployment.owner import Owner
from tunesmith_federated.holdings import Counted, Held
from tunesmith_federated.models import size
from tunesmith_federated.protocol import Ask, Reply, Tensors
from tunesmith_federated.site import Answer, Site, of_the_disk

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Task
    from tunesmith_federated.deployment.site_config import SiteConfig
    from tunesmith_federated.work import Worker

log = logging.getLogger("tunesmith.site")

UNFIT = "the site's data does not fit this recipe; the site's log says how"
OTHER_CLASSES = "it has rows of a class that the sites do not share (data.labels); the site's log says which"


@cache
def site() -> OwnedSite:
    """The site of this process's ``site.yaml``; made once, so that what it holds in memory stays."""
    return make_site()


def make_site(worker: Worker | None = None) -> OwnedSite:
    """The same with its own ``worker`` that computes."""
    owner = Owner.here()
    config = owner.config
    return OwnedSite(owner, Site(config.name, OwnData(config), config.state_dir / "jobs", worker=worker or alone(config)))


@dataclass(frozen=True)
class OwnData:
    """The owner's rows, prepared as the recipe wants them and kept in the site's state folder."""

    config: SiteConfig

    @property
    def _place(self) -> str:
        return str(self.config.state_dir / "prepared")

    def count(self, recipe: Recipe, task: Task) -> Counted:
        """Raises as :meth:`open`."""
        from tunesmith.data.prepare import statistics

        with _untold():
            stats, rows = statistics(self._own(recipe), task, output_dir=self._place)
        return Counted(stats, rows["train"], rows.get("test", 0))

    def open(self, recipe: Recipe, task: Task) -> Held:
        """Raises :class:`DataError` that names nothing of the data; what is wrong stands in the site's own log.

        What the disk does not take is another matter: that :class:`UserError` is raised as it came.
        """
        from tunesmith.data.prepare import prepare

        with _untold(lambda: self._other_classes(recipe, task)):
            prepared = prepare(self._own(recipe), task, output_dir=self._place, engine="local")
        keep_last(Path(self._place), recipe, Path(prepared.path))
        return Held.of(prepared)

    def _other_classes(self, recipe: Recipe, task: Task) -> bool:
        """Whether there are rows of classes that ``data.labels`` lacks."""
        if recipe.data.labels is None:
            return False
        from tunesmith.data.prepare import statistics

        unsettled = recipe.model_copy(update={"data": recipe.data.model_copy(update={"labels": None})})
        with contextlib.suppress(UserError):
            stats, _ = statistics(self._own(unsettled), task, output_dir=self._place)
            return bool(set(stats.get("labels", ())) - set(recipe.data.labels))
        return False

    def _own(self, recipe: Recipe) -> Recipe:
        values: dict[str, Any] = recipe.model_dump(mode="json", exclude_unset=True)
        values["data"] = self.config.data_section(values["data"])
        return type(recipe).from_dict(values)


@contextlib.contextmanager
def _untold(other_classes: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """What is wrong with the rows goes to the site's log, and to the server only that something is, or that classes are."""
    try:
        yield
    except UserError as error:
        if of_the_disk(error):
            raise
        log.exception("the site's data does not fit the recipe")
        raise DataError(OTHER_CLASSES if other_classes() else UNFIT) from error


class OwnedSite:
    """Answers as :class:`Site` does, where the owner allows it."""

    def __init__(self, owner: Owner, inner: Site) -> None:
        self.owner, self._inner = owner, inner
        self._last: tuple[tuple[str, str, int, str, int | None], Answer] | None = None

    def answer(self, ask: Ask, model: Tensors, sent: Tensors) -> Answer:
        """Do what is asked, or say why not. Nothing leaves that is not in the audit log.

        Raises :class:`DiskTrouble` where the site's disk is full: the same question may be answered later.
        """
        key = (ask.job, ask.kind, ask.round, ask.recipe, ask.counted)  # the recipe differs once its classes are settled
        last = self._last[1] if self._last is not None and self._last[0] == key else None
        refused = self.owner.refusal(ask, size(model) + size(sent), remembered=last is not None)
        if refused:
            return _refusing(self.owner, ask, refused)
        if last is not None:  # asked once more, since the answer took its time
            return last
        begun = time.monotonic()
        try:
            made = self._inner.answer(replace(ask, recipe=self._careful(ask.recipe)), model, sent)
        except BaseException as error:
            seconds = time.monotonic() - begun
            if of_the_disk(error):
                self.owner.in_the_way(ask, seconds)
                log.error("%s", error)  # noqa: TRY400  # the sentence is all there is
                raise DiskTrouble("the site's disk does not take what this needs; the site's log says how") from error
            with contextlib.suppress(DiskTrouble):  # which must not stand in for a Ctrl-C
                self.owner.failed(ask, error, seconds)
            raise
        refused = self.owner.done(ask, made.reply)
        made = _refusing(self.owner, ask, refused) if refused else made
        if not made.reply.refused:
            self._last = (key, made)
        return made

    def _careful(self, text: str) -> str:
        """The recipe with the owner's own least number of rows, where that is larger."""
        from tunesmith.recipe import yaml_tree

        values: Mapping[str, Any] = yaml_tree.parse(text).values
        section = {**(values.get("federation") or {})}
        asked = asked_recipe.read(text).federation.min_examples
        section["min_examples"] = max(asked, self.owner.min_examples)
        return yaml_tree.dump({**values, "federation": section})


def _refusing(owner: Owner, ask: Ask, reason: str) -> Answer:
    return Answer(Reply(owner.config.name, ask.kind, ask.job, ask.round, refused=reason, tunesmith=__version__))
