"""What training shows while it runs: one live line in a terminal, plain lines in a log; never a silent minute.

It is fed with events, mappings with a ``kind``:

==============  ======================================================================================================
``phase``       ``message``: something that takes a while begins (``Starting 2 workers``)
``prepare``     ``message``, ``done``, ``total`` (0: not known): rows prepared
``start``       ``step``, ``steps``, ``epoch``: the first update is next; a step above 0 resumes
``trained``     ``message``, ``adaptation``, ``parameters``, ``trained``, ``groups``: which parameters learn
``note``        ``message``: something that stays to be read
``step``        ``step``, ``steps``, ``epoch``, ``loss``, ``learning_rate``, ``examples_per_second``, ``peak_memory_mb``,
                ``tokens_per_second`` of texts
``eval``        ``step``, ``epoch``, metrics by name, ``best_step``
``checkpoint``  ``step``: it can be resumed from here
``retention``   ``split``, ``step``, metrics by name, ``drop``: what is left of the old
``note``        ``message``: something that the reader should know
``restart``     ``message``: a worker died, training goes on from its last checkpoint
``done``        ``step``, ``best_step``, ``best``, ``stopped_by`` where a ceiling ended it
==============  ======================================================================================================

Other kinds are passed over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars
from rich.progress import Task as Row
from rich.table import Column
from rich.text import Text

from tunesmith.runs.words import span

Event = Mapping[str, Any]

LINE_SECONDS = 5.0
"""At most one line of training steps in so many seconds where the output is no terminal."""
STILL_SECONDS = 10.0
"""A log says so often that a phase still lasts."""
RATE_WINDOW_SECONDS = 60.0
"""The remaining time is reckoned from the updates of the last minute."""

STAGES = {
    "read": "Reading rows",
    "care": "Looking for duplicates and leaks",
    "audit": "Auditing the labels",
    "encode": "Encoding rows",
    "predict": "Judging the model",
    "label": "Labelling rows",
}
"""What ``data.prepare`` and ``evaluate`` call what they do, in words."""

_PLACE_KEYS = frozenset({"kind", "split", "step", "steps", "epoch", "best_step", "time", "seconds"})


class View(Protocol):
    """How progress is drawn: live in a terminal, or as lines in a log."""

    def phase(self, message: str) -> None:
        """Something that takes a while begins."""

    def advance(self, message: str, done: int, total: int) -> None:
        """A countable phase moves on."""

    def steps(self, step: int, total: int, facts: str) -> None:
        """Training moves on."""

    def say(self, line: str) -> None:
        """Something that stays to be read."""

    def close(self) -> None:
        """Leave the output in order."""


class Progress:
    """The progress of one training, on a rich console: ``with Progress(console) as progress: progress.handle(event)``."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace(clock)
        self._metric = ""
        self._view: View = LiveView(console, clock) if console.is_terminal else LogView(console, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal in order. Calling it twice is fine."""
        self._view.close()

    def phase(self, message: str) -> None:
        """Something that takes a while begins: ``progress.phase("Starting 2 workers")``."""
        self.handle({"kind": "phase", "message": message})

    def prepared(self, message: str, done: int, total: int) -> None:
        """The callback of ``data.prepare`` and of ``evaluate``: rows done of how many; 0 of 0 where it only begins."""
        words = STAGES.get(message, message)
        if done or total:
            self.handle({"kind": "prepare", "message": words, "done": done, "total": total})
        else:
            self.handle({"kind": "phase", "message": words})

    def handle(self, event: Event) -> None:
        """Show one event."""
        kind, view = event.get("kind"), self._view
        if kind == "phase":
            view.phase(str(event["message"]))
        elif kind == "prepare":
            view.advance(str(event.get("message") or "Preparing data"), int(event["done"]), int(event["total"]))
        elif kind == "start":
            self._pace.start(int(event["step"]))
            if event["step"]:
                view.say(f"Resuming after step {event['step']:,} of {event['steps']:,} (epoch {event.get('epoch', 0):.2f})")
            view.steps(int(event["step"]), int(event["steps"]), "")
        elif kind == "step":
            self._pace.reached(int(event["step"]))
            view.steps(int(event["step"]), int(event["steps"]), self._facts(event))
        elif kind == "eval":
            found = metrics_of(event)
            self._metric = next(iter(f"{name} {value}" for name, value in found.items() if name != "loss"), "")
            best = " ← best so far" if event.get("best_step") == event["step"] else ""
            numbers = "  ".join(f"{name} {value}" for name, value in found.items())
            view.say(f"Step {event['step']:,}, epoch {event.get('epoch', 0):.2f}: {numbers}{best}")
        elif kind == "retention":
            facts = "  ".join(f"{name} {value}" for name, value in metrics_of(event, most=3).items())
            view.say(f"  {event['split']} at step {event['step']:,}: {facts}")
        elif kind in ("trained", "note"):
            view.say(str(event["message"]))
        elif kind == "restart":
            view.say(str(event.get("message") or "A worker died: training restarts from its last checkpoint"))
            view.phase("Restarting workers")
        elif kind == "note":
            view.say(str(event["message"]))
        elif kind == "done":
            best = f", best at step {event['best_step']:,}" if event.get("best_step") else ""
            view.say(f"Trained {event['step']:,} steps in {span(self._pace.elapsed)}{best}")
            if event.get("stopped_by"):
                view.say(f"Stopped: {event['stopped_by']}")
            view.phase("Gathering the model")

    def _facts(self, event: Event) -> str:
        """What stands beside the bar: loss, learning rate, the latest validation metric, speed, remaining time."""
        facts = []
        if event.get("loss") is not None:
            facts.append(f"loss {number(event['loss'])}")
        if event.get("learning_rate") is not None:
            facts.append(f"lr {event['learning_rate']:.2g}")
        if self._metric:
            facts.append(f"val {self._metric}")
        if event.get("examples_per_second") is not None:
            facts.append(f"{event['examples_per_second']:,.1f} examples/s")
        remaining = self._pace.remaining(int(event["steps"]))
        if remaining is not None:
            facts.append(f"{span(remaining)} left")
        return "  ".join(facts)


class Pace:
    """How fast updates come, and how long the rest will take."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun = clock()
        self._marks: list[tuple[float, int]] = []

    def start(self, step: int) -> None:
        """Training begins, or goes on after a restart, behind this step."""
        self._begun = self._begun if self._marks else self._clock()
        self._marks = [(self._clock(), step)]

    def reached(self, step: int) -> None:
        """This step is done."""
        now = self._clock()
        recent = [mark for mark in self._marks if now - mark[0] <= RATE_WINDOW_SECONDS]
        self._marks = [*(recent or self._marks[-1:]), (now, step)]

    @property
    def elapsed(self) -> float:
        """Seconds since training began."""
        return self._clock() - self._begun

    def remaining(self, total: int) -> float | None:
        """Seconds to the last step, or None before that can be said."""
        if len(self._marks) < 2:
            return None
        (then, first), (now, last) = self._marks[0], self._marks[-1]
        return (total - last) * (now - then) / (last - first) if last > first else None


class _Bar(BarColumn):
    """A bar for what can be counted; nothing for a phase of unknown length, which has its spinner and its time."""

    def render(self, task: Row) -> Any:
        return "" if task.total is None else super().render(task)


class _Elapsed(ProgressColumn):
    """How long the phase has lasted."""

    def render(self, task: Row) -> Text:
        return Text(span(task.elapsed or 0.0), style="dim")


def _column(**options: Any) -> Column:
    return Column(no_wrap=True, **options)


class LiveView:
    """One line at the bottom of a terminal: a spinner with the elapsed time, or a bar; what stays is printed above it."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        # A narrow terminal cuts the facts, never the rest, and nothing wraps.
        facts = TextColumn("{task.fields[facts]}", markup=False, table_column=_column(ratio=1, overflow="ellipsis"))
        words = TextColumn("{task.description}", markup=False, table_column=_column())
        columns = (SpinnerColumn(), words, _Bar(bar_width=16), _Elapsed(_column()), facts)
        self._bars = Bars(*columns, console=console, transient=True, get_time=clock, expand=True)
        self._row = self._bars.add_task("Starting", total=None, facts="")
        self._bars.start()

    def phase(self, message: str) -> None:
        """A spinner with the seconds it has lasted."""
        self._begin(message, None)

    def advance(self, message: str, done: int, total: int) -> None:
        """A bar of rows; a count where nobody knows how many there are."""
        self._show(message, done, total or None, _of(done, total))

    def steps(self, step: int, total: int, facts: str) -> None:
        """The bar of training."""
        self._show("Training", step, total, f"step {step:,}/{total:,}  {facts}".rstrip())

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bars.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        """The live line goes away."""
        self._bars.stop()

    def _show(self, message: str, done: int, total: int | None, facts: str) -> None:
        if self._bars.tasks[0].description != message:
            self._begin(message, total)
        self._bars.update(self._row, completed=done, total=total, facts=facts)

    def _begin(self, message: str, total: int | None) -> None:
        """A new row: rich cannot take a row's total back."""
        self._bars.remove_task(self._row)
        self._row = self._bars.add_task(message, total=total, facts="")


class LogView:
    """Plain lines: every phase, evaluation and finish, and training steps at most every few seconds."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._phase, self._since, self._said = "", clock(), clock()
        self._line, self._line_due = "", clock()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._stay_alive, name="progress-log", daemon=True)
        self._watch.start()

    def phase(self, message: str) -> None:
        """A line now, and another each ten seconds that it lasts."""
        with self._lock:
            self._begin(message)
            self._print(f"{message}…")

    def advance(self, message: str, done: int, total: int) -> None:
        """A line at the beginning, at the end, and every few seconds."""
        with self._lock:
            line = f"{message} {_of(done, total)}"
            if line != self._line and (self._phase != message or 0 < total <= done or self._clock() >= self._line_due):
                self._begin(message)
                self._print(line)
                self._line_due = self._clock() + LINE_SECONDS

    def steps(self, step: int, total: int, facts: str) -> None:
        """A line at most every few seconds, and for the last step."""
        with self._lock:
            self._begin("Training")
            if step >= total or self._clock() >= self._line_due:
                self._print(f"Step {step:,}/{total:,}  {facts}".rstrip())
                self._line_due = self._clock() + LINE_SECONDS

    def say(self, line: str) -> None:
        """A line."""
        with self._lock:
            self._print(line)

    def close(self) -> None:
        """Say no more that anything lasts."""
        self._closed.set()
        self._watch.join(timeout=1.0)

    def still(self) -> None:
        """Say that the phase still lasts, where nothing was said for a while."""
        with self._lock:
            if self._phase and self._clock() - self._said >= STILL_SECONDS:
                self._print(f"  still {self._phase[:1].lower()}{self._phase[1:]} ({span(self._clock() - self._since)})")

    def _begin(self, message: str) -> None:
        if self._phase != message:
            self._phase, self._since = message, self._clock()

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._line, self._said = line, self._clock()

    def _stay_alive(self) -> None:
        while not self._closed.wait(1.0):
            self.still()


def metrics_of(event: Event, most: int = 5) -> dict[str, str]:
    """The metrics of an ``eval`` event as text: the first ``most`` of the task, then what was lost of it, and the loss.

    >>> metrics_of({"kind": "eval", "step": 5, "accuracy": 0.91234, "loss": 0.3})
    {'accuracy': '0.9123', 'loss': '0.3000'}
    """
    nested = event.get("metrics")
    values = nested if isinstance(nested, Mapping) else {k: v for k, v in event.items() if k not in _PLACE_KEYS}
    plain = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    loss = {name: plain.pop(name) for name in ("drop", "loss") if name in plain}
    return {name: number(value) for name, value in {**dict(list(plain.items())[:most]), **loss}.items()}


def _of(done: int, total: int) -> str:
    return f"{done:,}/{total:,}" if total else f"{done:,}"


def number(value: float) -> str:
    """A loss or metric with four digits that matter.

    >>> number(0.12345), number(123456.0), number(0.000012)
    ('0.1235', '1.235e+05', '1.2e-05')
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"
