from __future__ import annotations

import pytest

from tunesmith import storage
from tunesmith.runs.history import History


@pytest.fixture
def place(output_dir: str) -> str:
    return storage.join(output_dir, "metrics.jsonl")


def test_no_file_is_an_empty_history(place: str) -> None:
    assert History(place).read() == []
    assert History(place).truncate_after(0) == 0


def test_half_a_line_is_left_out_and_does_not_spoil_the_next(place: str) -> None:
    storage.write_bytes(place, b'{"step": 1}\n{"step": 2, "name": "\xc3')
    history = History(place)
    assert history.read() == [{"step": 1}]
    history.append({"step": 3})
    assert history.read() == [{"step": 1}, {"step": 3}]


def test_a_resume_keeps_what_the_checkpoint_knew(place: str) -> None:
    history = History(place)
    for record in [{"step": 10, "loss": 1.0}, {"note": "no step"}, {"step": 20, "loss": 0.5}, {"step": 30, "loss": 0.4}]:
        history.append(record)
    assert history.truncate_after(20) == 1
    assert history.truncate_after(20) == 0
    assert [r.get("step") for r in history.read()] == [10, None, 20]


def test_a_remote_file_is_written_in_larger_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "memory://history-of-steps/metrics.jsonl"
    storage.delete(place)
    history = History(place)
    history.append({"step": 1})
    history.append({"step": 2})
    assert not storage.exists(place)
    monkeypatch.setattr("tunesmith.runs.history.FLUSH_SECONDS", 0.0)
    history.append({"step": 3})
    assert len(storage.read_text(place).splitlines()) == 3
