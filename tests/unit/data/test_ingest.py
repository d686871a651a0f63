"""Rows are kept whatever their files differ in, and media are found beside the file that names them."""

from __future__ import annotations

import datetime as dt
import io
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tunesmith import storage
from tunesmith.data.ingest import Ingested, ingest
from tunesmith.data.problems import Problem, Problems
from tunesmith.data.sources import resolve
from tunesmith.tasks import load_task

pytestmark = pytest.mark.unit


@pytest.fixture
def take(tmp_path: Path, letters: Any) -> Callable[..., tuple[Ingested, Problems]]:
    """Reads all rows of a place: of texts with the small task, or of another that is given."""

    def run(place: str, task: Any = letters, on_bad_row: Any = "quarantine") -> tuple[Ingested, Problems]:
        with Problems(on_bad_row, tmp_path / "quarantine.jsonl") as problems:
            sources = resolve(place, "auto", str(tmp_path), "train")["train"]
            return ingest("train", sources, task, {}, problems, tmp_path / "rows", lambda *_: None), problems

    return run


def test_images_are_found_beside_a_table_at_a_uri_with_a_query(take: Any) -> None:
    bucket, stream = f"memory://bucket-{secrets.token_hex(4)}", io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    storage.write_bytes(f"{bucket}/images/1.png", stream.getvalue())
    storage.write_text(f"{bucket}/list.csv", "image,label\nimages/1.png,cat\n")
    data, problems = take(f"{bucket}/list.csv?region=eu-west-1", load_task("image-classification"))
    assert not problems.first
    assert data.column("image").to_pylist() == [f"{bucket}/images/1.png?region=eu-west-1"]


DATE = dt.datetime.fromisoformat("9999-12-31")
EARLY = dt.datetime.fromisoformat("1970-01-01T00:00:00.000001")
FAR = 2**53 + 1


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [
        (pa.array([FAR]), pa.array([0.5]), [float(2**53), 0.5]),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([-1]), [str(2**64 - 1), "-1"]),
        (pa.array([7], pa.int8()), pa.array([2**63], pa.uint64()), ["7", str(2**63)]),
        (pa.array([DATE], pa.timestamp("us")), pa.array([1_000], pa.timestamp("ns")), [DATE, EARLY]),
        (pa.array([dt.date(2026, 1, 31)]), pa.array(["2026-02-01"]), ["2026-01-31", "2026-02-01"]),
        (pa.array([DATE], pa.timestamp("us")), pa.array([1]), ["9999-12-31T00:00:00", "1"]),
        (pa.array([dt.time(12, 30)]), pa.array([True]), ["12:30:00", "true"]),
        (pa.array([dt.timedelta(hours=3)]), pa.array(["long"]), ["3:00:00", "long"]),
    ],
    ids=["int-float", "uint64-int64", "int8-uint64", "us-ns", "date-text", "date-int", "time-bool", "span-text"],
)
def test_a_column_without_a_role_may_differ_in_type_from_file_to_file(
    take: Any, tmp_path: Path, one: pa.Array, other: pa.Array, kept: list[Any]
) -> None:
    (tmp_path / "shards").mkdir()
    for name, values in (("a", one), ("b", other)):
        pq.write_table(pa.table({"text": [name], "label": ["x"], "id": values}), tmp_path / "shards" / f"{name}.parquet")
    data, problems = take("shards")
    assert not problems.first
    assert data.column("id").to_pylist() == kept
    assert next(data.tables(10)).schema == data.schema


@pytest.mark.parametrize("on_bad_row", ["drop", "quarantine"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "cut \\ud83d", "label": 1}\n'),
        ("a.csv", b"text,label\na,1\ncaf\xe9,1,1\n"),
    ],
)
def test_a_row_that_is_no_unicode_is_left_out_and_written_down(
    take: Any, tmp_path: Path, name: str, lines: bytes, on_bad_row: str
) -> None:
    (tmp_path / name).write_bytes(lines)
    data, problems = take(name, on_bad_row=on_bad_row)
    assert data.column("text").to_pylist() == ["a"]
    assert len(problems) == 1
    if on_bad_row == "quarantine":
        (entry,) = map(json.loads, (tmp_path / "quarantine.jsonl").read_text().splitlines())
        assert entry["row"] == problems.first[0].row


def test_what_is_written_down_may_hold_half_a_character(tmp_path: Path) -> None:
    with Problems("quarantine", tmp_path / "quarantine.jsonl") as problems:
        problems.add(Problem("train", "a.csv", 2, "text is odd"), {"text": "caf\udce9"})
    assert json.loads((tmp_path / "quarantine.jsonl").read_text())["data"] == {"text": "caf\udce9"}
