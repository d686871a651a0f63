"""The round loop: ask, gather, check, combine, keep. The same for simulated and for real sites.

:meth:`Federation.run` is the whole story, and :meth:`Federation._round` one round of it. Nothing is in memory alone: a server
that is killed goes on from its last round, with the replies that had come in the round under way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunesmith import __version__
from tunesmith.errors import TrainingFailed, UserError
from tunesmith_federated import aggregate, asked_recipe
from tunesmith_federated.checks import check_described
from tunesmith_federated.enrolment import Enrolment, kinds_of
from tunesmith_federated.gathering import Gathered, Gatherer
from tunesmith_federated.inbox import Inbox
from tunesmith_federated.methods import make_method
from tunesmith_federated.methods.base import Combined
from tunesmith_federated.models import Base, size, tensors_of, travelling
from tunesmith_federated.protocol import Ask, Kind, Tensors
from tunesmith_federated.roster import WAIT, Roster
from tunesmith_federated.server_state import INBOX, Book, Row
from tunesmith_federated.sums import Judgement

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Metrics, State, Task
    from tunesmith_federated.flower import Grid

Tell = Callable[[Mapping[str, Any]], None]

PAUSE = 2.0
"""Seconds before sites are asked again that could not be reached."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, on the server's side."""

    id: str
    """Of the federated run: sites keep what they keep under it."""
    recipe: Recipe
    task: Task
    folder: Path
    state: State | None = None
    """The frozen state, where it is known before the sites are asked (a simulation)."""
    most_bytes: int | None = None
    """The largest message that the line takes."""
    wait_s: float = 60.0
    """How long sites may take to join."""
    again_s: float | None = None
    """After how long a silent site is asked once more; None never."""
    grace_s: float | None = None
    """How long a round waits for a site that is new and has yet to say what it holds; None: as long as a round takes."""
    signatures: tuple[str, ...] = ()
    """Of the recipe, for sites that allow by signer."""

    @property
    def rounds(self) -> int:
        """Exchanges of the model."""
        section = self.recipe.federation
        return section.rounds or math.ceil(self.recipe.training.num_train_epochs / section.local_epochs)


