"""The audit log: a line that is not as it was written is found by its number."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from tunesmith_federated.deployment.audit import AuditLog

pytestmark = pytest.mark.unit


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = AuditLog(tmp_path)
    for number in range(5):
        made.append("asked", round=number)
    return made


def lines(log: AuditLog) -> list[str]:
    return log.path.read_text(encoding="utf-8").splitlines(keepends=True)


def test_a_log_as_it_was_written_is_sound(log: AuditLog) -> None:
    verdict = log.verify()
    assert (verdict.entries, verdict.broken) == (5, None)
    assert [entry["round"] for entry in log.read()] == [0, 1, 2, 3, 4]
    assert log.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_changed_line_is_found_by_its_number(log: AuditLog, number: int) -> None:
    held = lines(log)
    held[number - 1] = held[number - 1].replace('"round": ', '"round": 7')
    log.path.write_text("".join(held), encoding="utf-8")
    assert log.verify().broken == number


@pytest.mark.parametrize("number", [1, 3])
def test_a_line_left_out_is_found(log: AuditLog, number: int) -> None:
    held = lines(log)
    del held[number - 1]
    log.path.write_text("".join(held), encoding="utf-8")
    assert log.verify().broken == number


def test_lines_cut_off_the_end_are_found_by_the_head(log: AuditLog) -> None:
    log.path.write_text("".join(lines(log)[:3]), encoding="utf-8")
    verdict = log.verify()
    assert verdict.broken == 4
    assert "cut off" in verdict.why


def test_a_line_whose_hash_was_made_anew_breaks_the_next(log: AuditLog) -> None:
    from tunesmith_federated.deployment import audit

    held = lines(log)
    entry = {**json.loads(held[1]), "round": 9}
    entry["hash"] = audit._hash(entry)
    held[1] = json.dumps(entry) + "\n"
    log.path.write_text("".join(held), encoding="utf-8")
    assert log.verify().broken == 3


def test_half_a_line_left_by_a_power_cut_is_taken_off_and_the_chain_goes_on(log: AuditLog) -> None:
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"n": 6, "event": "as')
    log.append("asked", round=5)
    verdict = log.verify()
    assert (verdict.entries, verdict.broken) == (6, None)


def test_a_process_that_ended_between_line_and_head_left_a_sound_log(log: AuditLog) -> None:
    before = log.head.read_text(encoding="utf-8")
    log.append("done", round=5)
    log.head.write_text(before, encoding="utf-8")
    assert log.verify().broken is None


def test_long_lines_chain_too(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for number in range(3):
        log.append("refused", reason="x" * 10_000, round=number)
    assert log.verify().entries == 3


def _append(folder: Path) -> None:
    for _ in range(20):
        AuditLog(folder).append("asked")


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_append, args=(tmp_path,)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(30)
    assert (AuditLog(tmp_path).verify().entries, AuditLog(tmp_path).verify().broken) == (40, None)


def test_a_disk_that_fills_up_in_a_line_leaves_the_log_as_it_was(log: AuditLog) -> None:
    import resource

    before = log.path.read_bytes(), log.head.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[0]) + 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            log.append("asked", round=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (log.path.read_bytes(), log.head.read_bytes()) == before
    log.append("asked", round=5)
    assert (log.verify().entries, log.verify().broken) == (6, None)


def test_a_line_whose_head_cannot_be_written_is_not_there(log: AuditLog) -> None:
    before, head = log.path.read_bytes(), log.head.read_bytes()
    log.head.unlink()
    log.head.mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match="directory"):
            log.append("asked", round=5)
    log.head.rmdir()
    log.head.write_bytes(head)
    assert log.path.read_bytes() == before
    assert sorted(path.name for path in log.path.parent.iterdir()) == ["audit.head", "audit.jsonl"]
