"""A site: asked for what it holds, to judge a model, or to judge and train it. Knows neither Flower nor Ray.

:meth:`Site.answer` is all that it does; what there is to compute is done by its worker (:mod:`tunesmith_federated.work`).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunesmith import __version__
from tunesmith.errors import DataError, ModelError, UserError
from tunesmith_federated.holdings import Counted, Held, Holding
from tunesmith_federated.methods import make_method
from tunesmith_federated.models import size
from tunesmith_federated.protocol import PROTOCOL, Ask, Reply, Tensors
from tunesmith_federated.site_state import SiteState
from tunesmith_federated.work import Here, Job, Order, Worker, check_shared

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""What the system says where something cannot be written, whatever is written."""
FORBIDDEN = (errno.EACCES, errno.EPERM)
"""What it says there too, and where something must not be read."""


@dataclass(frozen=True)
class Answer:
    """What goes back to the server."""

    reply: Reply
    update: Tensors = field(default_factory=dict)
    extras: Tensors = field(default_factory=dict)


class Site:
    """One site. ``jobs`` are shared by the sites of a process."""

    def __init__(
        self, name: str, holding: Holding, folder: Path, jobs: dict[str, Job] | None = None, worker: Worker | None = None
    ) -> None:
        """``folder``: where the site keeps its state, on its own disk. ``worker``: who computes; None is this process."""
        self.name = name
        self._holding, self._folder, self._worker = holding, folder, worker or Here()
        self._jobs = {} if jobs is None else jobs
        self._held: tuple[str, Held] | None = None

    def answer(self, ask: Ask, model: Tensors, sent: Tensors) -> Answer:
        """Do what is asked. What cannot be done is refused with its reason, in the reply.

        Raises :class:`UserError` for what the disk does not take: it has nothing to do with what is asked, and may pass.
        """
        begun = time.perf_counter()
        try:
            if ask.protocol != PROTOCOL:
                raise UserError(
                    f"the server speaks version {ask.protocol} of the protocol (Tunesmith {ask.tunesmith}), "
                    f"this site {PROTOCOL} ({__version__}): install the same version on both"
                )
            job = self._job(ask)
            made = {"describe": self._describe, "train": self._train, "evaluate": self._evaluate}[ask.kind](
                job, ask, model, sent
            )
        except UserError as error:
            if of_the_disk(error):
                raise
            made = Answer(replace(self._reply(ask), refused=str(error)))
        seconds = round(time.perf_counter() - begun, 3)
        return replace(made, reply=replace(made.reply, seconds=seconds, sent_bytes=size(made.update) + size(made.extras)))

    def _job(self, ask: Ask) -> Job:
        """The recipe that is asked with, read once in a process."""
        if ask.recipe not in self._jobs:
            self._jobs.clear()
            self._jobs[ask.recipe] = Job(ask.recipe)
        return self._jobs[ask.recipe]

    def _open(self, job: Job) -> Held:
        """The site's data under this recipe, opened once."""
        if self._held is None or self._held[0] != job.text:
            self._held = (job.text, self._holding.open(job.recipe, job.task))
        return self._held[1]

    def _describe(self, job: Job, ask: Ask, model: Tensors, sent: Tensors) -> Answer:
        """The training rows' statistics, and how many rows there are to train and to judge by."""
        if job.recipe.data.labels is None and "labels" in job.task.collect([]):  # classes that are yet to be settled
            found = self._holding.count(job.recipe, job.task)
        else:
            held = self._open(job)
            check_shared(job.spec(held), len(held.train), self._worker.size)
            found = Counted.of(held, job.task)
        stats = _above(found.stats, job.recipe.federation.min_examples)
        told = {"stats": stats, "train": found.train, "holdout": found.holdout}
        return Answer(replace(self._reply(ask), statistics=told, examples=found.train))

    def _evaluate(self, job: Job, ask: Ask, model: Tensors, sent: Tensors) -> Answer:
        """What the model makes of the rows held back, as sums."""
        own = self._state(ask).before(ask.round, ask.counted)
        done = self._worker.perform(job, self._open(job), Order(ask, model, sent, own))
        return Answer(replace(self._reply(ask), sums=done.sums))

    def _train(self, job: Job, ask: Ask, model: Tensors, sent: Tensors) -> Answer:
        """Judge the incoming model, then train it; the update is what training has added."""
        held, state = self._open(job), self._state(ask)
        done = self._worker.perform(job, held, Order(ask, model, sent, state.before(ask.round, ask.counted)))
        if make_method(job.recipe.federation).keeps:
            state.keep(ask.round, done.own, ask.counted)
        reply = replace(self._reply(ask), examples=len(held.train), steps=done.steps, loss=done.loss, sums=done.sums)
        return Answer(reply, done.update, done.extras)

    def _state(self, ask: Ask) -> SiteState:
        return SiteState(self._folder / ask.job)

    def _reply(self, ask: Ask) -> Reply:
        return Reply(self.name, ask.kind, ask.job, ask.round, tunesmith=__version__)


def of_the_disk(error: BaseException | None) -> bool:
    """Whether an error comes from a disk that is full, or may not be written.

    Rows or a model that must not be read are no such thing: no waiting mends them.
    """
    being_read = False
    while error is not None:
        being_read = being_read or isinstance(error, DataError | ModelError)
        if isinstance(error, OSError) and (error.errno in DISK or (error.errno in FORBIDDEN and not being_read)):
            return True
        error = error.__cause__
    return False


def _above(stats: Any, least: int) -> Any:
    """Statistics without counts that rest on fewer rows than ``least``.

    >>> _above({"labels": {"flu": 40, "rare": 3}, "multi_label": False}, 10)
    {'labels': {'flu': 40}, 'multi_label': False}
    """
    if isinstance(stats, Mapping):
        kept = {key: _above(value, least) for key, value in stats.items() if not _is_count(value) or value >= least}
        return kept
    return stats


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
