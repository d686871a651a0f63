"""Rows are counted in every format as the readers read them, and no further than asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from support.data import pictures
from tunesmith.data.counting import count_rows
from tunesmith.data.sources import resolve

pytestmark = pytest.mark.unit

ROWS = [{"text": f"some, {i}\nmore", "label": "yes"} for i in range(7)]


def counted(folder: Path, name: str, enough: int = 1000) -> int:
    return count_rows(resolve(name, "auto", str(folder), "train")["train"], enough)


def write(folder: Path, name: str) -> None:
    table, path = pa.Table.from_pylist(ROWS), folder / name
    if name.endswith(".csv"):
        lines = [f'"{row["text"]}";{row["label"]}' for row in ROWS]
        path.write_text("\n".join(["text;label", *lines, "", ""]))  # with a delimiter of its own, and blank lines
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif name.endswith(".json"):
        path.write_text(json.dumps(ROWS, indent=1))
    elif name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=3)
    elif name.endswith(".feather"):
        pyarrow.feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet", "a.feather", "a.arrow"])
def test_every_format_is_counted_whole_and_as_far_as_asked(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    assert counted(tmp_path, name) == len(ROWS)
    assert counted(tmp_path, name, enough=5) == 5


def test_the_files_of_a_glob_are_added_up(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write(tmp_path, name)
    assert counted(tmp_path, "*.csv") == 2 * len(ROWS)
    assert counted(tmp_path, "*.csv", enough=9) == 9


def test_a_folder_of_images_has_as_many_rows_as_images_or_lines_of_its_metadata(tmp_path: Path) -> None:
    from PIL import Image

    for index, row in enumerate(pictures(4)):
        place = tmp_path / "photos" / str(row["label"]) / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row["image"]).save(place)
    assert counted(tmp_path, "photos") == 4
    names = [str(place.relative_to(tmp_path / "photos")) for place in sorted((tmp_path / "photos").rglob("*.png"))[:3]]
    (tmp_path / "photos/metadata.csv").write_text("\n".join(["file_name,label", *(f"{name},x" for name in names)]))
    assert counted(tmp_path, "photos") == 3


def test_counting_loads_neither_torch_nor_pandas(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    code = (
        "import sys; from pathlib import Path; from tunesmith.verbs.init import command; "
        f"command(['text-classification', '--data', {str(tmp_path / 'a.csv')!r}, '--out', {str(tmp_path / 'r.yaml')!r}], "
        "standalone_mode=False); print({'torch', 'pandas', 'transformers', 'datasets', 'ray'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "for 7 rows" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "set()"
