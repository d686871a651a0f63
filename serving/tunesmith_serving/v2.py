"""The Open Inference Protocol v2 over REST, with its binary tensors: what tritonclient and KServe speak.

Source: https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and Triton's
extension_binary_data.md.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.tasks.base import Answer, TensorSpec
from tunesmith_serving import plain
from tunesmith_serving.describe import BYTES_KINDS, Description
from tunesmith_serving.problems import invalid

DTYPES = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Datatypes of the protocol → NumPy's, as they are laid out in binary. ``BYTES`` is apart."""

HEADER_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data",)


@dataclass(frozen=True)
class Asked:
    """An inference request, read."""

    id: str | None
    examples: list[dict[str, Any]]
    outputs: dict[str, bool]
    """Names of the outputs that are wanted, in order → whether in binary."""


@dataclass(frozen=True)
class Tensor:
    """One input: its values in row-major order, text and bytes as they came."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any] | np.ndarray[Any, Any] = field(repr=False)

    def rows(self) -> list[Any]:
        """The values of each example."""
        if len(self.shape) == 1:
            return list(self.values)
        if isinstance(self.values, np.ndarray):
            return list(self.values.reshape(self.shape))
        each = math.prod(self.shape[1:])
        return [self.values[index * each : (index + 1) * each] for index in range(self.shape[0])]


def server() -> dict[str, Any]:
    """``GET /v2``."""
    from importlib.metadata import version

    return {"name": "tunesmith", "version": version("tunesmith"), "extensions": list(EXTENSIONS)}


def metadata(description: Description, versions: Sequence[str]) -> dict[str, Any]:
    """``GET /v2/models/NAME``."""
    return {
        "name": description.name,
        "versions": list(versions),
        "platform": "tunesmith_pytorch",
        "inputs": [_spec(spec) for spec in description.inputs],
        "outputs": [_spec(spec) for spec in description.outputs],
    }


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def read(body: bytes, header_length: str | None, description: Description) -> Asked:
    """An inference request. Raises :class:`Refused` (422) that names the tensor, or the field."""
    head, rest = body, b""
    if header_length is not None:
        if not plain.DIGITS.match(header_length) or int(header_length) > len(body):
            raise invalid("Inference-Header-Content-Length", f"is {header_length!r}, and the body has {len(body)} bytes")
        head, rest = body[: int(header_length)], body[int(header_length) :]
    given = plain.parsed(head)
    if not isinstance(given, dict):
        raise invalid("body", f"is {plain.kind_of(given)}, not an object")
    tensors = _tensors(given.get("inputs"), rest, description)
    sizes = {tensor.shape[0] for tensor in tensors.values()}
    if len(sizes) > 1:
        raise invalid("inputs", f"differ in their first dimension, the batch: {sorted(sizes)}")
    columns = {
        role: _column(tensors[role], description.columns[role], role, tensors)
        for role in tensors
        if role in description.columns
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Asked(plain.identity(given), plain.checked(rows), _wanted(given, description))


def _tensors(given: Any, binary: bytes, description: Description) -> dict[str, Tensor]:
    """The inputs by name: each known, each there, none twice."""
    if not isinstance(given, list) or not given:
        raise invalid("inputs", "is missing or empty" if not given else f"is {plain.kind_of(given)}, not a list")
    specs = {spec.name: spec for spec in description.inputs}
    specs |= {
        f"num_{spec.name}": TensorSpec(f"num_{spec.name}", "INT64", (-1,))
        for spec in description.inputs
        if -1 in spec.shape[1:]
    }
    found: dict[str, Tensor] = {}
    for index, one in enumerate(given):
        where = f"inputs[{index}]"
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or name not in specs:
            raise invalid(
                f"{where}.name", f"is {name!r}; {description.name} takes {', '.join(spec.name for spec in description.inputs)}"
            )
        if name in found:
            raise invalid(f"{where}.name", f"{name} is there twice")
        found[name], binary = _tensor(one, specs[name], where, binary)
    if binary:
        raise invalid("body", f"has {len(binary)} bytes more than its tensors say")
    for name in description.required:
        if name in specs and name not in found:
            raise invalid("inputs", f"{name} is missing")
    return found


def _tensor(one: Mapping[str, Any], spec: TensorSpec, where: str, binary: bytes) -> tuple[Tensor, bytes]:
    """One tensor, checked against what the model takes, and what is left of the binary data."""
    datatype, shape = one.get("datatype"), one.get("shape")
    if datatype != spec.datatype:
        raise invalid(f"{where}.datatype", f"is {datatype!r}; {spec.name} is {spec.datatype}")
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**31 for n in shape):
        raise invalid(f"{where}.shape", f"is {shape!r}, not a list of sizes")
    if len(shape) == len(spec.shape) + 1 and shape[-1] == 1:
        shape = shape[:-1]  # Triton's clients write a batch of single texts as [n, 1]
    if len(shape) != len(spec.shape) or any(want not in (-1, n) for want, n in zip(spec.shape, shape, strict=True)):
        raise invalid(f"{where}.shape", f"is {shape}; {spec.name} is {list(spec.shape)}, where -1 is any size")
    plain.check_count(shape[0])  # only said so far: 0 × 10⁹ values need no bytes
    parameters = one.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    count = math.prod(shape)
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
            raise invalid(f"{where}.parameters.binary_data_size", f"is {size!r}, and {len(binary)} bytes are left")
        raw, binary = binary[:size], binary[size:]
        values = _from_binary(raw, spec.datatype, count, where)
    else:
        values = _from_json(one.get("data"), spec.datatype, count, where)
    return Tensor(spec.name, spec.datatype, tuple(shape), values), binary


def _from_binary(raw: bytes, datatype: str, count: int, where: str) -> list[Any] | np.ndarray[Any, Any]:
    if datatype != "BYTES":
        dtype = np.dtype(DTYPES[datatype])
        if len(raw) != count * dtype.itemsize:
            raise invalid(f"{where}", f"has {len(raw)} bytes for {count} values of {datatype}")
        return np.frombuffer(raw, dtype)
    values: list[bytes] = []
    place = 0
    while place < len(raw):
        if place + 4 > len(raw):
            raise invalid(where, "ends within the length of an element")
        (size,) = struct.unpack_from("<I", raw, place)
        if place + 4 + size > len(raw):
            raise invalid(where, f"ends within element {len(values)}")
        values.append(raw[place + 4 : place + 4 + size])
        place += 4 + size
    if len(values) != count:
        raise invalid(where, f"has {len(values)} elements, and its shape says {count}")
    return values


def _from_json(data: Any, datatype: str, count: int, where: str) -> list[Any] | np.ndarray[Any, Any]:
    if not isinstance(data, list):
        raise invalid(f"{where}.data", "is missing" if data is None else f"is {plain.kind_of(data)}, not a list")
    flat = _flat(data)
    if len(flat) != count:
        raise invalid(f"{where}.data", f"has {len(flat)} values, and its shape says {count}")
    if datatype == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise invalid(f"{where}.data", "has values that are no text")
        return [plain.whole(value, f"{where}.data") for value in flat]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in flat):
        raise invalid(f"{where}.data", "has values that are no numbers")
    try:
        return np.asarray(flat, dtype=np.dtype(DTYPES[datatype]))
    except (OverflowError, ValueError) as error:
        raise invalid(f"{where}.data", f"does not fit into {datatype}") from error


def _flat(data: list[Any]) -> list[Any]:
    """Row-major values of a list that may be nested, each seen once however deep it lies.

    >>> _flat([[1, [2]], [], 3])
    [1, 2, 3]
    """
    flat: list[Any] = []
    begun = [iter(data)]
    while begun:
        for value in begun[-1]:
            if isinstance(value, list):
                begun.append(iter(value))
                break
            flat.append(value)
        else:
            begun.pop()
    return flat


def _column(tensor: Tensor, kind: str, role: str, tensors: Mapping[str, Tensor]) -> list[Any]:
    """The tensor's rows as values of one role of the examples; padding is cut off."""
    rows = tensor.rows()
    if kind in BYTES_KINDS and tensor.datatype == "BYTES":
        return [row if isinstance(row, bytes) else plain.decoded(row, role) for row in rows]
    if tensor.datatype == "BYTES" and len(tensor.shape) == 1:
        return [_text(row, role) for row in rows]
    if len(tensor.shape) == 1:
        return rows
    counts = tensors.get(f"num_{role}")
    lengths = [int(n) for n in counts.rows()] if counts else [_length(row) for row in rows]
    if len(lengths) != len(rows) or any(not 0 <= n <= len(row) for n, row in zip(lengths, rows, strict=False)):
        raise invalid(f"num_{role}", f"does not say how much of each row of {role} is meant")
    cut = [row[:n] for n, row in zip(lengths, rows, strict=True)]
    return [[_text(word, role) for word in row] for row in cut] if tensor.datatype == "BYTES" else cut


