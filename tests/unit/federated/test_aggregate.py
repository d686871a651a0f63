"""The mean and the median of updates are NumPy's, whatever the order of arrival and the size of the pieces."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tunesmith_federated.aggregate import mean, mean_of_extras, median
from tunesmith_federated.bundle import Bundle
from tunesmith_federated.methods.base import Update
from unit.federated.conftest import InMemory

pytestmark = pytest.mark.unit

SHAPES = {"a": (2, 3), "b": (), "c": (5,), "none": (0, 4)}
PARAMETERS = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
finite = st.floats(-1e6, 1e6, width=32)


class Held:
    """An update in memory."""

    def __init__(self, site: str, examples: int, arrays: dict[str, np.ndarray]) -> None:
        self.site, self.examples, self.arrays = site, examples, arrays

    def names(self) -> list[str]:
        return list(self.arrays)

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))


class InOneRow(Bundle):
    """An update as it came, which knows how often a tensor of it was made."""

    def __init__(self, site: str, examples: int, tensors: dict[str, torch.Tensor]) -> None:
        whole = Bundle.of(tensors)
        super().__init__(whole.layout, whole._read)
        self.site, self.examples, self.tensors, self.reads = site, examples, tensors, 0

    def called(self, site: str) -> InOneRow:
        return InOneRow(site, self.examples, self.tensors)

    def names(self) -> list[str]:
        return list(self)

    def tensor(self, name: str) -> torch.Tensor:
        self.reads += 1
        return self[name].float()


@st.composite
def cohorts(draw: st.DrawFn) -> list[Held]:
    count = draw(st.integers(1, 6))
    return [
        Held(
            f"site-{k}",
            draw(st.integers(1, 10**6)),
            {name: draw(hnp.arrays(np.float32, shape, elements=finite)) for name, shape in SHAPES.items()},
        )
        for k in range(count)
    ]


@given(cohorts(), st.randoms(use_true_random=False), st.integers(1, 20))
def test_the_mean_is_the_weighted_mean_to_the_last_bit_of_float32(
    cohort: list[Held], shuffle: random.Random, most: int
) -> None:
    found = mean(cohort, PARAMETERS)
    weights = np.array([one.examples for one in cohort], dtype=np.float64)
    for name in SHAPES:
        stacked = np.stack([one.arrays[name].astype(np.float64) for one in cohort])
        wanted = np.tensordot(weights, stacked, axes=1) / weights.sum()
        largest = np.abs(stacked).max(initial=0)
        smallest = float(np.finfo(np.float32).smallest_subnormal)  # what float32 cannot tell from its neighbour near 0
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=2**-23, atol=float(largest) * 1e-14 + smallest)
    turned = list(cohort)
    shuffle.shuffle(turned)
    again = mean(turned, PARAMETERS, most_numbers=most)
    assert all(torch.equal(again[name], found[name]) for name in SHAPES)


@given(cohorts(), st.randoms(use_true_random=False), st.integers(1, 20))
def test_the_median_is_numpys(cohort: list[Held], shuffle: random.Random, most: int) -> None:
    turned = list(cohort)
    shuffle.shuffle(turned)
    found = median(turned, PARAMETERS, most_numbers=most)
    for name in SHAPES:
        wanted = np.median(np.stack([one.arrays[name].astype(np.float64) for one in cohort]), axis=0)
        np.testing.assert_array_equal(found[name].numpy(), wanted.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("combine", [mean, median])
@given(cohort=cohorts(), most=st.integers(1, 20))
def test_updates_that_lie_alike_are_taken_as_one_row_with_the_same_result(
    combine: Callable[..., Any], dtype: torch.dtype, cohort: list[Held], most: int
) -> None:
    tensors = [{name: one.tensor(name).clamp(-6e4, 6e4).to(dtype) for name in one.names()} for one in cohort]
    apart = [InMemory(one.site, one.examples, held) for one, held in zip(cohort, tensors, strict=True)]
    alike = [InOneRow(one.site, one.examples, held) for one, held in zip(cohort, tensors, strict=True)]
    wanted, found = combine(apart, PARAMETERS, most_numbers=most), combine(alike, PARAMETERS, most_numbers=most)
    assert all(torch.equal(found[name], wanted[name]) for name in SHAPES)
    assert not any(one.reads for one in alike)
    mixed = combine([alike[0], *apart[1:]], PARAMETERS, most_numbers=most)
    assert all(torch.equal(mixed[name], wanted[name]) for name in SHAPES)


def test_updates_that_do_not_lie_alike_are_taken_by_name() -> None:
    one = InOneRow("a", 1, {"w": torch.ones(2), "v": torch.zeros(2)})
    other = InOneRow("b", 1, {"w": torch.full((2,), 3.0, dtype=torch.bfloat16), "v": torch.zeros(2)})
    assert mean([one, other], {"w": torch.zeros(2), "v": torch.zeros(2)})["w"].tolist() == [2.0, 2.0]
    assert mean([one, one.called("c")], {"w": torch.zeros(2)})["w"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"\[2\], and should be \[1, 2\]"):
        mean([one], {"w": torch.zeros(1, 2), "v": torch.zeros(2)})
    with pytest.raises(ValueError, match="has no x"):
        mean([one], {"x": torch.zeros(2), "v": torch.zeros(2)})


def test_fewer_than_half_of_the_sites_cannot_carry_the_median_away() -> None:
    honest = [Held(f"site-{k}", 5, {"a": np.full((2, 3), k, np.float32)}) for k in range(3)]
    hostile = [Held(f"x-{k}", 10**9, {"a": np.full((2, 3), 1e30, np.float32)}) for k in range(2)]
    found = median([*hostile, *honest], {"a": PARAMETERS["a"]})
    assert found["a"].max().item() <= 2


def test_extras_are_averaged_each_site_counting_once(in_memory: Callable[..., Update]) -> None:
    extras = [in_memory("b", 1000, {"c": torch.tensor([2.0])}), in_memory("a", 1, {"c": torch.tensor([4.0])})]
    assert mean_of_extras(extras)["c"].tolist() == [3.0]
    assert mean_of_extras([]) == {}
    assert mean_of_extras([in_memory("a", 1, {}), in_memory("b", 1, {})]) == {}
    with pytest.raises(ValueError, match="a and b have not sent the same"):
        mean_of_extras([in_memory("a", 1, {"c": torch.zeros(1)}), in_memory("b", 1, {})])


@pytest.mark.parametrize(
    ("cohort", "said"),
    [
        ([], "no update"),
        ([("a", 0, {"w": torch.zeros(2)})], "without an example"),
        ([("a", 1, {"w": torch.zeros(2)}), ("a", 1, {"w": torch.zeros(2)})], "twice"),
        ([("a", 1, {"v": torch.zeros(2)})], "has no w"),
        ([("a", 1, {"w": torch.zeros(3)})], r"\[3\], and should be \[2\]"),
    ],
)
def test_what_cannot_be_aggregated_is_said(in_memory: Callable[..., Update], cohort: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mean([in_memory(*one) for one in cohort], {"w": torch.zeros(2)})


def test_bfloat16_updates_are_summed_in_full(in_memory: Callable[..., Update]) -> None:
    tiny = [in_memory(f"s{k:03}", 1, {"w": torch.tensor([1.0 if k == 0 else 2**-9], dtype=torch.bfloat16)}) for k in range(257)]
    found = mean(tiny, {"w": torch.zeros(1, dtype=torch.bfloat16)})["w"]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(1.5 / 257, rel=1e-7)


@pytest.mark.parametrize("combine", [mean, median])
def test_memory_does_not_grow_with_the_number_of_sites(combine: Callable[..., Any]) -> None:
    class Made:
        """An update that is made anew whenever it is read."""

        def __init__(self, k: int) -> None:
            self.site, self.examples = f"site-{k:04}", 1 + k

        def names(self) -> list[str]:
            return ["w"]

        def tensor(self, name: str) -> torch.Tensor:
            return torch.full((20_000,), float(self.examples))

    peaks = []
    for count in (4, 64):
        tracemalloc.start()
        combine([Made(k) for k in range(count)], {"w": torch.zeros(20_000)}, most_numbers=40_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 50_000
