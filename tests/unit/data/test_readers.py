"""Every format gives the same rows; what cannot be read is named with its row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from tunesmith.data import readers
from tunesmith.data.readers import BadRow, Chunk, read_arrow, read_csv, read_json, read_parquet
from tunesmith.errors import DataError

pytestmark = pytest.mark.unit


def rows_of(chunks: Iterator[Chunk]) -> tuple[list[dict[str, Any]], list[int], list[BadRow]]:
    rows, numbers, bad = [], [], []
    for chunk in chunks:
        rows += chunk.table.to_pylist()
        numbers += chunk.rows.tolist()
        bad += chunk.bad
    return rows, numbers, bad


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., str]:
    def write(text: str | bytes, name: str = "a.csv") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_csv_cells_stay_text_and_only_empty_ones_are_missing(csv: Callable[..., str]) -> None:
    rows, _, bad = rows_of(read_csv(csv('text,label\nNA,1\nnull,02\n"",3\nNaN,\n')))
    assert rows == [
        {"text": "NA", "label": "1"},
        {"text": "null", "label": "02"},
        {"text": None, "label": "3"},
        {"text": "NaN", "label": None},
    ]
    assert not bad


def test_csv_rows_are_numbered_by_the_line_they_start_in(csv: Callable[..., str]) -> None:
    rows, numbers, bad = rows_of(read_csv(csv('text,label\n"two\nlines",1\n\nb,2\nc\nd,3,4\ne,5\n')))
    assert [row["text"] for row in rows] == ["two\nlines", "b", "e"]
    assert numbers == [2, 5, 8]
    assert [(one.row, one.reason) for one in bad] == [
        (6, "1 cells, but the header has 2 columns"),
        (7, "3 cells, but the header has 2 columns"),
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("text;label\na, b;1\n", "a.csv"),
        ("text\tlabel\na, b\t1\n", "a.csv"),
        ("text\tlabel\na, b\t1\n", "a.tsv"),
        ('\ufefftext,label\r\n"a, b",1\r\n', "a.csv"),
        ('"text";"label"\n"a, b";1', "a.csv"),
    ],
)
def test_csv_delimiters_and_a_byte_order_mark_are_recognised(csv: Callable[..., str], text: str, name: str) -> None:
    assert rows_of(read_csv(csv(text, name)))[0] == [{"text": "a, b", "label": "1"}]


def test_a_csv_of_one_column_needs_no_delimiter(csv: Callable[..., str]) -> None:
    assert rows_of(read_csv(csv("text\nab\n")))[0] == [{"text": "ab"}]


def test_compressed_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\na,1\n"))
    assert rows_of(read_csv(str(path)))[0] == [{"text": "a", "label": "1"}]


def test_bytes_that_are_not_utf8_are_a_bad_row(csv: Callable[..., str]) -> None:
    rows, numbers, bad = rows_of(read_csv(csv(b"text,label\nok,1\ncaf\xe9,2\nfine,3\n")))
    assert [row["text"] for row in rows] == ["ok", "fine"]
    assert numbers == [2, 4]
    assert bad == [BadRow(3, "column 'text' is not valid UTF-8 (save the file as UTF-8)", "café 2")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty"),
        (b"  \n\n", "is empty"),
        ("text,label\n".encode("utf-16"), "UTF-16"),
        (b"text,text\n1,2\n", "two columns are called 'text'"),
    ],
)
def test_files_that_are_no_csv_are_refused(csv: Callable[..., str], text: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(read_csv(csv(text)))


def test_a_quote_that_is_never_closed_is_named(csv: Callable[..., str]) -> None:
    rows, _, bad = rows_of(read_csv(csv('text,label\na,1\n"b,2\nc,3\n')))
    assert len(rows) == 1
    assert bad[0].row == 3
    assert "not valid CSV" in bad[0].reason


def test_json_lines_keep_types_and_name_bad_lines(csv: Callable[..., str]) -> None:
    text = '{"text": "a", "label": 1}\n\nnot json\n[1]\n{"text": "b", "extra": {"x": [1]}}\n'
    rows, numbers, bad = rows_of(read_json(csv(text, "a.jsonl")))
    assert rows == [{"text": "a", "label": 1, "extra": None}, {"text": "b", "label": None, "extra": {"x": [1]}}]
    assert numbers == [1, 5]
    assert [one.row for one in bad] == [3, 4]
    assert bad[0].reason.startswith("not valid JSON")


def test_json_labels_of_several_kinds_become_text(csv: Callable[..., str]) -> None:
    rows, _, _ = rows_of(read_json(csv('{"label": 1}\n{"label": "a"}\n', "a.jsonl")))
    assert [row["label"] for row in rows] == ["1", "a"]


@pytest.mark.parametrize(
    ("spoilt", "column"),
    [
        ({"text": "cut \ud83d", "label": 2}, "'text'"),
        ({"text": "b", "label": "\udc00"}, "'label'"),
        ({"text": "b", "extra": {"deep": ["\ud83d"]}}, "'extra'"),
        ({"text": "b", "\ud83d": 1}, "'\\ud83d'"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_half_a_character_spoils_its_row_alone(csv: Callable[..., str], spoilt: dict[str, Any], column: str, kind: str) -> None:
    items = [{"text": "a \U0001f600", "label": 1}, spoilt, {"text": "c", "label": 3}]
    text = json.dumps(items) if kind == "json" else "\n".join(map(json.dumps, items))
    rows, numbers, bad = rows_of(read_json(csv(text, f"a.{kind}")))
    assert rows == [items[0], items[2]]
    assert numbers == [1, 3]
    assert bad == [BadRow(2, f"column {column} holds half a character, a lone surrogate", json.dumps(spoilt))]


def test_a_row_with_a_cell_too_many_can_be_written_down_though_it_is_not_utf8(csv: Callable[..., str]) -> None:
    _, _, bad = rows_of(read_csv(csv(b"text,label\nok,1\ncaf\xe9,2,3\n")))
    assert bad == [BadRow(3, "3 cells, but the header has 2 columns", "café,2,3")]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_item_by_item(
    csv: Callable[..., str], indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_READ", 16)
    items = [{"text": f"été ] {i}", "label": i, "list": [i, 1]} for i in range(100)]
    rows, numbers, _ = rows_of(read_json(csv(json.dumps(items, indent=indent, ensure_ascii=False), "a.json")))
    assert rows == items
    assert numbers == list(range(1, 101))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}, {"a": ]', "item 2 is not valid JSON"),
        ('[{"a": 1}, nonsense]', "item 2 is not valid JSON"),
        ('[{"a": 1}', "the array is not closed after item 1"),
    ],
)
def test_a_broken_json_array_is_refused_with_the_item(csv: Callable[..., str], text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(read_json(csv(text, "a.json")))


def test_binary_formats_give_the_same_rows(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, "c"], "label": pa.array(["x", "y", "x"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    pyarrow.feather.write_feather(table, str(tmp_path / "a.feather"))
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:
        stream.write_table(table)
    expected = ([{"text": "a", "label": "x"}, {"text": None, "label": "y"}, {"text": "c", "label": "x"}], [1, 2, 3], [])
    assert rows_of(read_parquet(str(tmp_path / "a.parquet"))) == expected
    assert rows_of(read_arrow(str(tmp_path / "a.feather"))) == expected
    assert rows_of(read_arrow(str(tmp_path / "a.arrow"))) == expected


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.binary_view(), pa.large_binary()], ids=str)
def test_dictionaries_of_every_kind_of_text_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(["x", "y"]).cast(kind)
    codes = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), values)
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 2, 3], pa.int32()), codes)
    table = pa.table({"label": codes, "tags": lists})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as stream:
        stream.write_table(table)
    x, y = values.to_pylist()
    rows, _, _ = rows_of(read_arrow(str(tmp_path / "a.arrow")))
    assert rows == [{"label": y, "tags": [y, None]}, {"label": None, "tags": []}, {"label": x, "tags": [x]}]


def test_two_columns_of_one_name_are_refused_in_every_format(tmp_path: Path) -> None:
    table = pa.table([["a"], [1], ["b"]], names=["text", "label", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as stream:
        stream.write_table(table)
    for read, name in ((read_parquet, "a.parquet"), (read_arrow, "a.arrow")):
        with pytest.raises(DataError, match=f"{name}: two columns are called 'text'\n    → Give each column its own name"):
            list(read(str(tmp_path / name)))


def test_class_indices_of_datasets_become_names(tmp_path: Path) -> None:
    features = {
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "tags": [{"names": ["O", "B"], "_type": "ClassLabel"}],
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"label": [1, 0, -1], "tags": [[0, 1], [], [1]]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "a.parquet")
    rows, _, _ = rows_of(read_parquet(str(tmp_path / "a.parquet")))
    assert rows == [
        {"label": "pos", "tags": ["O", "B"]},
        {"label": "neg", "tags": []},
        {"label": None, "tags": ["B"]},
    ]


def test_files_of_another_kind_are_refused(csv: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_parquet(csv("text,label\n1,2\n", "a.parquet")))
    with pytest.raises(DataError, match="cannot be read as Arrow"):
        list(read_arrow(csv("text,label\n1,2\n", "a.arrow")))


def test_chunks_are_small(csv: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "ROWS", 10)
    sizes = [len(chunk.table) for chunk in read_csv(csv("a\n" + "1\n" * 95))]
    assert sum(sizes) == 95
    assert max(sizes) == 10
