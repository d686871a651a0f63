"""A log gets a line for each trial that ends; a terminal gets a table, and nothing of it stays."""

from __future__ import annotations

import io

from rich.console import Console

from tunesmith.tuning.trials import Report, Trial
from tunesmith.tuning.view import TrialsView, short

DONE = Trial(0, {"training.learning_rate": 1e-3}, "recipe", "done", (Report(9, -0.25),), steps=9)
FAILED = Trial(1, {"training.learning_rate": 9.0}, status="failed", error="it diverged\n    → Lower it")
STOPPED = Trial(2, {"training.learning_rate": 1e-4}, status="stopped", reports=(Report(3, -0.5),), steps=9)


def test_a_log_has_a_line_for_each_trial_that_ended() -> None:
    file = io.StringIO()
    with TrialsView(Console(file=file, width=200), "loss", -1, 3) as view:
        for count, trial in enumerate((DONE, FAILED, STOPPED), 1):
            view.show([DONE, FAILED, STOPPED][:count], trial)
            view.show([DONE, FAILED, STOPPED][:count], trial)
    assert file.getvalue().splitlines() == [
        "Trial 0 (the recipe's own: learning_rate 0.001): loss 0.2500 ← best so far",
        "Trial 1 (learning_rate 9): failed: it diverged",
        "Trial 2 (learning_rate 0.0001): stopped after 33%, loss 0.5000",
    ]


def test_a_terminal_shows_the_best_on_top_and_keeps_only_what_was_said() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=40)
    view = TrialsView(console, "loss", -1, 3)
    view.show([FAILED, STOPPED, DONE])
    rows = Console(file=(out := io.StringIO()), width=100)
    rows.print(view._table())
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert [line[1] for line in lines[1:4]] == ["0", "2", "1"]
    assert "3 of 3 trials ended" in out.getvalue()
    assert "best loss 0.2500 (trial 0)" in out.getvalue()


def test_a_whole_section_has_its_own_name() -> None:
    assert short({"model": {"dropout": 0.1}, "training.unfreeze": {}}) == "model {dropout: 0.1}, unfreeze {}"
