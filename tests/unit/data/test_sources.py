"""What a recipe says of its data is found, or the message says what is there instead."""

from __future__ import annotations

import io
import secrets
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tunesmith import storage
from tunesmith.data.counting import count_rows
from tunesmith.data.hub import HubId, is_hub, parse
from tunesmith.data.sources import Source, resolve, resolve_splits
from tunesmith.errors import DataError
from tunesmith.recipe.data import DataSection
from tunesmith.recipe.paths import AT_SITES

pytestmark = pytest.mark.unit


def rows(source: Source) -> list[dict[str, Any]]:
    return [row for chunk in source.chunks() for row in chunk.table.to_pylist()]


def test_globs_and_lists_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text(f"text\n{name}\n")
    (tmp_path / "c.jsonl").write_text('{"text": "c.jsonl"}\n')
    (one,) = resolve("*.csv", "auto", str(tmp_path), "train")["train"]
    assert [row["text"] for row in rows(one)] == ["a.csv", "b.csv"]
    several = resolve(["c.jsonl", str(tmp_path / "a.csv")], "auto", str(tmp_path), "train")["train"]
    assert [row["text"] for source in several for row in rows(source)] == ["c.jsonl", "a.csv"]


def test_uris_are_read(tmp_path: Path) -> None:
    (tmp_path / "a b.csv").write_text("text\nx\n")
    uri = (tmp_path / "a b.csv").as_uri()
    (source,) = resolve(uri, "auto", "/nowhere", "train")["train"]
    assert rows(source) == [{"text": "x"}]


def test_any_file_system_of_fsspec_is_read() -> None:
    import fsspec

    with fsspec.open("memory://data/part-1.csv", "w") as stream:
        stream.write("text\nx\n")
    (source,) = resolve("memory://data/*.csv", "auto", "/nowhere", "train")["train"]
    assert rows(source) == [{"text": "x"}]
    assert source.content_hash() == source.content_hash()


QUERY = "?region=eu-west-1&scheme=http"


@pytest.fixture
def bucket() -> str:
    """An empty place in memory, whose name no other test has."""
    return f"memory://bucket-{secrets.token_hex(4)}/data"


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("end", ["", "/"])
def test_splits_below_a_uri_with_a_query_are_kept_apart(bucket: str, end: str) -> None:
    for part in ("train", "test"):
        storage.write_text(f"{bucket}/{part}/a.tsv", f"text\tlabel\n{part}\t1\n")
    found = resolve_splits(DataSection(train=f"{bucket}{end}{QUERY}"), "")
    assert {name: rows(source)[0]["text"] for name, (source,) in found.items()} == {"train": "train", "test": "test"}
    assert [source.root for (source,) in found.values()] == [f"{bucket}/train{QUERY}", f"{bucket}/test{QUERY}"]


def test_images_below_a_uri_with_a_query_have_their_folders_for_classes(bucket: str) -> None:
    for part in ("train", "val"):
        storage.write_bytes(f"{bucket}/{part}/cat/1.png", picture())
    found = resolve_splits(DataSection(train=bucket + QUERY), "")
    assert list(found) == ["train", "validation"]
    (source,) = found["validation"]
    assert rows(source) == [{"image": f"{bucket}/val/cat/1.png{QUERY}", "label": "cat"}]
    (plain,) = resolve_splits(DataSection(train=bucket), "")["validation"]
    assert source.content_hash() == plain.content_hash()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_below_a_uri_with_a_query_names_images(bucket: str, kind: str) -> None:
    storage.write_bytes(f"{bucket}/images/1.png", picture())
    text = "file_name,label\nimages/1.png,cat\n" if kind == "csv" else '{"file_name": "images/1.png", "label": "cat"}\n'
    storage.write_text(f"{bucket}/metadata.{kind}", text)
    (source,) = resolve(bucket + QUERY, "auto", "", "train")["train"]
    assert rows(source) == [{"image": f"{bucket}/images/1.png{QUERY}", "label": "cat"}]
    assert count_rows([source], 5) == 1


