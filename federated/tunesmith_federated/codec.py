"""Tensors as they travel: all of them together as one safetensors file, in one Flower array.

One array, since Flower asks its server once for each array and each piece of one: a small ResNet's tensors, each an array of
its own, took 15 seconds a round over loopback. Safetensors has bfloat16, which NumPy's file format has not, and what arrives is
measured before anything is made of it; nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from tunesmith_federated.bundle import DTYPES, Bundle, packed
from tunesmith_federated.flower import Array, ArrayRecord
from tunesmith_federated.protocol import Tensors

STYPE = "tunesmith.safetensors"
"""How the bytes are to be read."""
KEY = "tensors"

NOTHING = Bundle.of({})
"""No tensors."""

Travels = Literal["float32", "bfloat16"]


def encode(tensors: Mapping[str, torch.Tensor], dtype: Travels | None = None) -> ArrayRecord:
    """The tensors for a message, real numbers cast to ``dtype`` (None: each as it is); no array where there are none.

    Raises :class:`ValueError` for complex or quantised tensors.
    """
    if not tensors:
        return ArrayRecord({})
    data = packed({name: _ready(name, tensor, dtype) for name, tensor in tensors.items()})
    return ArrayRecord({KEY: Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)})


def decode(record: ArrayRecord, most_bytes: int | None = None) -> Tensors:
    """The tensors of a message.

    Raises :class:`ValueError` where they are not what they say, or are more than ``most_bytes``.
    """
    return dict(unopened(record, most_bytes))


def unopened(record: ArrayRecord, most_bytes: int | None = None) -> Bundle:
    """The same, each made when it is asked for."""
    if not record:
        return NOTHING
    if set(record) != {KEY}:
        raise ValueError(f"the record has {len(record)} arrays ({', '.join(sorted(record)[:3])}), and one, {KEY!r}, is read")
    array = record[KEY]
    if array.stype != STYPE:
        raise ValueError(f"tensors travel as {array.stype!r}, and only {STYPE!r} is read")
    if most_bytes is not None and len(array.data) > most_bytes:
        raise ValueError(f"{len(array.data):,} bytes of tensors have come, more than {most_bytes:,}")
    return Bundle.opened(array.data)


def travel_bytes(tensors: Mapping[str, torch.Tensor], dtype: Travels | None = None) -> int:
    """Bytes of the tensors when they travel in ``dtype``, without names and what Flower adds.

    >>> travel_bytes({"w": torch.zeros(10, 3)}, "bfloat16")
    60
    """
    return sum(tensor.numel() * _travelling(tensor, dtype).itemsize for tensor in tensors.values())


def _travelling(tensor: torch.Tensor, dtype: Travels | None) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype) if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return found


def _ready(name: str, tensor: torch.Tensor, dtype: Travels | None) -> torch.Tensor:
    kind = _travelling(tensor, dtype)
    if kind not in DTYPES.values() or tensor.is_quantized:
        raise ValueError(f"{name} is {kind}, which does not travel")
    return tensor.detach().to("cpu", kind)
