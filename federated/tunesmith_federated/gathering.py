"""What one exchange brings: replies checked one by one, kept on disk where they are sound, each with a line for the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith_federated import checks, sums, sums_kinds
from tunesmith_federated.codec import unopened
from tunesmith_federated.exchange import exchange
from tunesmith_federated.messages import Parcel, opened
from tunesmith_federated.models import size
from tunesmith_federated.protocol import Ask, Reply, Tensors
from tunesmith_federated.roster import failure

if TYPE_CHECKING:
    from tunesmith.tasks.base import State, Task
    from tunesmith_federated.bundle import Bundle
    from tunesmith_federated.flower import Grid, Message
    from tunesmith_federated.inbox import Inbox
    from tunesmith_federated.server_state import Row

Tell = Callable[[Mapping[str, Any]], None]


@dataclass
class Gathered:
    """What one exchange brought."""

    rows: dict[str, Row] = field(default_factory=dict)
    """A line for each site that was asked."""
    norms: dict[str, float] = field(default_factory=dict)
    """The length of each update that came while this process was there."""

    @property
    def accepted(self) -> list[str]:
        """The sites whose reply counts, sorted: sums do not depend on who came first."""
        return sorted(name for name, row in self.rows.items() if row["status"] == "replied")

    @property
    def refused(self) -> list[str]:
        """The sites that will not do it."""
        return sorted(name for name, row in self.rows.items() if row["status"] == "refused")

    @property
    def rejected(self) -> list[str]:
        """The sites whose reply is not counted."""
        return sorted(name for name, row in self.rows.items() if row["status"] == "rejected")

    @property
    def others(self) -> list[Row]:
        """The lines of the sites whose reply does not count."""
        return [row for _, row in sorted(self.rows.items()) if row["status"] != "replied"]


@dataclass(frozen=True)
class Gatherer:
    """Gathers into an inbox, which outlives this process."""

    grid: Grid
    inbox: Inbox
    task: Task
    state: State
    timeout: float
    tell: Tell
    said: set[tuple[object, ...]] = field(default_factory=set)
    """What was told of sites that refuse, and of replies that are rejected: each is told once."""
    rejected: dict[str, Row] = field(default_factory=dict)
    """Lines of replies that were rejected as they came, by site: the same question would get the same answer."""
    again: float | None = None
    """Seconds after which a site that is online and says nothing is asked once more; None never."""
    counted: Mapping[str, int] | None = None
    """Each site's last round whose update counted; None where sites keep nothing between rounds."""

    def gather(self, ask: Ask, asked: Mapping[str, int], sent: Tensors, extras: Tensors) -> Gathered:
        """Ask these sites (name → node).

        Replies that a killed server had got already count, and are not asked for again; those that were rejected neither. They
        count whether or not their sites are among those that are asked: who has answered need not be there any more.
        """
        found, going = self._had(ask, asked, size(sent) + size(extras)), size(sent) + size(extras)
        missing = {name: node for name, node in asked.items() if name not in found.rows}
        total = len(found.rows) + len(missing)
        self._progress(ask, found, total)
        for name, message in exchange(self.grid, ask, missing, sent, extras, self.timeout, self.again, self.counted):
            found.rows[name] = {**self._admitted(name, message, ask, sent, extras, found.norms), "bytes_sent": going}
            self._progress(ask, found, total)
        for name in missing:
            late = {"round": ask.round, "site": name, "status": "late", "reason": f"no word in {self.timeout:g} s"}
            found.rows.setdefault(name, {**late, "bytes_sent": going})
        return found

    def reject_too_long(self, gathered: Gathered, ratio: float) -> None:
        """Updates that are far longer than the cohort's are not counted.

        They stay in the inbox: where the round waits for more sites, the cohort may yet be another.
        """
        known = gathered.norms
        norms = {name: known[name] if name in known else checks.norm(self.inbox.update(name)) for name in gathered.accepted}
        for name, reason in checks.too_long(norms, ratio).items():
            gathered.rows[name] |= {"status": "rejected", "reason": reason}
            self._say_rejected(gathered.rows[name])

    def judged(self, gathered: Gathered) -> sums.Judgement:
        """What all rows held back at the sites whose reply counts say of the model that was asked about."""
        told: dict[str, Any] = {}
        for name in gathered.accepted:
            one = self.inbox.reply(name).sums
            told = sums.merge([told, dict(one)]) if told and one else told or dict(one)
        return sums.judgement(told, self.task, self.state)

    def _had(self, ask: Ask, asked: Mapping[str, int], going: int) -> Gathered:
        lines = {name: row for name, row in self.rejected.items() if name in asked and row["round"] == ask.round}
        found = Gathered({name: {**row, "bytes_sent": going} for name, row in lines.items()})
        for name in self.inbox.sites():
            row = self._stored(self.inbox.reply(name), ask)
            if row is None:
                self.inbox.reject(name)
            else:
                found.rows[name] = {**row, "bytes_sent": going}
        return found

    def _stored(self, reply: Reply, ask: Ask) -> Row | None:
        """The line of a reply that an earlier server kept; None where it answers something else, or cannot be judged."""
        if (reply.job, reply.round, reply.kind) != (ask.job, ask.round, ask.kind):
            return None
        try:
            return self._row(reply)
        except Exception:  # an earlier version may have kept what this one would not
            return None

    def _admitted(self, name: str, message: Message, ask: Ask, sent: Tensors, extras: Tensors, norms: dict[str, float]) -> Row:
        """The line of one reply, which is kept where it is sound, and its length measured."""
        row: Row = {"round": ask.round, "site": name}
        if not message.has_content():
            return {**row, "status": "lost", "reason": failure(message)}
        try:
            parcel = opened(message, unopened)
            row["bytes_received"] = parcel.model.layout.length + parcel.extras.layout.length
            reply = Reply.from_json(parcel.words)
        except ValueError as error:
            return self._rejected(row, str(error))
        if reply.site != name:
            return self._rejected(row, f"it calls itself {reply.site!r}")
        if reply.refused:
            return self._say_refused({**row, "status": "refused", "reason": reply.refused})
        try:
            problem = self._problem(reply, parcel, ask, sent, extras)
            if problem is not None:
                return self._rejected(row, problem)
            row, norm = self._row(reply), parcel.model.norm
        except Exception as error:  # what a site has made up must not end the server
            return self._rejected(row, f"it cannot be judged ({type(error).__name__}: {error})")
        self.inbox.put(reply, parcel.model, parcel.extras)
        norms[name] = norm
        return row

    def _problem(self, reply: Reply, parcel: Parcel[Bundle], ask: Ask, sent: Tensors, extras: Tensors) -> str | None:
        """Why a reply that did not refuse cannot count, or None."""
        expected, kinds = sent if ask.kind == "train" else {}, sums_kinds.kinds_of(self.task, self.state)
        own = type(self.task).__module__.partition(".")[0] != "tunesmith"  # a `module:Class`, whose accuracy may be in percent
        return checks.check_reply(reply, parcel.model, parcel.extras, expected, ask, extras, kinds, own)

    def _row(self, reply: Reply) -> Row:
        return {
            "round": reply.round,
            "site": reply.site,
            "status": "replied",
            "reason": "",
            "examples": reply.examples,
            "steps": reply.steps,
            "loss": reply.loss,
            "seconds": reply.seconds,
            "bytes_received": reply.sent_bytes,
            "judged": int(reply.sums.get("n", 0)),
            "metrics": sums.judgement(reply.sums, self.task, self.state).metrics,
        }

    def _rejected(self, row: Row, reason: str) -> Row:
        """The line says nothing that the reply said: nobody has found it to be sound."""
        row = {**row, "status": "rejected", "reason": reason}
        self.rejected[row["site"]] = row
        self._say_rejected(row)
        return row

    def _say_rejected(self, row: Row) -> None:
        """Once in a round."""
        message = f"Round {row['round']}: the reply of {row['site']} is rejected: {row['reason']}"
        self._say_once(message, (row["round"], row["site"], row["reason"]))

    def _say_refused(self, row: Row) -> Row:
        """Once in a run, whatever the round."""
        self._say_once(f"Round {row['round']}: {row['site']} refuses: {row['reason']}", (row["site"], row["reason"]))
        return row

    def _say_once(self, message: str, about: tuple[object, ...]) -> None:
        if about not in self.said:
            self.tell({"kind": "note", "message": message})
            self.said.add(about)

    def _progress(self, ask: Ask, found: Gathered, total: int) -> None:
        what = f"Round {ask.round} of {ask.rounds}" if ask.kind == "train" else "Judging the last model"
        self.tell({"kind": "prepare", "message": f"{what}: sites", "done": len(found.rows), "total": total})