def _length(row: Any) -> int:
    """How much of a row is meant where nothing says so: texts up to their last that is not empty, numbers all."""
    length = len(row)
    while isinstance(row, list) and length and not row[length - 1]:
        length -= 1
    return length


def _text(value: str | bytes, where: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(where, f"is not UTF-8 (byte {error.start})") from error


def _wanted(given: Mapping[str, Any], description: Description) -> dict[str, bool]:
    """Which outputs, and which of them in binary."""
    parameters = given.get("parameters") or {}
    all_binary = bool(parameters.get("binary_data_output")) if isinstance(parameters, dict) else False
    known = [spec.name for spec in description.outputs]
    asked = given.get("outputs")
    if asked is None or asked == []:
        return dict.fromkeys(known, all_binary)
    if not isinstance(asked, list):
        raise invalid("outputs", f"is {plain.kind_of(asked)}, not a list")
    wanted = {}
    for index, one in enumerate(asked):
        name = one.get("name") if isinstance(one, dict) else None
        if name not in known:
            raise invalid(f"outputs[{index}].name", f"is {name!r}; {description.name} gives {', '.join(known)}")
        options = one.get("parameters") or {}
        wanted[name] = bool(options.get("binary_data", all_binary)) if isinstance(options, dict) else all_binary
    return wanted


def write(asked: Asked, answers: Sequence[Answer], description: Description, request_id: str) -> tuple[bytes, dict[str, str]]:
    """The body of the answer, and its headers."""
    specs = {spec.name: spec for spec in description.outputs}
    outputs, binary = [], []
    for name, in_binary in asked.outputs.items():
        shape, values = _output(specs[name], answers, description)
        one: dict[str, Any] = {"name": name, "datatype": specs[name].datatype, "shape": list(shape)}
        if in_binary:
            raw = _to_binary(values, specs[name].datatype)
            one["parameters"] = {"binary_data_size": len(raw)}
            binary.append(raw)
        else:
            one["data"] = values.tolist() if isinstance(values, np.ndarray) else values
        outputs.append(one)
    answer = {
        "model_name": description.name,
        "model_version": description.version,
        "id": asked.id or request_id,
        "outputs": outputs,
    }
    head = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    if not binary:
        return head, {"Content-Type": "application/json"}
    return b"".join([head, *binary]), {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def _output(spec: TensorSpec, answers: Sequence[Answer], description: Description) -> tuple[tuple[int, ...], Any]:
    """Shape and row-major values of one output, padded where rows differ in length."""
    if spec.name.startswith("num_") and spec.name not in answers[0]:
        counted = spec.name.removeprefix("num_")
        return (len(answers),), np.asarray([len(answer[counted]) for answer in answers], dtype=np.int64)
    rows = [answer[spec.name] for answer in answers]
    if spec.datatype == "BYTES":
        return _padded_texts(rows, len(spec.shape))
    dtype = np.dtype(DTYPES[spec.datatype])
    if len(spec.shape) == 1:
        return (len(rows),), np.asarray(rows, dtype)
    arrays = [np.asarray(row, dtype).reshape(-1, *(n for n in spec.shape[2:])) for row in rows]
    padded = np.zeros((len(rows), max(map(len, arrays)), *spec.shape[2:]), dtype)
    for place, array in zip(padded, arrays, strict=True):
        place[: len(array)] = array
    return padded.shape, padded.ravel()


def _padded_texts(rows: Sequence[Any], dimensions: int) -> tuple[tuple[int, ...], list[str]]:
    if dimensions == 1:
        return (len(rows),), [str(row) for row in rows]
    longest = max((len(row) for row in rows), default=0)
    return (len(rows), longest), [str(word) for row in rows for word in [*row, *[""] * (longest - len(row))]]


def _to_binary(values: Any, datatype: str) -> bytes:
    if datatype != "BYTES":
        return bytes(np.ascontiguousarray(values, dtype=np.dtype(DTYPES[datatype])).tobytes())
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in values))
