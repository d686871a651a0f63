"""Images from folders, metadata, and inside Parquet files; corrupt ones are bad rows."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tunesmith.data import media_files
from tunesmith.data.media_files import stamps
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData
from tunesmith.data.sources import resolve
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task

pytestmark = pytest.mark.unit


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """20 cats and 20 dogs, one of which is corrupt and one cut short."""
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{index:02d}.png")
    (tmp_path / "pictures" / "dog" / "07.png").write_bytes(b"no image")
    whole = (tmp_path / "pictures" / "cat" / "03.png").read_bytes()
    (tmp_path / "pictures" / "cat" / "03.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "pictures"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., PreparedData]:
    """Prepares for a small image processor that resizes to 8×8."""
    model = tmp_path / "model"
    model.mkdir()
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    (model / "preprocessor_config.json").write_text(json.dumps(processor))
    (model / "config.json").write_text(json.dumps({"model_type": "vit", "id2label": {"0": "a", "1": "b"}}))

    def make(**data: Any) -> PreparedData:
        values = {"task": "image-classification", "model": {"model_name_or_path": str(model)}, "data": data}
        recipe = Recipe.from_dict(values, base_dir=tmp_path, check_paths=False)
        return prepare(recipe, load_task(recipe.task), output_dir=str(tmp_path / "runs"))

    return make


def test_corrupt_images_are_named_with_their_file(run: Any, pictures: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(train="pictures")
    message = str(caught.value)
    assert message.startswith("2 of 40 rows cannot be used")
    assert str(pictures / "dog" / "07.png") in message
    assert str(pictures / "cat" / "03.png") in message
    assert "2 × image is unreadable" in message


def test_good_images_are_stored_small_and_shown_by_their_path(run: Any, pictures: Path) -> None:
    data = run(train="pictures", on_bad_row="quarantine")
    assert sum(map(len, data.splits.values())) == 38
    assert len(data.quarantine.read_text().splitlines()) == 2
    train = data.splits["train"]
    pixels = [one.values["pixel_values"] for one in train.features(range(len(train)))]
    assert {(one.shape, str(one.dtype)) for one in pixels} == {((3, 8, 8), "uint8")}
    paths = train.rows()["image"].to_pylist()
    assert all(Path(path).exists() for path in paths)
    assert [Path(path).parent.name for path in paths] == train.rows()["label"].to_pylist()


def test_images_inside_the_data_are_kept_and_have_the_ids_of_their_files(run: Any, pictures: Path, tmp_path: Path) -> None:
    files = [path for path in sorted(pictures.rglob("*.png")) if path.name not in ("07.png", "03.png")]
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    table = pa.table({"image": images, "label": [path.parent.name for path in files]})
    pq.write_table(table, tmp_path / "pictures.parquet")
    for path in set(pictures.rglob("*.png")) - set(files):
        path.unlink()
    inside, beside = run(train="pictures.parquet").splits["test"], run(train="pictures").splits["test"]
    assert inside.ids.equals(beside.ids)
    assert inside.rows().column_names == ["image", "label"]
    assert Image.open(io.BytesIO(inside.example(0)["image"])).size == (10, 12)
    for one, other in zip(inside.features([0, 1]), beside.features([0, 1]), strict=True):
        np.testing.assert_array_equal(one.values["pixel_values"], other.values["pixel_values"])


def test_a_csv_names_images_relative_to_itself(run: Any, pictures: Path, tmp_path: Path, caplog: Any) -> None:
    good = [path for path in sorted(pictures.rglob("*.png")) if path.name not in ("07.png", "03.png")]
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in good]
    (tmp_path / "list.csv").write_text("\n".join(["file,class", *lines, "pictures/cat/99.png,cat"]) + "\n")
    with pytest.raises(DataError, match=r"list.csv, row 38 \(train\): image is not there"):
        run(train="list.csv")
    assert len(run(train="list.csv", on_bad_row="drop").splits["train"]) == 28


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "struct"])
def test_images_that_a_table_names_are_read_anew_where_one_has_changed(
    run: Any, pictures: Path, tmp_path: Path, kind: str
) -> None:
    good = [path for path in sorted(pictures.rglob("*.png")) if path.name not in ("07.png", "03.png")]
    table = pa.table({"photo": [str(path) for path in good], "label": [path.parent.name for path in good]})
    if kind == "csv":
        csv.write_csv(table, tmp_path / "list.csv")
    elif kind == "jsonl":
        (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
    else:
        inside = [{"bytes": None, "path": str(path)} for path in good]
        table = table if kind == "parquet" else table.set_column(0, "photo", pa.array(inside))
        pq.write_table(table, tmp_path / "list.parquet")
    wanted = {"train": f"list.{'parquet' if kind == 'struct' else kind}", "columns": {"image": "photo"}}
    before = run(**wanted)
    assert run(**wanted).path == before.path
    for path in good:
        pixels = np.asarray(Image.open(path))
        Image.fromarray(255 - pixels).save(path)
    after = run(**wanted)
    assert after.path != before.path
    assert after.splits["test"].hash != before.splits["test"].hash
    old, new = (data.splits["train"].features([0])[0].values["pixel_values"] for data in (before, after))
    assert not np.array_equal(np.asarray(old), np.asarray(new))


def test_only_files_that_tables_name_are_looked_at(pictures: Path, tmp_path: Path) -> None:
    image = pictures / "cat" / "00.png"
    pq.write_table(pa.table({"image": [image.read_bytes()], "label": ["cat"]}), tmp_path / "inside.parquet")
    (tmp_path / "list.csv").write_text(f"image,label\n{image},cat\ngone.png,dog\ns3://bucket/a.png,dog\n")
    (tmp_path / "broken.csv").write_text("other\nx\n")

    def found(place: str, task: str = "image-classification") -> dict[str, str]:
        return stamps(resolve(str(tmp_path / place), "auto", "", "test"), load_task(task), {"image": "image"})

    first = found("list.csv")
    assert list(first) == ["test"]
    assert found("list.csv") == first
    os.utime(image, ns=(1, 1))
    assert found("list.csv") != first
    for place in ("pictures", "inside.parquet", "broken.csv"):
        assert found(place) == {}
    assert found("list.csv", "text-classification") == {}


def test_of_tables_that_hold_their_images_nothing_is_read(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = (pictures / "cat" / "00.png").read_bytes()
    pq.write_table(pa.table({"image": [raw], "label": ["cat"]}), tmp_path / "bare.parquet")
    pq.write_table(pa.table({"image": [{"bytes": raw, "path": "x.png"}], "label": ["cat"]}), tmp_path / "both.parquet")
    monkeypatch.setattr(media_files, "_named", lambda *_: pytest.fail("the table is read"))
    for place in ("bare.parquet", "both.parquet"):
        source = resolve(str(tmp_path / place), "auto", "", "test")
        assert stamps(source, load_task("image-classification"), {}) == {}


def test_images_that_no_metadata_names_are_mentioned(run: Any, pictures: Path, caplog: Any) -> None:
    names = [f"{kind}/{index:02d}.png" for kind in ("cat", "dog") for index in range(10, 20)]
    rows = [{"file_name": name, "label": name.split("/")[0]} for name in names]
    (pictures / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level("WARNING"):
        data = run(train="pictures")
    assert sum(map(len, data.splits.values())) == 20
    assert "20 images" in caplog.text
