from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from tunesmith.training import progress
from tunesmith.training.progress import LogView, Pace, Progress

TRAINING = [
    {"kind": "start", "step": 0, "steps": 100, "steps_per_epoch": 50, "epoch": 0.0},
    {"kind": "step", "step": 10, "steps": 100, "epoch": 0.2, "loss": 1.5, "learning_rate": 5e-5, "examples_per_second": 12.345},
    {"kind": "eval", "split": "validation", "step": 50, "epoch": 1.0, "accuracy": 0.91234, "loss": 0.3, "best_step": 50},
    {"kind": "step", "step": 100, "steps": 100, "epoch": 2.0, "loss": 0.1, "learning_rate": 0.0, "examples_per_second": 1200.0},
    {"kind": "checkpoint", "step": 100},
    {"kind": "left", "rank": 0},
    {"kind": "done", "step": 100, "steps": 100, "best_step": 50, "best": 0.91},
]


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> Console:
    """What a log file is to rich."""
    return Console(file=io.StringIO(), force_terminal=False, width=80)


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None, _environ={"TERM": "xterm"})


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


@pytest.fixture
def plain(log: Console, clock: Clock) -> Iterator[Progress]:
    with Progress(log, clock) as shown:
        yield shown


def test_a_log_gets_plain_lines_of_what_matters(plain: Progress, log: Console, clock: Clock) -> None:
    for event in TRAINING:
        clock.now += 20
        plain.handle(event)
    assert text(log).splitlines() == [
        "Step 0/100",
        "Step 10/100  loss 1.5000  lr 5e-05  12.3 examples/s  3 min 0 s left",
        "Step 50, epoch 1.00: accuracy 0.9123  loss 0.3000 ← best so far",
        "Step 100/100  loss 0.1000  lr 0  val accuracy 0.9123  1,200.0 examples/s  0 s left",
        "Trained 100 steps in 2 min 0 s, best at step 50",
        "Gathering the model…",
    ]


def test_a_log_is_not_flooded_with_steps(plain: Progress, log: Console, clock: Clock) -> None:
    plain.handle({"kind": "start", "step": 0, "steps": 1000, "epoch": 0.0})
    for step in range(1, 1001):
        clock.now += 0.1
        plain.handle({"kind": "step", "step": step, "steps": 1000, "loss": 1.0})
    lines = text(log).splitlines()
    assert 20 <= len(lines) <= 22
    assert lines[-1].startswith("Step 1,000/1,000")


def test_a_long_phase_is_no_silence_in_a_log(log: Console, clock: Clock) -> None:
    view = LogView(log, clock)
    view.close()  # its own thread looks once a second; here the test does
    view.phase("Starting 2 workers")
    for _ in range(25):
        clock.now += 1
        view.still()
    assert text(log).splitlines() == [
        "Starting 2 workers…",
        "  still starting 2 workers (10 s)",
        "  still starting 2 workers (20 s)",
    ]


def test_the_log_speaks_by_itself(log: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STILL_SECONDS", 0.0)
    with Progress(log) as shown:
        shown.phase("Waiting")
        for _ in range(100):
            if "still waiting" in text(log):
                break
            time.sleep(0.05)
    assert "still waiting" in text(log)


def test_prepared_rows_are_counted(plain: Progress, log: Console, clock: Clock) -> None:
    for done in range(0, 50_001, 1000):
        clock.now += 1
        plain.prepared("Preparing data", done, 50_000)
    lines = text(log).splitlines()
    assert lines[0] == "Preparing data 0/50,000"
    assert lines[-1] == "Preparing data 50,000/50,000"
    assert 10 <= len(lines) <= 13


def test_what_only_begins_is_told_without_a_count(plain: Progress, log: Console) -> None:
    plain.prepared("care", 0, 0)
    assert text(log) == "Looking for duplicates and leaks…\n"


def test_several_models_that_judge_the_same_rows_end_with_one_line(plain: Progress, log: Console) -> None:
    for _ in range(3):
        plain.prepared("predict", 360, 360)
    assert text(log) == "Judging the model 360/360\n"


def test_a_resume_and_a_restart_are_told(plain: Progress, log: Console) -> None:
    plain.handle({"kind": "start", "step": 40, "steps": 100, "epoch": 0.8})
    plain.handle({"kind": "restart", "message": "worker 1 died (node lost): restarting from step 40"})
    assert "Resuming after step 40 of 100 (epoch 0.80)" in text(log)
    assert "worker 1 died (node lost): restarting from step 40\nRestarting workers…" in text(log)


def test_a_terminal_has_one_live_line_and_keeps_only_what_matters(terminal: Console, clock: Clock) -> None:
    with Progress(terminal, clock) as shown:
        shown.phase("Starting 2 workers")
        clock.now += 7
        shown._view._bars.refresh()  # type: ignore[attr-defined]
        for event in TRAINING:
            clock.now += 20
            shown.handle(event)
            shown._view._bars.refresh()  # type: ignore[attr-defined]
    seen = text(terminal)
    assert "Starting 2 workers" in seen
    assert "7 s" in seen
    assert "step 10/100  loss 1.5000  lr 5e-05  12.3 examples/s  3 min 0 s left" in seen
    assert "Step 50, epoch 1.00: accuracy 0.9123  loss 0.3000 ← best so far\n" in seen
    assert "Trained 100 steps in 2 min 0 s, best at step 50\n" in seen


def test_a_phase_after_a_bar_has_a_spinner_alone(terminal: Console, clock: Clock) -> None:
    with Progress(terminal, clock) as shown:
        shown.prepared("Preparing data", 50, 100)
        shown._view._bars.refresh()  # type: ignore[attr-defined]
        shown.phase("Starting 2 workers")
        shown._view._bars.refresh()  # type: ignore[attr-defined]
    lines = text(terminal).splitlines()
    assert any("Preparing data ━" in line and "50/100" in line for line in lines)
    assert not any("Starting 2 workers" in line and ("━" in line or "50/100" in line) for line in lines)


def test_brackets_in_a_message_are_no_markup(terminal: Console, clock: Clock) -> None:
    with Progress(terminal, clock) as shown:
        shown.phase("Loading [bold]x[/nonsense]")
        shown.handle({"kind": "restart", "message": "lost [red]"})
        shown._view._bars.refresh()  # type: ignore[attr-defined]
    assert "lost [red]" in text(terminal)


def test_the_remaining_time_follows_the_last_minute(clock: Clock) -> None:
    pace = Pace(clock)
    pace.start(100)
    assert pace.remaining(200) is None
    for _ in range(10):
        clock.now += 1
        pace.reached(100 + int(clock.now))
    assert pace.remaining(200) == pytest.approx(90.0)
    for step in range(111, 131):
        clock.now += 10
        pace.reached(step)
    assert pace.remaining(200) == pytest.approx(700.0)
    assert pace.elapsed == pytest.approx(210.0)