def test_a_name_that_is_not_at_a_uri_with_a_query_is_looked_for_beside_it(bucket: str) -> None:
    storage.write_text(f"{bucket}/reviews.csv", "text\nx\n")
    with pytest.raises(DataError, match=r"Did you mean 'reviews\.csv'"):
        resolve(f"{bucket}/revews.csv{QUERY}", "auto", "", "train")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("revews.csv", "Did you mean 'reviews.csv'"),
        ("nowhere/x.csv", "does not exist; relative paths start at the recipe's folder"),
        ("*.parquet", "reviews.csv"),
        ("notes.xyz", "its kind cannot be told from the ending '.xyz'"),
    ],
)
def test_missing_and_unknown_files_are_refused(tmp_path: Path, spec: str, said: str) -> None:
    (tmp_path / "reviews.csv").write_text("text\nx\n")
    (tmp_path / "notes.xyz").write_text("x")
    with pytest.raises(DataError, match=said):
        resolve(spec, "auto", str(tmp_path), "train")


def test_the_format_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("text\nx\n")
    (source,) = resolve("data.txt", "csv", str(tmp_path), "train")["train"]
    assert rows(source) == [{"text": "x"}]


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def test_a_folder_of_class_folders_gives_labels(tmp_path: Path) -> None:
    cat, dog = image(tmp_path / "cat" / "1.png"), image(tmp_path / "train" / "2.PNG")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / ".hidden").mkdir()
    (source,) = resolve(str(tmp_path), "auto", "", "train")["train"]
    assert source.format == "imagefolder"
    assert rows(source) == [{"image": str(cat), "label": "cat"}, {"image": str(dog), "label": "train"}]


def test_subfolders_for_splits_are_told_from_classes(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        image(tmp_path / part / "cat" / "1.png")
    found = resolve_splits(DataSection(train="."), str(tmp_path))
    assert list(found) == ["train", "validation", "test"]
    assert rows(found["validation"][0]) == [{"image": str(tmp_path / "val" / "cat" / "1.png"), "label": "cat"}]


def test_files_are_told_apart_by_their_split(tmp_path: Path) -> None:
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.csv").write_text(f"text\n{part}\n")
    found = resolve_splits(DataSection(train=str(tmp_path), test=str(tmp_path / "dev.csv")), "")
    assert {name: rows(sources[0])[0]["text"] for name, sources in found.items()} == {
        "train": "train",
        "validation": "dev",
        "test": "dev",
    }
    (tmp_path / "extra.csv").write_text("text\nx\n")
    with pytest.raises(DataError, match=r"extra\.csv belongs to no split"):
        resolve_splits(DataSection(train=str(tmp_path)), "")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_names_images(tmp_path: Path, kind: str) -> None:
    place = image(tmp_path / "images" / "1.png")
    text = "file_name,label\nimages/1.png,cat\n" if kind == "csv" else '{"file_name": "images/1.png", "label": "cat"}\n'
    (tmp_path / f"metadata.{kind}").write_text(text)
    (source,) = resolve(str(tmp_path), "auto", "", "train")["train"]
    assert rows(source) == [{"image": str(place), "label": "cat"}]


def test_empty_and_mixed_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither images nor data files"):
        resolve(str(tmp_path), "auto", "", "train")
    (tmp_path / "a.csv").write_text("text\nx\n")
    (tmp_path / "b.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="several kinds"):
        resolve(str(tmp_path), "auto", "", "train")


def test_what_save_to_disk_wrote_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    made = made.cast_column("label", datasets.ClassLabel(names=["neg", "pos"]))
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "saved")
    found = resolve_splits(DataSection(train=str(tmp_path / "saved")), "")
    assert list(found) == ["train", "test"]
    assert rows(found["train"][0]) == [{"text": "a", "label": "neg"}, {"text": "b", "label": "pos"}]


def test_hub_ids_are_told_from_files() -> None:
    assert is_hub("hf://stanfordnlp/imdb", "auto")
    assert is_hub("imdb", "hub")
    assert not is_hub("hf://datasets/stanfordnlp/imdb/a.parquet", "auto")
    assert parse("hf://a/b:c@v1.0/test") == HubId("a/b", "c", "v1.0", "test")
    with pytest.raises(DataError, match="is not a Hub id"):
        parse("hf://a/b/c/d/e")


def test_rows_that_sites_have_are_not_looked_for_here() -> None:
    with pytest.raises(DataError, match=r"leaves the rows to the sites of a federation\n    → `tunesmith federate RECIPE"):
        resolve_splits(DataSection(train=AT_SITES, test="held.csv"), "")
