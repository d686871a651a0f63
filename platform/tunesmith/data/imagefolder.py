"""Folders of images: one folder for each class, or a ``metadata.csv`` / ``metadata.jsonl`` that names the files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from tunesmith import storage
from tunesmith.data.readers import ROWS, Chunk, read_csv, read_json
from tunesmith.errors import DataError

log = logging.getLogger(__name__)

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
METADATA = ("metadata.csv", "metadata.jsonl")
HELP = "put the images into one folder for each class, or name them in the column file_name of a metadata.csv"

IMAGE_COLUMN = "image"
LABEL_COLUMN = "label"
FILE_COLUMN = "file_name"


def is_image(uri: str) -> bool:
    """Whether a name ends like an image's."""
    return storage.name(uri).lower().endswith(IMAGES)


def is_metadata(uri: str) -> bool:
    """Whether a name is that of a metadata file."""
    return storage.name(uri) in METADATA


def read(root: str, files: Sequence[str]) -> Iterator[Chunk]:
    """Rows with the column ``image`` (the place of the file), and ``label`` (its folder) or the columns of the metadata."""
    metadata = [file for file in files if is_metadata(file)]
    if metadata:
        named: set[str] = set()
        for file in metadata:
            for chunk in _described(file):
                named.update(chunk.table[IMAGE_COLUMN].to_pylist() if len(chunk.table) else ())
                yield chunk
        forgotten = [file for file in files if is_image(file) and file not in named]
        if forgotten:
            log.warning("%d images of %s are named in no metadata file and left out: %s …", len(forgotten), root, forgotten[0])
        return
    images = [file for file in files if is_image(file)]
    classes = {_class_of(root, file) for file in images}
    for start in range(0, len(images), ROWS):
        part = images[start : start + ROWS]
        columns = {IMAGE_COLUMN: part}
        if classes != {None}:
            columns[LABEL_COLUMN] = [_class_of(root, file) for file in part]  # type: ignore[misc]  # None is a missing label
        yield Chunk(root, np.arange(start + 1, start + 1 + len(part)), pa.table(columns), is_folder=True)


def _class_of(root: str, file: str) -> str | None:
    """The folder that an image is in, or None where it lies directly in the root."""
    parts = storage.relative(file, root).split("/")
    return parts[-2] if len(parts) > 1 else None


def _described(metadata: str) -> Iterator[Chunk]:
    """The rows of a metadata file, with ``image`` in place of ``file_name``."""
    folder = storage.parent(metadata)
    for chunk in read_csv(metadata) if storage.name(metadata).endswith(".csv") else read_json(metadata):
        if len(chunk.table) == 0:
            yield chunk
            continue
        if FILE_COLUMN not in chunk.table.column_names:
            raise DataError(
                f"{metadata} has no column {FILE_COLUMN!r}, only {', '.join(chunk.table.column_names)}"
                f"\n    → Name each image, relative to the folder of this file, in a column {FILE_COLUMN!r}."
            )
        index = chunk.table.column_names.index(FILE_COLUMN)
        names = chunk.table[FILE_COLUMN].to_pylist()
        places = pa.array([storage.join(folder, str(name)) if name else None for name in names], pa.string())
        yield Chunk(chunk.file, chunk.rows, chunk.table.set_column(index, IMAGE_COLUMN, places), chunk.bad)
