"""Tensors arrive as they left, in every dtype, and what is not what it says is refused before memory is taken for it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_federated.codec import KEY, STYPE, decode, encode, travel_bytes
from tunesmith_federated.flower import Array, ArrayRecord

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
KINDS = ["float32", "bfloat16", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]


@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_tensors_arrive_as_they_left(kind: str, shape: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    tensor = (torch.randn(shape) * 50).to(getattr(torch, kind))
    found = decode(encode({"w": tensor}))["w"]
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor)
    assert found.shape == tensor.shape


def test_nan_infinities_and_strides_travel_too() -> None:
    odd = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    found = decode(encode({"odd": odd, "turned": torch.arange(6.0).reshape(2, 3).T}))
    assert found["odd"].numpy().tobytes() == odd.numpy().tobytes()
    assert torch.equal(found["turned"], torch.arange(6.0).reshape(2, 3).T)
    found["odd"].add_(1)  # what arrives can be worked on


def test_real_numbers_travel_in_the_recipes_dtype_and_counters_as_they_are() -> None:
    tensors = {"w": torch.tensor([1.0 + 2**-10, 3.0]), "n": torch.tensor(7), "e": torch.zeros(0, 3)}
    found = decode(encode(tensors, "bfloat16"))
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "w": torch.bfloat16,
        "n": torch.int64,
        "e": torch.bfloat16,
    }
    assert torch.equal(found["w"], tensors["w"].bfloat16())
    assert travel_bytes(tensors, "bfloat16") == 2 * 2 + 8
    assert travel_bytes(tensors) == 2 * 4 + 8


def test_many_tensors_are_one_array_and_none_is_none() -> None:
    assert len(encode({f"w{i}": torch.zeros(2) for i in range(50)})) == 1
    assert len(encode({})) == 0
    assert decode(encode({})) == {}


def test_a_record_survives_flowers_own_serialisation() -> None:
    from flwr.common.serde import array_record_from_proto, array_record_to_proto

    tensors = {"b": torch.randn(3, 4).bfloat16(), "a": torch.randn(2)}
    found = decode(array_record_from_proto(array_record_to_proto(encode(tensors))))
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


GOOD = encode({"w": torch.tensor([1.0, 2.0])})[KEY].data


def claiming(shape: list[int], dtype: str = "F32") -> bytes:
    """A file that says of its eight bytes what they are not."""
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


@pytest.mark.parametrize(
    ("data", "stype", "key", "said"),
    [
        (GOOD[:-1], STYPE, KEY, "damaged"),
        (b"", STYPE, KEY, "damaged"),
        (b"\xff" * 8 + GOOD, STYPE, KEY, "damaged"),
        (claiming([10**6, 10**6]), STYPE, KEY, "damaged"),
        (claiming([10**18, 10**18]), STYPE, KEY, "damaged"),
        (claiming([-2]), STYPE, KEY, "damaged"),
        (claiming([2], "object"), STYPE, KEY, "damaged"),
        (b"\x93NUMPY", "numpy.ndarray", KEY, "travel as 'numpy.ndarray'"),
        (GOOD, STYPE, "other", "has 1 arrays"),
    ],
)
def test_what_is_not_what_it_says_is_refused(data: bytes, stype: str, key: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode(ArrayRecord({key: Array(dtype="uint8", shape=(len(data),), stype=stype, data=data)}))


def test_more_than_is_allowed_is_refused() -> None:
    record = encode({"a": torch.zeros(1000), "b": torch.zeros(1000)})
    assert len(decode(record, most_bytes=10_000)) == 2
    with pytest.raises(ValueError, match=r"bytes of tensors have come, more than 8,000"):
        decode(record, most_bytes=8_000)
    with pytest.raises(ValueError, match="a tensor's name has 1001 letters"):
        decode(encode({"x" * 1001: torch.zeros(1)}))


def test_what_does_not_travel_is_said() -> None:
    with pytest.raises(ValueError, match=r"w is torch\.complex64, which does not travel"):
        encode({"w": torch.zeros(1, dtype=torch.complex64)})


def test_gradients_do_not_travel() -> None:
    assert not decode(encode({"w": torch.ones(2, requires_grad=True) * 2}))["w"].requires_grad


def test_flower_is_imported_in_one_place_and_silenced_before() -> None:
    wing = ROOT / "federated" / "tunesmith_federated"
    importing = set()
    for path in wing.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
            importing |= {path.name for name in names if name.partition(".")[0] == "flwr"}
    assert importing == {"flower.py", "fleet.py", "patient.py", "wire.py"}
    code = "import os, tunesmith_federated.codec; print(os.environ['FLWR_TELEMETRY_ENABLED'])"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    answer = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "0"
