"""Numbers in one row are those of the tensors, and a header that is known vouches for no other file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from tunesmith_federated.bundle import Bundle, layout_of, packed

pytestmark = pytest.mark.unit

REAL = [torch.float32, torch.bfloat16, torch.float16]


@given(st.sampled_from(REAL), st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=5), st.integers(0, 99))
def test_a_row_has_the_numbers_of_all_tensors(dtype: torch.dtype, shapes: list[list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    tensors = {f"t{i}": (torch.randn(shape) * 100).to(dtype) for i, shape in enumerate(shapes)}
    found = Bundle.of(tensors)
    row = torch.cat([tensors[name].reshape(-1).float() for name in found]).numpy()
    assert found.layout.numel == row.size
    assert found.numbers(0, row.size).tobytes() == row.tobytes()
    first, end = row.size // 3, row.size - row.size // 4
    assert found.numbers(first, end).tobytes() == row[first:end].tobytes()
    assert found.norm == pytest.approx(float(np.linalg.norm(row.astype(np.float64))), rel=1e-12)


def test_what_is_strange_is_as_strange_in_a_row() -> None:
    odd = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 3e38])
    assert Bundle.of({"w": odd}).numbers(0, 5).tobytes() == odd.numpy().tobytes()
    half = odd.bfloat16()
    assert Bundle.of({"w": half}).numbers(0, 5).tobytes() == half.float().numpy().tobytes()
    assert math.isnan(Bundle.of({"w": odd}).norm)
    assert Bundle.of({"w": odd[1:]}).norm == math.inf
    assert math.isfinite(Bundle.of({"w": odd[2:]}).norm)


def test_tensors_of_several_kinds_are_no_row_and_have_a_length() -> None:
    mixed = Bundle.of({"w": torch.full((3,), 2.0), "h": torch.ones(4, dtype=torch.bfloat16), "n": torch.tensor(3.0)})
    assert mixed.layout.kind == ""
    assert mixed.norm == pytest.approx(5.0)
    assert Bundle.of({}).norm == 0


def test_the_file_is_safetensors_and_comes_out_as_it_went_in() -> None:
    tensors = {"b": torch.randn(3, 4).bfloat16(), "a": torch.randn(2), "n": torch.tensor(7), "e": torch.zeros(0, 2)}
    data = packed(tensors)
    whole = Bundle.opened(data)
    assert b"".join(map(bytes, whole.pieces())) == data
    assert whole.size == len(data)
    for held in (load(data), dict(whole)):
        assert all(torch.equal(held[name], tensors[name]) for name in tensors)
    whole["a"].zero_()
    assert torch.equal(whole["a"], tensors["a"])  # what was made is its owner's


def test_a_known_header_vouches_for_no_other_length() -> None:
    data = packed({"w": torch.arange(6.0)})
    assert layout_of(data) is layout_of(bytes(data))
    for other in (data[:-1], data + b"\0", data[:-8]):
        with pytest.raises(ValueError, match="damaged"):
            Bundle.opened(other)


def _file(header: str, body: bytes = bytes(8)) -> bytes:
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + body


def _told(first: int, end: int, shape: tuple[int, ...] = (1,)) -> str:
    return json.dumps({"dtype": "F32", "shape": shape, "data_offsets": [first, end]})


@pytest.mark.parametrize(
    "header",
    [
        f'{{"w": {_told(0, 8, (2,))}, "w": {_told(0, 8, (2,))}}}',
        f'{{"w": {_told(0, 4)}, "v": {_told(0, 4)}}}',
        f'{{"w": {_told(4, 8)}}}',
        f'{{"w": {_told(0, 8, (-2,))}}}',
        f'{{"v": {_told(0, 0, (2**63, 0))}, "w": {_told(0, 8, (2,))}}}',
        f'{{"v": {_told(0, 0, (0, 2**62, 4))}, "w": {_told(0, 8, (2,))}}}',
        '{"w": {"dtype": "F64", "shape": [1]}}',
        "[]",
        "{",
    ],
)
def test_a_header_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="damaged"):
        Bundle.opened(_file(header))


def test_a_dtype_that_does_not_travel_is_refused() -> None:
    with pytest.raises(ValueError, match="w is C64, which does not travel"):
        Bundle.opened(_file(json.dumps({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}})))
