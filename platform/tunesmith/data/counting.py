"""How many rows a data set on this machine has, told cheaply: no table is made of them, and counting ends at enough."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith import storage
from tunesmith.data import imagefolder
from tunesmith.data.readers import CHARACTERS, delimiter_of, json_items, open_file
from tunesmith.data.sources import Source


def count_rows(sources: Iterable[Source], enough: int) -> int:
    """The rows of some sources, or ``enough`` where there are at least as many; roughly where rows are bad.

    Raises :class:`DataError` or OSError for a file that cannot be read at all.
    """
    found = 0
    for source in sources:
        for place, count in _parts(source):
            found += count(place, enough - found)
            if found >= enough:
                return enough
    return found


def _parts(source: Source) -> Iterator[tuple[str, Callable[[str, int], int]]]:
    """Each file whose rows count, with what counts them."""
    places = [file.uri for file in source.files]
    if source.format != "imagefolder":
        yield from ((place, _COUNTS[source.format]) for place in places)
        return
    described = [place for place in places if imagefolder.is_metadata(place)]
    for place in described:
        yield place, _csv if storage.name(place).endswith(".csv") else _json
    if not described:
        yield from ((place, lambda _place, _enough: 1) for place in places if imagefolder.is_image(place))


def _csv(file: str, enough: int) -> int:
    delimiter = delimiter_of(file)
    csv.field_size_limit(CHARACTERS)
    with open_file(file) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
        filled = (True for row in csv.reader(text, delimiter=delimiter) if row)
        return max(0, sum(islice(filled, enough + 1)) - 1)  # the header is none


def _json(file: str, enough: int) -> int:
    with open_file(file) as stream:
        return sum(1 for _ in islice(json_items(file, stream), enough))


def _parquet(file: str, _enough: int) -> int:
    return int(pq.read_metadata(storage.local_path(file)).num_rows)


def _arrow(file: str, _enough: int) -> int:
    with pa.memory_map(str(storage.local_path(file))) as stream:  # mapped: the rows themselves are not read
        if stream.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(stream)
            return sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
        stream.seek(0)
        return sum(batch.num_rows for batch in pa.ipc.open_stream(stream))


_COUNTS: dict[str, Callable[[str, int], int]] = {"csv": _csv, "json": _json, "parquet": _parquet, "arrow": _arrow}
