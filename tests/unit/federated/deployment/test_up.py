"""What a server does before it is up."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tunesmith_federated.deployment import up

pytestmark = pytest.mark.unit


def test_room_that_finished_runs_have_left_is_given_back(tmp_path: Path) -> None:
    place = tmp_path / "superlink.db"
    with contextlib.closing(sqlite3.connect(place)) as line:
        line.executescript("PRAGMA journal_mode = WAL; CREATE TABLE objects (content BLOB); CREATE TABLE runs (id INTEGER);")
        line.execute("INSERT INTO objects VALUES (zeroblob(4000000))")
        line.execute("INSERT INTO runs VALUES (7)")
        line.commit()
        line.execute("DELETE FROM objects")
        line.commit()
    assert place.stat().st_size > 4_000_000
    up._shrink(place)
    assert place.stat().st_size < 100_000
    with contextlib.closing(sqlite3.connect(place)) as line:
        assert line.execute("SELECT id FROM runs").fetchall() == [(7,)]


def test_a_database_most_of_which_is_used_is_not_copied_to_give_back_the_rest(tmp_path: Path) -> None:
    place = tmp_path / "superlink.db"
    with contextlib.closing(sqlite3.connect(place)) as line:
        line.execute("CREATE TABLE objects (id INTEGER, content BLOB)")
        line.executemany("INSERT INTO objects VALUES (?, zeroblob(100000))", [(number,) for number in range(10)])
        line.execute("DELETE FROM objects WHERE id < 4")
        line.commit()
    before = place.stat().st_size
    up._shrink(place)
    assert place.stat().st_size == before


def test_a_database_that_is_none_keeps_nothing_from_starting(tmp_path: Path) -> None:
    up._shrink(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "bad.db").write_bytes(b"nonsense" * 100)
    up._shrink(tmp_path / "bad.db")
    assert (tmp_path / "bad.db").read_bytes() == b"nonsense" * 100
