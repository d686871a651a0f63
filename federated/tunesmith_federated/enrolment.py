"""Before round 1: who takes part, which classes all of them share, and who can work with these."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError, TunesmithError
from tunesmith_federated import asked_recipe
from tunesmith_federated.roster import Roster, gather, merged

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import State, Task
    from tunesmith_federated.flower import Grid
    from tunesmith_federated.protocol import Ask, Reply

log = logging.getLogger("tunesmith.federation")

KINDS = {"multi_label": "lists of labels", "pairs": "pairs of texts"}
"""What statistics say of all of a site's rows: each site trains by what it finds in its own, so all must find the same."""

Kinds = Mapping[str, bool]
"""Whether all sites' rows are of each of :data:`KINDS`."""


@dataclass(frozen=True)
class Enrolment:
    """The sites of a run, asked."""

    recipe: Recipe
    task: Task
    grid: Grid
    roster: Roster
    ask: Callable[[str], Ask]
    """Makes the question what a site holds, of the recipe that travels."""
    tell: Callable[[Mapping[str, Any]], None]
    wait_s: float
    """How long sites may take to join."""
    patience: float | None = None
    """For how many seconds those who are new are waited for before it is looked who else has come; None: until they speak."""
    _said: set[tuple[str, str]] = field(default_factory=set)

    def settle(self, known: State | None, labels: list[str] | None, kinds: Kinds | None = None) -> State:
        """The frozen state that all sites share; sites that cannot work with its classes are not on the roster.

        Args:
            known: the state, where the server has it before (a simulation).
            labels: the classes, where they are declared, or were settled by an earlier call.
            kinds: those of the rows, where an earlier call has settled them: a site that has joined since with rows of another
                kind ends nothing then.

        Raises :class:`UserError` where too few sites take part, or what they have makes no model.
        """
        text = asked_recipe.for_sites(self.recipe, labels)
        self.tell({"kind": "phase", "message": "Asking the sites what they hold"})
        if kinds is not None:
            self._hold_to(kinds)
        self._wait(text)
        state = known or self._frozen(text)
        settled = list(state.get("labels") or ()) or None
        if known is not None or settled == labels:
            return state
        self.tell({"kind": "note", "message": f"The sites share the classes {', '.join(settled or ())}. {self._rule}"})
        self.roster.anew()
        text = asked_recipe.for_sites(self.recipe, settled)
        self._wait(text)
        return self._frozen(text)

    def _wait(self, text: str) -> None:
        """Until enough have said what they hold; why others do not take part is told."""
        least = self.recipe.federation.min_sites

        def waiting(there: int) -> None:
            self._say_refused()
            silent = f"; not yet heard: {', '.join(self.roster.silent())}" if self.roster.silent() else ""
            self.tell({"kind": "phase", "message": f"Waiting for sites: {there} of at least {least} are there{silent}"})

        gather(self.grid, self.roster, self.ask(text), least, self.wait_s, waiting, self.patience)
        self._say_refused()

    def _say_refused(self) -> None:
        for name, reason in sorted(self.roster.refused.items()):
            if (name, reason) not in self._said:
                self.tell({"kind": "note", "message": f"{name} does not take part: {reason}"})
        self._said.update(self.roster.refused.items())

    def _frozen(self, text: str) -> State:
        stats = merged(self.task, self.roster.said)
        _check_alike(self.roster.said)
        self._hold_to(kinds_of(self.roster.said))
        try:
            return self.task.freeze(stats, asked_recipe.read(text))
        except DataError as error:
            if self.recipe.data.labels is not None:
                raise
            raise DataError(f"what the sites tell makes no model: {str(error).splitlines()[0]}\n    → {self._rule}") from error
        except TunesmithError:
            raise
        except Exception as error:  # whatever a task makes of what sites have made up
            log.exception("what the sites tell makes no model")
            raise DataError(f"what the sites tell makes no model: {type(error).__name__}: {error}") from error

    def _hold_to(self, kinds: Kinds) -> None:
        """Whoever says from now on what it holds must have rows of these kinds."""
        self.roster.check = partial(_as_the_others, kinds=kinds, check=self.roster.check)

    @property
    def _rule(self) -> str:
        least = self.recipe.federation.min_examples
        return f"A class of which a site has fewer than {least} rows is not told by it: name all classes in data.labels."


def kinds_of(said: Mapping[str, Reply]) -> dict[str, bool]:
    """Whether the rows of sites that are alike are of each kind."""
    return {kind: any(_has(reply, kind) for reply in said.values()) for kind in KINDS}


def _has(reply: Reply, kind: str) -> bool:
    return bool(reply.statistics["stats"].get(kind))


def _check_alike(said: Mapping[str, Reply]) -> None:
    """Raises :class:`DataError` where some sites have rows of one kind and some of another."""
    for kind, what in KINDS.items():
        having = sorted(name for name, reply in said.items() if _has(reply, kind))
        others = sorted(said.keys() - having)
        if having and others:
            raise DataError(
                f"{', '.join(having)}: there are {what}; {', '.join(others)}: there are none. They would train models of two "
                "kinds\n    → Let all sites write their rows in the same way, one label as a list of one too"
            )


def _as_the_others(reply: Reply, kinds: Kinds, check: Callable[[Reply], str | None]) -> str | None:
    """Why a site that comes later cannot take part, or None."""
    wrong = check(reply)
    unlike = [what for kind, what in KINDS.items() if wrong is None and _has(reply, kind) != kinds.get(kind, False)]
    return f"its rows are of another kind than the other sites' ({', '.join(unlike)})" if unlike else wrong
