from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith import storage
from tunesmith.errors import RunError
from tunesmith.runs.lock import STALE_SECONDS, RunLock

pytestmark = pytest.mark.usefixtures("_quick_lock")

HOLD = """
import sys, time
from tunesmith.runs.lock import RunLock
RunLock(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(60)
"""


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def from_another_machine(place: str, time: float) -> None:
    """The mark that a process elsewhere leaves."""
    mark = {"host": "far-away pid:[1]", "pid": 1, "started": "0", "time": time, "token": "theirs"}
    storage.write_json(storage.join(place, "lock.json"), mark)


def test_a_run_has_one_writer_at_a_time(output_dir: str) -> None:
    storage.make_dir(output_dir)
    with RunLock(output_dir):
        with pytest.raises(RunError, match=r"is being written by process \d+ \(last sign of life \d+ s ago\)"):
            RunLock(output_dir).acquire()
        assert RunLock(output_dir).holder() is not None
    assert RunLock(output_dir).holder() is None
    with RunLock(output_dir) as again:
        assert again.holder() is not None


def test_a_lock_can_be_taken_again_after_its_release(output_dir: str) -> None:
    storage.make_dir(output_dir)
    lock = RunLock(output_dir)
    for _ in range(2):
        with lock:
            assert lock.holder() is not None


def test_a_killed_writer_is_known_at_once(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"is being written by process {child.pid}"):
            RunLock(str(tmp_path)).acquire()
        child.kill()
        while child.returncode is None and RunLock(str(tmp_path)).holder() is not None:
            pass  # not yet reaped: a zombie writes nothing more
        with RunLock(str(tmp_path)) as lock:
            assert lock.holder() is not None


def test_a_writer_on_another_machine_is_dead_when_its_heart_has_stopped(output_dir: str) -> None:
    storage.make_dir(output_dir)
    clock = Clock()
    lock = RunLock(output_dir, clock=clock)
    from_another_machine(output_dir, clock.now - 10)
    with pytest.raises(RunError, match=r"process 1 on far-away \(last sign of life 10 s ago\)[^→]*→ .*wait 50 s"):
        lock.acquire()
    clock.now += STALE_SECONDS
    with lock:
        holder = lock.holder()
        assert holder is not None
        assert holder["host"] != "far-away pid:[1]"


def test_force_takes_the_lock_and_the_old_holder_leaves_it(output_dir: str) -> None:
    storage.make_dir(output_dir)
    first, second = RunLock(output_dir), RunLock(output_dir)
    first.acquire()
    second.acquire(force=True)
    first.release()
    assert second.holder() is not None
    second.release()
    assert second.holder() is None


def test_the_heart_beats_while_the_lock_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.runs.lock.BEAT_SECONDS", 0.01)
    clock = Clock()
    with RunLock(str(tmp_path), clock=clock) as lock:
        clock.now += 100
        for _ in range(1000):
            holder = lock.holder()
            if holder and holder["time"] == clock.now:
                break
            lock._stop.wait(0.01)
        else:
            pytest.fail("the mark was not renewed")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"host": 3, "pid": "x"}'])
def test_a_damaged_mark_holds_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.json").write_text(text)
    with RunLock(str(tmp_path)) as lock:
        assert lock.holder() is not None
