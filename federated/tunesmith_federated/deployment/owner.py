"""The owner's hand at a site: each request is held against ``site.yaml``, and what comes of it is written down.

The client app asks :meth:`Owner.refusal` before it does anything, and tells :meth:`Owner.done` before its answer leaves::

    owner = Owner.here()
    refused = owner.refusal(ask, received_bytes)
    ...
    refused = owner.done(ask, reply)     # the answer may rest on too few rows
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict

from tunesmith import storage
from tunesmith.errors import UserError
from tunesmith_federated import asked_recipe
from tunesmith_federated.deployment import policy
from tunesmith_federated.deployment.audit import AuditLog, DiskTrouble
from tunesmith_federated.deployment.certificates import write_secret
from tunesmith_federated.deployment.ledger import Ledger
from tunesmith_federated.deployment.site_config import VARIABLE, SiteConfig, read
from tunesmith_federated.protocol import Ask, Reply

log = logging.getLogger("tunesmith.site")

NOTHING_WITHOUT = "the site cannot write its audit log, and does nothing without it"
UNREADABLE = "unreadable"
"""Stands for the fingerprint of a recipe that is none."""
LONGEST_NAME = 100
"""Letters of a job's name in the log: no more than one that is none can have."""
MOST_ASKED = 200
"""Recipes that lie there to be read, those that were asked last."""


class Owner:
    """Speaks for the owner while the site answers."""

    def __init__(self, config: SiteConfig) -> None:
        self.config = config
        self.audit = AuditLog(config.state_dir)
        self._ledger = Ledger(config.state_dir)

    @classmethod
    def here(cls) -> Owner:
        """The owner of the site that this process answers for. Raises :class:`UserError` where the variable is not set."""
        path = os.environ.get(VARIABLE)
        if not path:
            raise UserError(
                f"{VARIABLE} is not set: this process answers for no site\n    → `tunesmith site join --config site.yaml`"
            )
        return cls(read(path))

    @property
    def min_examples(self) -> int:
        """Rows that anything reported must rest on; the recipe's own number counts where it is larger."""
        return self.config.limits.min_examples

    def refusal(self, ask: Ask, received_bytes: int, remembered: bool = False) -> str:
        """Why it is not done, or empty. Written down either way. Raises :class:`DiskTrouble` where that cannot be.

        ``remembered``: the answer is there already.
        """
        known = _known(ask)
        facts = {"job": ask.job[:LONGEST_NAME], "kind": ask.kind, "round": ask.round, "rounds": ask.rounds, "recipe": known}
        signer = policy.signer(ask, self.config) if known != UNREADABLE else None
        signed = {} if signer is None else {"signer": signer}
        with self._written_down():
            self._keep_recipe(known, ask.recipe)
            self.audit.append("asked", **facts, **signed, sites=ask.sites, received_bytes=received_bytes)
            reason = policy.check(ask, self.config, self._ledger.used(ask.job), remembered)
            if reason:
                self.audit.append("refused", **facts, reason=reason)
        if reason:
            _say_refused(ask, reason)
        return reason

    def done(self, ask: Ask, reply: Reply) -> str:
        """Writes down what leaves; why it must not leave, or empty. Raises :class:`DiskTrouble` where that cannot be."""
        with self._written_down():
            return self._done(ask, reply)

    def _done(self, ask: Ask, reply: Reply) -> str:
        known = _known(ask)
        facts = {"job": ask.job[:LONGEST_NAME], "kind": ask.kind, "round": ask.round, "recipe": known}
        reason = reply.refused
        if not reason and ask.kind in ("describe", "train") and reply.examples < self.min_examples:
            reason = f"the site has {reply.examples} rows to train on, and reports nothing below {self.min_examples}"
        trained = ask.round if ask.kind == "train" else None
        self._ledger.charge(ask.job, reply.seconds, trained, left=trained is not None and not reason)
        if reason:
            self.audit.append("refused", **facts, reason=reason)
            _say_refused(ask, reason)
            return reason
        words = len(json.dumps(asdict(reply)).encode())
        self.audit.append(
            "done", **facts, seconds=round(reply.seconds, 3), examples=reply.examples, sent_bytes=reply.sent_bytes + words
        )
        size = (reply.sent_bytes + words) / 2**20
        log.info(
            "%s, round %d of %d, job %s: %.1f s, %.2f MB sent", ask.kind, ask.round, ask.rounds, ask.job, reply.seconds, size
        )
        return ""

    def failed(self, ask: Ask, error: BaseException, seconds: float) -> None:
        """Writes down that so many seconds came to no answer. Raises :class:`DiskTrouble` where that cannot be."""
        with self._written_down():
            self.audit.append("failed", job=ask.job[:LONGEST_NAME], kind=ask.kind, round=ask.round, error=type(error).__name__)
            self._ledger.charge(ask.job, seconds)

    def in_the_way(self, ask: Ask, seconds: float) -> None:
        """Counts seconds that came to nothing for the site's own disk, where that takes so much."""
        with contextlib.suppress(OSError):
            self._ledger.charge(ask.job, seconds)

    @contextlib.contextmanager
    def _written_down(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.error("the audit log: %s", storage.explain(error, self.config.state_dir))  # noqa: TRY400
            raise DiskTrouble(NOTHING_WITHOUT) from error

    def _keep_recipe(self, known: str, recipe: str) -> None:
        """What is asked lies there to be read before it is allowed; where there are too many, the oldest go."""
        place = self.config.state_dir / "asked" / f"{known}.yaml"
        if known == UNREADABLE:
            return
        if place.exists():
            place.touch()
            return
        write_secret(place, recipe.encode())
        kept = sorted(place.parent.glob("*.yaml"), key=lambda file: file.stat().st_mtime_ns)
        for old in kept[:-MOST_ASKED]:
            old.unlink(missing_ok=True)


def _known(ask: Ask) -> str:
    try:
        return asked_recipe.fingerprint(ask.recipe)
    except Exception:  # whatever a reader makes of what a server can send: that it was asked is written down all the same
        return UNREADABLE


def _say_refused(ask: Ask, reason: str) -> None:
    log.warning("refused %s, round %d of job %s: %s", shown(ask.kind), ask.round, shown(ask.job[:LONGEST_NAME]), shown(reason))


def shown(text: str) -> str:
    r"""What came over the line, as a line of a log may hold it.

    >>> shown("one\nand \ud800")
    'one\\nand \\ud800'
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
