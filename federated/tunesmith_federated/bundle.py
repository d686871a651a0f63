"""Many tensors in one piece of bytes, as they came: looked at, measured and added up without being taken apart.

The bytes are a safetensors file. What a server does with a reply, it does to thousands: made into tensors, put together again
for the disk and taken apart once more to be added up, a small model's reply costs several times what its numbers do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, deserialize

Bytes = bytes | memoryview

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What travels, under safetensors' names."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_REAL = ("F32", "BF16", "F16")
"""Whose numbers can be had in one row, as float32."""
_ALIGNED = 8
"""Bytes that a header's length is a multiple of."""
_MOST_NAME = 1000
"""Letters of a tensor's name."""
_MOST_LAYOUTS, _MOST_HEADER = 32, 1 << 20
"""Headers that are remembered, and the longest of them in bytes: a run has one or two, and a large model's has 100 KB."""
_AT_ONCE = 1 << 20
"""Numbers that are measured at a time."""


@dataclass(frozen=True)
class Layout:
    """What is where: the header of a safetensors file, checked."""

    header: bytes
    about: Mapping[str, torch.Tensor] = field(compare=False)
    """Shape and dtype of each tensor, on the meta device; in the order in which they lie."""
    places: Mapping[str, tuple[int, int]] = field(compare=False)
    """First byte and the one after the last, from where the header ends."""

    @cached_property
    def kind(self) -> str:
        """The dtype that all have, where it is a real one; else ''."""
        kinds = {_NAMES[tensor.dtype] for tensor in self.about.values()}
        return kinds.pop() if len(kinds) == 1 and kinds <= set(_REAL) else ""

    @cached_property
    def numel(self) -> int:
        """Numbers of all tensors together."""
        return sum(tensor.numel() for tensor in self.about.values())

    @property
    def begins(self) -> int:
        """Bytes before the tensors."""
        return _ALIGNED + len(self.header)

    @cached_property
    def length(self) -> int:
        """Bytes of the tensors."""
        return max((end for _, end in self.places.values()), default=0)


class Bundle(Mapping[str, torch.Tensor]):
    """Named tensors, each made when it is asked for. ``read``: the bytes from one place to another, after the header."""

    def __init__(self, layout: Layout, read: Callable[[int, int], Bytes]) -> None:
        self.layout, self._read = layout, read

    @classmethod
    def opened(cls, data: bytes) -> Bundle:
        """Of a safetensors file's bytes. Raises :class:`ValueError` where they are not what they say."""
        layout = layout_of(data)
        body = memoryview(data)[layout.begins :]
        return cls(layout, lambda first, end: body[first:end])

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Bundle:
        """Of tensors in memory. Raises KeyError for a dtype that does not travel."""
        return cls.opened(packed(tensors))

    def numbers(self, first: int, end: int) -> npt.NDArray[np.float32]:
        """From ``first`` to the one before ``end``, of all tensors in the order in which they lie; they must be of one kind."""
        kind = self.layout.kind
        width = DTYPES[kind].itemsize
        piece = self._read(first * width, end * width)
        if kind == "F32":
            return np.frombuffer(piece, np.float32)
        if kind == "F16":
            return np.frombuffer(piece, np.float16).astype(np.float32)
        return (np.frombuffer(piece, np.uint16).astype(np.uint32) << 16).view(np.float32)  # a bfloat16 is half a float32

    @cached_property
    def norm(self) -> float:
        """The Euclidean length of all numbers together, in float64, in which the squares of all that travels are finite."""
        if not self.layout.kind:
            return math.sqrt(sum(float(torch.linalg.vector_norm(self[name], dtype=torch.float64)) ** 2 for name in self))
        total = 0.0
        for first in range(0, self.layout.numel, _AT_ONCE):
            piece = self.numbers(first, min(first + _AT_ONCE, self.layout.numel)).astype(np.float64)
            total += float(piece @ piece)
        return math.sqrt(total)

    @property
    def size(self) -> int:
        """Bytes of the safetensors file."""
        return self.layout.begins + self.layout.length

    def pieces(self) -> list[Bytes]:
        """The safetensors file."""
        header = self.layout.header
        return [len(header).to_bytes(_ALIGNED, "little"), header, self._read(0, self.layout.length)]

    def __getitem__(self, name: str) -> torch.Tensor:
        about = self.layout.about[name]
        if not about.numel():
            return torch.empty(about.shape, dtype=about.dtype)
        own = bytearray(self._read(*self.layout.places[name]))
        return torch.frombuffer(own, dtype=about.dtype).reshape(about.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.about)

    def __len__(self) -> int:
        return len(self.layout.about)


def packed(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The tensors as one safetensors file.

    The library's own ``save`` takes 20 µs a tensor, which is most of what a message of a small model costs; this takes 7.
    """
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that every tensor is aligned
    header: dict[str, object] = {}
    pieces, at = [], 0
    for name in ordered:
        tensor = tensors[name].detach().cpu().contiguous()
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        pieces.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return b"".join([len(text).to_bytes(_ALIGNED, "little"), text, *pieces])


_layouts: dict[tuple[bytes, int], Layout] = {}
"""By header and the length of what follows it: on these alone depends whether a file is sound."""


def layout_of(data: Bytes) -> Layout:
    """The layout of a safetensors file; of those with the same header only the first is looked into.

    Raises :class:`ValueError` where the file is not what it says, or holds what does not travel.
    """
    start = _ALIGNED + int.from_bytes(data[:_ALIGNED], "little")
    key = (bytes(data[_ALIGNED:start]), len(data) - start)
    found = _layouts.get(key)
    if found is None:
        try:
            deserialize(bytes(data))  # type: ignore[no-untyped-call]
            told = json.loads(key[0], object_pairs_hook=_no_name_twice)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"the tensors are damaged: {error}") from error
        told.pop("__metadata__", None)
        try:
            found = _layout(key[0], told)
        except (TypeError, RuntimeError, OverflowError) as error:  # a shape of no numbers may be larger than torch can count
            raise ValueError(f"the tensors are damaged: {str(error).splitlines()[0]}") from error
        if len(_layouts) >= _MOST_LAYOUTS:
            _layouts.clear()
        if len(key[0]) <= _MOST_HEADER:
            _layouts[key] = found
    return found


def _layout(header: bytes, told: Mapping[str, Any]) -> Layout:
    for name, one in told.items():
        if not 0 < len(name) <= _MOST_NAME:
            raise ValueError(f"a tensor's name has {len(name)} letters")
        if one["dtype"] not in DTYPES:
            raise ValueError(f"{name} is {one['dtype']}, which does not travel")
    places = dict(sorted(((name, tuple(one["data_offsets"])) for name, one in told.items()), key=lambda pair: pair[1]))
    about = {name: torch.empty(told[name]["shape"], dtype=DTYPES[told[name]["dtype"]], device="meta") for name in places}
    return Layout(header, about, places)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found
