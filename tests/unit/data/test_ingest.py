"""Rows are kept whatever their files differ in, and media are found beside the file that names them."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tunesmith import storage
from tunesmith.data.ingest import Ingested, ingest
from tunesmith.data.problems import Problems
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
