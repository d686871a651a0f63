"""What a search shows while it runs: a live table of trials in a terminal, a line for each that ends in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tunesmith.recipe.template import inline
from tunesmith.runs.words import span
from tunesmith.tuning.trials import FINISHED, Trial

if TYPE_CHECKING:
    from rich.live import Live

MOST_ROWS = 14
STILL_SECONDS = 10.0
"""A log says so often that the search still lasts."""

MARKS = {"waiting": "…", "running": "▶", "done": "✓", "stopped": "■", "failed": "✗"}


class TrialsView:
    """The trials of a search on a rich console: ``with TrialsView(console, …) as view: view.show(trials, changed)``."""

    def __init__(
        self, console: Console, metric: str, sign: int, planned: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``sign`` is 1 where more of the metric is better, else -1; ``planned`` the number of trials, where it is known."""
        self._console, self._metric, self._sign, self._planned, self._clock = console, metric, sign, planned, clock
        self._begun = self._said = clock()
        self._trials: Sequence[Trial] = ()
        self._told: set[int] = set()
        self._lock = threading.RLock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, trials: Sequence[Trial], changed: Trial | None = None) -> None:
        """The trials as they are now; one that has ended since gets its line in a log."""
        with self._lock:
            self._trials = list(trials)
            if self._live is None and changed is not None and changed.status in FINISHED and changed.number not in self._told:
                self._told.add(changed.number)
                self.say(self._line(changed))
            elif self._live is None and self._clock() - self._said >= STILL_SECONDS:
                self.say(f"  {self._head()}")

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._said = self._clock()

    def _head(self) -> str:
        ended = sum(trial.status in FINISHED for trial in self._trials)
        running = sum(trial.status == "running" for trial in self._trials)
        of = f" of {self._planned}" if self._planned else ""
        best = self._best()
        said = f", best {self._metric} {self._value(best)} (trial {best.number})" if best is not None else ""
        return f"{ended}{of} trials ended, {running} running, {span(self._clock() - self._begun)}{said}"

    def _line(self, trial: Trial) -> str:
        """What a trial came to, in a line."""
        value = (
            f"{self._metric} {self._value(trial)}" if trial.score is not None else (trial.error.splitlines() or ["nothing"])[0]
        )
        best = self._best()
        mark = " ← best so far" if best is not None and best.number == trial.number else ""
        how = {"stopped": f"stopped after {share(trial)}, ", "failed": "failed: "}.get(trial.status, "")
        return f"Trial {trial.number} ({described(trial)}): {how}{value}{mark}"

    def _table(self) -> Any:
        with self._lock:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for title in ("", "TRIAL", self._metric.upper(), "DONE", "TIME"):
                table.add_column(title, justify="right" if title else "left", no_wrap=True)
            table.add_column("VALUES", overflow="ellipsis", no_wrap=True, ratio=1)
            best = self._best()
            for trial in self._rows(best):
                style = "green" if best is not None and trial.number == best.number else _tone(trial)
                table.add_row(
                    MARKS[trial.status],
                    str(trial.number),
                    self._value(trial) if trial.score is not None else "–",
                    share(trial),
                    span(trial.seconds),
                    described(trial) if trial.status != "failed" else trial.error.splitlines()[0],
                    style=style,
                )
            return Group(table, Text(self._head(), style="dim"))

    def _rows(self, best: Trial | None) -> list[Trial]:
        """The running ones, the best of the others, the latest ones: as many as fit."""
        running = [trial for trial in self._trials if trial.status not in FINISHED]
        ended = [trial for trial in self._trials if trial.status in FINISHED and trial is not best]
        ranked = sorted(ended, key=lambda trial: -(trial.score if trial.score is not None else float("-inf")))
        room = MOST_ROWS - len(running) - 1
        top = [best] if best is not None and best.status in FINISHED else []
        return [*top, *ranked[: max(0, room)], *running]

    def _best(self) -> Trial | None:
        scored = [trial for trial in self._trials if trial.score is not None and trial.origin != "seed"]
        return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)

    def _value(self, trial: Trial) -> str:
        return f"{self._sign * (trial.score or 0.0):.4f}"


def _tone(trial: Trial) -> str:
    return {"failed": "red", "stopped": "dim", "running": "cyan"}.get(trial.status, "")


def share(trial: Trial) -> str:
    """How much of its training a trial has done."""
    return f"{min(1.0, trial.done_steps / trial.steps):.0%}" if trial.steps else "0%"


def described(trial: Trial) -> str:
    """A trial's values in a line."""
    own = {"recipe": "the recipe's own: ", "seed": "the best once more: "}.get(trial.origin, "")
    return own + short(trial.values)


def short(values: Mapping[str, Any]) -> str:
    """Values by their keys without the section, where they are in one; floats with three digits that matter.

    >>> short({"training.learning_rate": 0.0012345, "training.adaptation": "lora", "training.lora.r": 8})
    'learning_rate 0.00123, adaptation lora, lora.r 8'
    """
    return ", ".join(f"{key.partition('.')[2] or key} {_shown(value)}" for key, value in values.items())


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else inline(value)