class Federation:
    """One federated run, from its book."""

    def __init__(self, plan: Plan, grid: Grid, tell: Tell) -> None:
        self.plan, self.book = plan, Book(plan.folder)
        self._grid, self._tell = grid, tell
        self._section = plan.recipe.federation
        self._method = make_method(self._section)
        most = asked_recipe.MOST_CLASSES if plan.state is None else None
        described = partial(check_described, task=plan.task, most=most)
        self._inbox, self._roster = Inbox(plan.folder / INBOX), Roster(check=described)
        self.state: State = {}
        """The frozen preprocessing state that all sites share, once they have said what they hold."""
        self._yaml = ""
        self._said: set[tuple[object, ...]] = set()
        """What was told of refusals and rejected replies."""
        self._rejected: dict[str, Row] = {}
        """Rejected replies of the attempt under way, by site."""
        self._waiting: float | None = None
        """When the round under way must have its quorum, once it was found without."""
        self._counted: dict[str, int] = {
            row["site"]: row["round"] for row in self.book.rows() if row["status"] == "replied" and row.get("steps")
        }
        """The last round in which each site's update counted."""

    def run(self) -> Book:
        """All rounds, and the last judgement; returns what is on disk of them.

        Raises:
            UserError: too few sites take part, or the model is too large for the line.
            TrainingFailed: too few updates came, several rounds in a row. The run can be gone on with.
        """
        self._enrol()
        if not self.book.begun:
            self._begin()
        model, state = self.book.tensors()
        while self.book.standing.round < self.plan.rounds:
            model, state = self._round(self.book.standing.round + 1, model, state)
        if not self.book.standing.ended:
            self._judge_last(model)
        return self.book

    def _enrol(self) -> None:
        """Ask the sites what they have, and settle the classes."""
        plan, standing = self.plan, self.book.standing
        declared = plan.state.get("labels") if plan.state else plan.recipe.data.labels

        def ask(text: str) -> Ask:
            self._yaml = text
            return self._ask("describe", 0)

        patience = None if plan.grace_s is None else WAIT
        made = Enrolment(plan.recipe, plan.task, self._grid, self._roster, ask, self._tell, plan.wait_s, patience)
        self.state = made.settle(plan.state, list(declared) if declared else standing.labels, standing.kinds)
        if plan.state is None and standing.kinds is None:
            standing.kinds = kinds_of(self._roster.said)
        standing.labels = list(self.state.get("labels") or ()) or None
        standing.sites = {
            name: {part: int(reply.statistics.get(part, 0)) for part in ("train", "holdout")}
            for name, reply in sorted(self._roster.said.items())
        }
        self._yaml = asked_recipe.for_sites(plan.recipe, standing.labels)

    def _begin(self) -> None:
        """The model that the first round starts from."""
        model, _ = Base(self.plan.recipe, self.plan.task, self.state).adapted()
        tensors = tensors_of(model, travelling(model, self._method))
        state, most = self._method.begin(tensors), self.plan.most_bytes
        weighs, beside = size(self._sent(tensors)), size(self._sent(self._method.broadcast(state)))
        if most is not None and weighs + beside > most:
            name = self._section.method
            more = f", {beside / 1e6:,.0f} MB of them for federation.method: {name}" if beside else ""
            fix = " or fedavg, which sends the model alone" if beside else ""
            raise UserError(
                f"the tensors are {(weighs + beside) / 1e6:,.0f} MB a message{more}, and the SuperLink's database takes "
                f"{most / 1e6:,.0f} MB\n    → Send adapters only (training.adaptation: lora), federation.dtype: bfloat16{fix}"
            )
        self.book.turn(0, tensors, state, [])

    def _round(self, number: int, model: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """One exchange: sites judge the model and train it; returns the next one. The same again where too few replied."""
        begun, gatherer = time.perf_counter(), self._gatherer()
        self._refresh()
        asked = self._drawn(number)
        gathered = gatherer.gather(
            self._ask("train", number), asked, self._sent(model), self._sent(self._method.broadcast(state))
        )
        if self._section.max_norm_ratio is not None:
            gatherer.reject_too_long(gathered, self._section.max_norm_ratio)
        if len(gathered.accepted) < self._section.min_sites:
            self._too_few(number, gathered)
            return model, state
        self._waiting = None
        judged = gatherer.judged(gathered)
        self._remember(number - 1, judged, model)
        model, state = self._method.step(model, self._combined(gathered, model, state), state)
        self.book.turn(number, model, state, [row for _, row in sorted(gathered.rows.items())])
        self._counted.update(dict.fromkeys(gathered.accepted, number))
        self._inbox.clear()
        self._tell({"kind": "round", **_told(number, self.plan.rounds, gathered, judged.metrics, time.perf_counter() - begun)})
        return model, state

    def _combined(self, gathered: Gathered, model: Tensors, state: Tensors) -> Combined:
        """The accepted updates as one; one tensor of one site in memory at a time."""
        combine = {"mean": aggregate.mean, "median": aggregate.median}[self._method.combine]
        updates = [self._inbox.update(name) for name in gathered.accepted]
        beside = gathered.accepted if self._method.broadcast(state) else []
        extras = aggregate.mean_of_extras([self._inbox.extras(name) for name in beside])
        return Combined(combine(updates, model), extras, len(updates) / max(1, self._known(gathered)))

    def _drawn(self, number: int) -> dict[str, int]:
        """The sites that a round asks: drawn by the seed, the round and its attempt alone.

        One whose reply is there takes part whether or not it is drawn again, and though it may have left, or never have come
        back to a server that was started again: it is not asked, so that nobody need know where.
        """
        online = self._roster.online()
        came = {name for name in self._inbox.sites() if self._inbox.reply(name).round == number}
        there = sorted({*online, *came})
        wanted = max(self._section.min_sites, math.ceil(self._section.fraction_train * len(there)))
        if wanted >= len(there):
            return online
        rng = np.random.default_rng([self.plan.recipe.training.seed, number, self.book.standing.failed])
        taking_part = came | {str(one) for one in rng.choice(there, wanted, replace=False)}
        return {name: node for name, node in online.items() if name in taking_part}

    def _known(self, gathered: Gathered) -> int:
        """Sites that are there, were there, or have sent what counts."""
        return len({*self._roster.nodes, *gathered.accepted})

    def _too_few(self, number: int, gathered: Gathered) -> None:
        """A round without its quorum is made again: soon, while its time lasts, and then some times anew.

        What has come is kept, so that only the others are asked; a site whose reply was rejected is asked anew when the
        round's time is over. Raises :class:`TrainingFailed` after the last time, and at once where so many refuse that the
        others are too few, those among them that have yet to say what they hold.
        """
        standing, least, came = self.book.standing, self._section.min_sites, len(gathered.accepted)
        said = "".join(f"\n  {row['site']}: {row['status']}, {row['reason']}" for row in gathered.others)
        if self._known(gathered) + len(self._roster.silent()) - len(gathered.refused) < least:
            raise TrainingFailed(
                f"round {number}: {len(gathered.refused)} of {self._known(gathered)} sites refuse, and at least {least} must "
                f"send an update{said}\n    → The same command goes on from this round, once they are let do it"
            )
        first = self._waiting is None
        self._waiting = self._waiting or time.monotonic() + self._section.round_timeout_s
        if time.monotonic() < self._waiting:
            if first:
                message = (
                    f"Round {number} waits for more sites: {came} of at least {least} have sent an update that counts{said}"
                )
                self._tell({"kind": "note", "message": message})
            time.sleep(min(PAUSE, max(0.0, self._waiting - time.monotonic())))
            return
        self._waiting = None
        self._rejected.clear()
        for name in gathered.rejected:
            self._inbox.reject(name)
        standing.failed += 1
        ends = standing.failed >= self._section.max_failed_rounds
        if ends:
            standing.failed = 0
        self.book.save()
        if ends:
            raise TrainingFailed(
                f"round {number}: only {came} of at least {least} sites sent an update that counts, "
                f"{self._section.max_failed_rounds} times in a row{said}\n"
                "    → The same command goes on from this round, once enough sites are there"
            )
        message = f"Round {number} is made again: {came} of at least {least} sites sent an update that counts{said}"
        self._tell({"kind": "note", "message": message})

    def _remember(self, number: int, judged: Judgement, model: Tensors) -> None:
        """The model after round ``number`` is judged: is it the best so far? The one that training began with never is."""
        standing, name = self.book.standing, self.plan.recipe.training.metric_for_best_model or self.plan.task.metric
        standing.judged[number] = judged.metrics
        standing.judged_by[number] = {key: value for key, value in asdict(judged).items() if key != "metrics"}
        value = judged.metrics.get(name, math.nan)
        if not number or math.isnan(value):
            return
        before = standing.judged[standing.best][name] if standing.best is not None else None
        more = bool(self.plan.recipe.resolved().training.greater_is_better)
        if before is None or (value > before if more else value < before):
            self.book.keep_best(number, model)

    def _judge_last(self, model: Tensors) -> None:
        """The sites judge the last model, which nobody trains any more.

        Raises :class:`TrainingFailed` where nobody answers, and the server has no rows of its own: to be gone on with.
        """
        gathered = self._last_judgements(model)
        unheard = [row for row in gathered.others if row["status"] != "refused"]
        if unheard and not gathered.accepted:
            said = "".join(f"\n  {row['site']}: {row['status']}, {row['reason']}" for row in unheard)
            if self.plan.recipe.data.test is None:
                raise TrainingFailed(
                    f"no site has judged the last model{said}\n    → The same command asks again, once the sites are there"
                )
            self._tell({"kind": "note", "message": f"No site has judged the last model{said}"})
            return
        judged = self._gatherer().judged(gathered)
        self._remember(self.plan.rounds, judged, model)
        self.book.end([row for _, row in sorted(gathered.rows.items())])
        self._inbox.clear()
        self._tell({"kind": "judged", "round": self.plan.rounds, "metrics": judged.metrics})

    def _last_judgements(self, model: Tensors) -> Gathered:
        """What comes within a round's time of those that hold back enough rows; sites that are lost are asked again."""
        ask, sent, least = self._ask("evaluate", self.plan.rounds + 1), self._sent(model), self._section.min_examples
        deadline = time.monotonic() + self._section.round_timeout_s
        while True:
            self._refresh()
            said = self._roster.said
            able = {name for name, reply in said.items() if int(reply.statistics.get("holdout", 0)) >= least}
            there = {*self._roster.online(), *self._inbox.sites()} & able
            gathered = self._gatherer().gather(ask, {name: self._roster.nodes[name] for name in sorted(there)}, sent, {})
            settled = len(gathered.refused) + len(gathered.rejected)
            waits = len(gathered.accepted) < min(self._section.min_sites, len(able) - settled)
            if not waits or time.monotonic() >= deadline:
                gone = {"round": ask.round, "status": "lost", "reason": "it is offline"}
                gathered.rows.update({name: {**gone, "site": name} for name in able - there})
                return gathered
            time.sleep(min(PAUSE, max(0.0, deadline - time.monotonic())))

    def _refresh(self) -> None:
        """See who is there, and ask those who are new."""
        self._roster.refresh(self._grid, self._ask("describe", 0), self._section.round_timeout_s, self.plan.grace_s)

    def _gatherer(self) -> Gatherer:
        timeout, again = self._section.round_timeout_s, self.plan.again_s
        return Gatherer(
            self._grid,
            self._inbox,
            self.plan.task,
            self.state,
            timeout,
            self._tell,
            self._said,
            self._rejected,
            again,
            self._counted if self._method.keeps else None,
        )

    def _sent(self, tensors: Tensors) -> Tensors:
        """Tensors as they travel."""
        wire = getattr(torch, self._section.dtype)
        return {name: value.to(wire) if value.is_floating_point() else value for name, value in tensors.items()}

    def _ask(self, kind: Kind, number: int) -> Ask:
        return Ask(
            kind=kind,
            job=self.plan.id,
            round=number,
            rounds=self.plan.rounds,
            recipe=self._yaml,
            fingerprint=asked_recipe.fingerprint(self._yaml, bounded=self.plan.state is None),
            labels=self.book.standing.labels,
            sites=self._section.min_sites,
            tunesmith=__version__,
            signatures=list(self.plan.signatures),
        )


def _told(number: int, rounds: int, gathered: Gathered, judged: Metrics, seconds: float) -> dict[str, Any]:
    """What is told of a round."""
    counted = [gathered.rows[name] for name in gathered.accepted]
    losses = [(row["loss"], row["examples"]) for row in counted if row["loss"] is not None]
    total = sum(examples for _, examples in losses)
    return {
        "round": number,
        "rounds": rounds,
        "replied": len(counted),
        "asked": len(gathered.rows),
        "loss": sum(loss * examples for loss, examples in losses) / total if total else None,
        "metrics": judged,
        "bytes": sum(row.get("bytes_sent", 0) + row.get("bytes_received", 0) for row in gathered.rows.values()),
        "seconds": seconds,
    }
