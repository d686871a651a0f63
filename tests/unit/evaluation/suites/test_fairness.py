"""Fairness by fairlearn's definitions, and intervals that hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support.bench import Ruled, bench
from tunesmith.errors import DataError
from tunesmith.evaluation.suites import run as suite_runner
from tunesmith.evaluation.suites.fairness import check, fairness
from tunesmith.evaluation.suites.rates import Rate, difference, largest_difference, ratio, smallest_ratio
from tunesmith.recipe.evaluation import EvaluationSection


def rows(n: int = 400, labels: tuple[str, ...] = ("no", "yes"), seed: int = 0) -> list[dict[str, object]]:
    """People of two sexes and three regions, with what a model says of each written into its text."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        sex, region = str(rng.choice(["f", "m"])), str(rng.choice(["east", "north", "west"], p=[0.6, 0.35, 0.05]))
        label = str(rng.choice(labels))
        wrong = rng.random() < (0.35 if sex == "f" else 0.1) + 0.1 * (region == "north")
        said = str(rng.choice([one for one in labels if one != label])) if wrong else label
        made.append({"text": f"{k} {said}", "label": label, "sex": sex, "region": region})
    return made


def target(labels: tuple[str, ...] = ("no", "yes")) -> Ruled:
    return Ruled(lambda example: example["text"].split()[1], labels)


@pytest.mark.parametrize("columns", [["sex"], ["region"], ["sex", "region"]])
def test_the_differences_are_fairlearns(columns: list[str]) -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    people = rows()
    found = fairness(bench(target(), people, fairness={"groups": columns, "min_group": 1})).measures
    truth = [row["label"] == "yes" for row in people]
    said = [str(row["text"]).endswith("yes") for row in people]
    groups = [" ".join(str(row[name]) for name in columns) for row in people]
    for name in (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equalized_odds_difference",
        "equalized_odds_ratio",
    ):
        expected = getattr(metrics, name)(truth, said, sensitive_features=groups)
        assert found[f"{'+'.join(columns)}/{name}"].value == pytest.approx(expected), name


def test_every_group_has_its_rates_with_intervals() -> None:
    people = rows()
    found = fairness(bench(target(), people, fairness={"groups": ["sex"]}))
    table = next(one for one in found.tables if one.title == "Groups of sex")
    women = [row for row in people if row["sex"] == "f"]
    accuracy, selected, hit, false = table.rows["f"]
    assert accuracy is not None
    assert accuracy.n == len(women)
    said = [(row["label"] == "yes", str(row["text"]).endswith("yes")) for row in women]
    assert selected is not None
    assert selected.value == pytest.approx(np.mean([guess for _, guess in said]))
    assert hit is not None
    assert hit.value == pytest.approx(np.mean([guess for right, guess in said if right]))
    assert false is not None
    assert false.value == pytest.approx(np.mean([guess for right, guess in said if not right]))
    assert false.low < false.value < false.high


def test_small_groups_are_shown_and_left_out_of_the_differences() -> None:
    found = fairness(bench(target(), rows(200), fairness={"groups": ["region"], "min_group": 30}))
    table = next(one for one in found.tables if one.title == "Groups of region")
    assert table.marks == {"west": "small group"}
    assert "west" in table.rows
    assert "1 of 3 groups have fewer than 30 examples" in " ".join(found.notes)


def test_one_group_alone_is_not_compared() -> None:
    people = [{**row, "sex": "f"} for row in rows(60)]
    found = fairness(bench(target(), people, fairness={"groups": ["sex"]}))
    assert "equalized_odds_difference" not in found.measures
    assert "fewer than two groups" in " ".join(found.notes)


def test_of_several_classes_each_is_held_against_the_rest() -> None:
    labels = ("a", "b", "c")
    people = rows(labels=labels)
    found = fairness(bench(target(labels), people, fairness={"groups": ["sex"]})).measures
    each = [
        fairness(bench(target(labels), people, fairness={"groups": ["sex"], "positive": label})).measures for label in labels
    ]
    for name in ("demographic_parity_difference", "equalized_odds_difference"):
        assert found[f"sex/{name}"].value == pytest.approx(max(one[f"sex/{name}"].value for one in each))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": ["sx"]}, "evaluation.fairness.groups: the data has no column 'sx'.\n    → Did you mean 'sex'"),
        ({"groups": ["sex"], "positive": "yess"}, "no class 'yess'\n    → Did you mean 'yes'"),
        ({}, "nobody is named to compare"),
    ],
)
def test_what_the_data_has_not_is_refused_before_anything_is_asked(settings: dict[str, object], words: str) -> None:
    ready = bench(target(), rows(20))
    with pytest.raises(DataError, match=words.replace("(", r"\(")):
        check(ready.split, ready.target.task, ready.target.state, EvaluationSection(fairness=settings))


def test_tags_have_no_groups_to_select() -> None:
    tagged = Ruled(lambda _: "", ["O"], "token-classification")
    tagged.answer = lambda example: {"tags": ["O"], "scores": [1.0]}  # type: ignore[method-assign]
    ready = bench(tagged, [{"tokens": ["a"], "tags": ["O"], "sex": "f"}], fairness={"groups": ["sex"]})
    assert "no classes of whole examples" in suite_runner.run_suites(ready, ["fairness"])["fairness"].skipped


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ([0.5, 0.5], [100, 100]),
        ([0.5, 0.5, 0.5, 0.5], [60, 60, 60, 60]),
        ([0.05, 0.2, 0.1, 0.1], [50, 50, 100, 300]),
        ([0.9, 0.98], [500, 200]),
        ([0.02, 0.02], [50, 50]),
    ],
)
def test_the_intervals_of_the_extremes_hold_the_truth(shares: list[float], sizes: list[int]) -> None:
    """In at least 93 % of 1,000 samples, where nothing differs and where something does."""
    rng, held = np.random.default_rng(1), np.zeros(2)
    for _ in range(1000):
        family = [Rate(int(rng.binomial(n, p)), n) for n, p in zip(sizes, shares, strict=True)]
        far, near = largest_difference([family], 0.95), smallest_ratio([family], 0.95)
        held[0] += far.low <= max(shares) - min(shares) <= far.high
        held[1] += math.isnan(near.value) or near.low <= min(shares) / max(shares) <= near.high
    assert (held >= 930).all(), held


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """The examples (a) and (c) of Newcombe 1998, table II, method 10."""
    assert difference(Rate(56, 70), Rate(48, 80), 0.95) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert difference(Rate(6, 7), Rate(2, 7), 0.95) == pytest.approx((0.0582, 0.8062), abs=1e-4)


def test_a_ratio_of_nothing_has_an_interval() -> None:
    low, high = ratio(Rate(0, 50), Rate(5, 50), 0.95)
    assert 0 < low < high
