"""Every row goes to exactly one site, the same way for the same seed, and what cannot be dealt out is said."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import DataError
from tunesmith.recipe.federation import PartitionSection
from tunesmith_federated.partition import count, partition, picture

pytestmark = pytest.mark.unit


def labels(n: int, classes: int = 10) -> np.ndarray:
    return np.random.default_rng(1).integers(0, classes, n).astype(str)


@given(
    st.sampled_from(["iid", "dirichlet", "shards", "quantity"]),
    st.integers(1, 12),
    st.integers(60, 400),
    st.floats(0.5, 100),
    st.integers(0, 2**31),
)
def test_every_row_goes_to_one_site(by: Any, sites: int, n: int, alpha: float, seed: int) -> None:
    section = PartitionSection(by=by, alpha=alpha, seed=seed, min_examples=2)
    try:
        found = partition(section, sites, labels(n), None, n)
    except DataError as error:
        assert "in 100 draws the smallest site had at most" in str(error)  # noqa: PT017  # a draw may fail honestly
        return
    assert list(found) == [f"site-{k:02}" for k in range(sites)]
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(n))
    assert all(len(rows) >= 2 and (np.diff(rows) > 0).all() for rows in found.values())
    again = partition(section, sites, labels(n), None, n)
    assert all(np.array_equal(found[site], again[site]) for site in found)


def test_another_seed_deals_out_otherwise() -> None:
    one, other = (partition(PartitionSection(seed=seed), 3, None, None, 30) for seed in (1, 2))
    assert not np.array_equal(one["site-00"], other["site-00"])


def skew(by: Any, **settings: Any) -> float:
    """The share of the commonest class at a site, on average; 0.1 of ten equal classes."""
    known = labels(5000)
    found = partition(PartitionSection(by=by, **settings), 10, known, None, 5000)
    shares = [max(np.unique(known[rows], return_counts=True)[1]) / len(rows) for rows in found.values()]
    return float(np.mean(shares))


def test_smaller_alphas_make_sites_less_alike() -> None:
    assert skew("iid") < 0.15
    assert skew("dirichlet", alpha=1000) < 0.15
    assert 0.2 < skew("dirichlet", alpha=0.5) < skew("dirichlet", alpha=0.05)
    sizes = {
        alpha: np.std(
            [len(rows) for rows in partition(PartitionSection(by="quantity", alpha=alpha), 10, None, None, 5000).values()]
        )
        for alpha in (0.5, 1000.0)
    }
    assert sizes[0.5] > 10 * sizes[1000.0]


def test_the_shares_of_a_class_are_dirichlet() -> None:
    """Over many draws a site's share of a class has mean 1/N and the variance of its beta marginal."""
    sites, alpha, n = 4, 0.7, 2000
    shares = []
    for seed in range(400):
        found = partition(PartitionSection(by="dirichlet", alpha=alpha, seed=seed, min_examples=2), sites, np.zeros(n), None, n)
        shares.append(len(found["site-00"]) / n)
    variance = (1 / sites) * (1 - 1 / sites) / (sites * alpha + 1)
    assert np.mean(shares) == pytest.approx(1 / sites, abs=4 * (variance / 400) ** 0.5)
    assert np.var(shares) == pytest.approx(variance, rel=0.25)


def test_shards_give_each_site_few_classes() -> None:
    known = np.repeat([str(k) for k in range(10)], 100)
    found = partition(PartitionSection(by="shards", shards_per_site=2), 10, known, None, 1000)
    assert all(len(rows) == 100 and len(set(known[rows])) <= 2 for rows in found.values())


def test_a_columns_values_are_the_sites() -> None:
    column = ["oslo", "lyon", "oslo", "lyon", "lyon", "../x", "../x"]
    found = partition(PartitionSection(by="column", column="clinic"), 99, None, column, 7)
    assert {site: rows.tolist() for site, rows in found.items()} == {"../x": [5, 6], "lyon": [1, 3, 4], "oslo": [0, 2]}


@pytest.mark.parametrize(
    ("settings", "sites", "known", "column", "n", "said"),
    [
        ({}, 11, None, None, 10, "federation.sites: 11 sites cannot share 10 rows"),
        ({}, 10, None, None, 15, "each of 10 sites should have 2 rows, and there are 15"),
        ({"by": "dirichlet"}, 2, None, None, 10, "dirichlet deals out by class"),
        ({"by": "shards"}, 2, None, None, 10, "shards deals out by class"),
        ({"by": "column", "column": "clinc"}, 2, None, None, 10, "the data has no column 'clinc'"),
        (
            {"by": "column", "column": "c"},
            2,
            None,
            ["a", None, "", "a", float("nan")],
            5,
            "3 rows have no value in 'c', such as rows 1, 2, 4",
        ),
        ({"by": "column", "column": "c"}, 2, None, ["a", "a", "b"], 3, "1 of 2 sites have fewer than 2 rows: b has 1"),
        ({"by": "iid", "min_examples": 4}, 3, None, None, 11, "and there are 11"),
        (
            {"by": "dirichlet", "alpha": 0.01, "min_examples": 50},
            10,
            labels(600),
            None,
            600,
            "in 100 draws the smallest site had at most",
        ),
        ({"by": "shards", "min_examples": 3}, 3, labels(10), None, 10, "and the smallest site has 2"),
    ],
)
def test_what_cannot_be_dealt_out_is_said(settings: Any, sites: int, known: Any, column: Any, n: int, said: str) -> None:
    section = PartitionSection(**settings)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        partition(section, sites, known, column, n)
    assert "\n    → " in str(caught.value)


def test_the_picture_names_ten_sites_and_their_classes() -> None:
    known = labels(1000, 4)
    parts = partition(PartitionSection(by="dirichlet"), 10, known, None, 1000)
    drawn = picture(count(parts, known))
    assert drawn.count("site-0") > 10
    assert sum(int(rows.replace(",", "")) for rows in re.findall(r"site-0\d: ([\d,]+) rows", drawn)) == 1000
    assert drawn.startswith('<p class="note">10 sites hold')
    assert all(f"</svg>{name}</span>" in drawn for name in "0123")


def test_the_picture_of_a_thousand_sites_is_small_and_shows_single_sites() -> None:
    known = labels(20_000, 30)
    parts = partition(PartitionSection(by="dirichlet", alpha=0.3), 1000, known, None, 20_000)
    drawn = picture(count(parts, known))
    assert len(drawn) < 300_000
    assert "one of every 7 sites" in drawn
    assert "20 more" in drawn
    assert "1,000 sites hold" in drawn


def test_names_are_escaped_and_nothing_is_drawn_of_nothing() -> None:
    drawn = picture({"<b>": {"<i>": 3, "x": 1}})
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert picture({}) == ""
    assert "legend" not in picture(count({"a": np.arange(3)}, None))
