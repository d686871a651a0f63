"""Tensors of the Open Inference Protocol v2 in JSON, as a client writes and reads them.

Source: https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.errors import DataError
from tunesmith.tasks.base import TensorSpec
from tunesmith.tasks.labels import words

Row = Any
"""The values of one example: a scalar, a list, or an array."""


class Misshapen(ValueError):
    """A tensor that is not what the protocol or the model's metadata says; the message says how."""


def specs_of(listed: Any) -> dict[str, TensorSpec]:
    """The tensors of ``GET /v2/models/NAME``, by name. Raises :class:`Misshapen`."""
    if not isinstance(listed, list):
        raise Misshapen("has no list of tensors")
    found = {}
    for one in listed:
        try:
            found[str(one["name"])] = TensorSpec(str(one["name"]), str(one["datatype"]), tuple(int(n) for n in one["shape"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Misshapen(f"describes a tensor as {str(one)[:120]}, without name, datatype and shape") from error
    return found


def on_the_wire(value: Any, kind: str) -> Any:
    """One value of an example as JSON: media in base64, words as a list.

    >>> on_the_wire(b"abc", "image"), on_the_wire("a b", "strings"), on_the_wire("a b", "text")
    ('YWJj', ['a', 'b'], 'a b')
    """
    if kind in ("image", "audio"):
        return base64.b64encode(medium(value)).decode()
    if kind == "strings":
        return words(value) or []
    return value if isinstance(value, str | int | float | list) else str(value)


def medium(value: Any) -> bytes:
    """A medium as the bytes of a file: from bytes, a path or URI, or a PIL image. Raises :class:`DataError`."""
    from tunesmith import storage

    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
        return medium(value)
    if hasattr(value, "save"):
        import io

        stream = io.BytesIO()
        value.save(stream, format="PNG")
        return stream.getvalue()
    try:
        return storage.local_path(value).read_bytes() if storage.is_local(value) else storage.read_bytes(value)
    except (OSError, TypeError) as error:
        raise DataError(f"{value} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def tensor(spec: TensorSpec, values: Sequence[Any]) -> dict[str, Any]:
    """An input of a request: one value of each example, lists of words padded with empty ones."""
    shape: list[int] = [len(values)]
    data: list[Any] = list(values)
    if values and isinstance(values[0], list):
        longest = max(map(len, values))
        shape.append(longest)
        data = [value for row in values for value in [*row, *[""] * (longest - len(row))]]
    elif len(spec.shape) == 2:
        shape.append(1)  # a batch of single texts is [n, 1] to Triton
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data}


def rows(given: Mapping[str, Any], count: int) -> list[Row]:
    """The values of each of ``count`` examples in an output. Raises :class:`Misshapen`."""
    name, shape, data = given.get("name"), given.get("shape"), given.get("data")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape) or not shape:
        raise Misshapen(f"{name} has the shape {shape!r}")
    if shape[0] != count:
        raise Misshapen(f"{name} has the shape {shape} for {count} examples")
    if not isinstance(data, list):
        raise Misshapen(f"{name} has no data in JSON")
    flat = _flat(data)
    if len(flat) != math.prod(shape):
        raise Misshapen(f"{name} has {len(flat)} values, and its shape {shape} says {math.prod(shape)}")
    if len(shape) > 1 and shape[-1] == 1 and given.get("datatype") == "BYTES":
        shape = shape[:-1]
    if given.get("datatype") == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise Misshapen(f"{name} is BYTES and has values that are no text")
        if len(shape) == 1:
            return flat
        each = math.prod(shape[1:])
        return [flat[k * each : (k + 1) * each] for k in range(count)]
    try:
        values = np.asarray(flat, dtype=np.float64).reshape(shape)
    except (TypeError, ValueError) as error:
        raise Misshapen(f"{name} has values that are no numbers") from error
    if str(given.get("datatype")).startswith(("INT", "UINT")):
        values = values.astype(np.int64)
    return list(values) if len(shape) > 1 else [value.item() for value in values]


def _flat(data: list[Any]) -> list[Any]:
    """Row-major values; some servers nest them."""
    while data and isinstance(data[0], list):
        data = [value for row in data for value in row]
    return data
