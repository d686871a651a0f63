"""A gate passes what is shown to hold, fails what is shown not to, and says what it cannot tell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tunesmith.errors import DataError, RecipeError
from tunesmith.evaluation.against import AgainstBase, AgainstSide
from tunesmith.evaluation.gate import judge
from tunesmith.evaluation.measures import is_better_when_more, measures
from tunesmith.evaluation.results import Baseline, ClassResult, DomainResult, Evaluation, Retained, SliceResult, SuiteResult
from tunesmith.evaluation.sides import open_side
from tunesmith.evaluation.statistics import Estimate, wilson
from tunesmith.recipe.gate import load_gate
from tunesmith.runs import Run


def share(value: float, n: int = 400) -> Estimate:
    return Estimate(value, *wilson(value, n), n, "wilson")


@pytest.fixture
def found() -> Evaluation:
    lost = Estimate(-0.1, -0.15, -0.05, 300, "mover")
    return Evaluation(
        run="it",
        task="text-classification",
        split="test",
        n=400,
        headline="accuracy",
        metrics={"accuracy": share(0.9), "ece": Estimate(0.03, 0.01, 0.05, 400, "basic-squared")},
        per_class={
            "cat": ClassResult(200, {"recall": share(0.95, 200)}),
            "a/b": ClassResult(3, {"recall": share(1 / 3, 3)}),
            "gone": ClassResult(0, {"recall": Estimate(math.nan, math.nan, math.nan, 0, "none")}),
        },
        slices={
            "age": {
                "old": SliceResult(300, {"accuracy": share(0.92, 300)}),
                "young": SliceResult(100, {"accuracy": share(0.7, 100)}),
            }
        },
        domains={"clinic": DomainResult(200, {"accuracy": share(0.85, 200)})},
        baselines={
            "base model": Baseline("it", {"accuracy": share(0.5)}, {"accuracy": Estimate(0.4, 0.35, 0.45, 400, "mover")})
        },
        retention={
            "old": Retained("score", 300, {"accuracy": share(0.9)}, {"accuracy": share(0.8)}, {"accuracy": lost}, cka=0.9)
        },
        suites={"robustness": SuiteResult("Robustness", n=400, measures={"typos/accuracy": share(0.8)})},
    )


def statuses(found: Evaluation, *rules: dict[str, object], **gate: object) -> list[str]:
    return [one.status for one in judge(load_gate({"rules": list(rules), **gate}), found)]


def test_every_measure_has_one_name(found: Evaluation) -> None:
    named = measures(found)
    for name in (
        "n",
        "accuracy",
        "recall/a/b",
        "slices/age=old/accuracy",
        "domains/clinic/accuracy",
        "retention/old/accuracy",
        "retention/old/cka",
        "robustness/typos/accuracy",
    ):
        assert name in named
    drop = named["retention/old/drop"]
    assert (drop.value, drop.low, drop.high) == (0.1, 0.05, 0.15)


def test_a_rule_goes_by_the_pessimistic_end_of_the_interval(found: Evaluation) -> None:
    rules = [{"measure": "accuracy", "min": limit} for limit in (0.85, 0.9, 0.95)]
    assert statuses(found, *rules) == ["passed", "not settled", "failed"]
    ceilings = [{"measure": "ece", "max": limit} for limit in (0.05, 0.04, 0.001)]
    assert statuses(found, *ceilings) == ["passed", "not settled", "failed"]


def test_by_value_goes_by_the_value(found: Evaluation) -> None:
    rules = [{"measure": "accuracy", "min": limit, "by": "value"} for limit in (0.9, 0.91)]
    assert statuses(found, *rules, {"measure": "n", "min": 400}) == ["passed", "failed", "passed"]


def test_what_is_not_settled_says_how_many_examples_would_and_blocks_unless_it_is_let_through(found: Evaluation) -> None:
    gate = {"rules": [{"measure": "accuracy", "min": 0.89}, {"measure": "accuracy", "min": 0.89, "undecided": "warn"}]}
    blocked, warned = judge(load_gate(gate), found)
    assert (blocked.blocks, warned.blocks) == (True, False)
    needed = blocked.checks[0].needed
    assert needed is not None
    low, _ = wilson(0.9, needed)
    assert low > 0.89


def test_a_pattern_is_held_by_all_and_the_worst_one_is_named_first(found: Evaluation) -> None:
    (outcome,) = judge(load_gate({"rules": [{"measure": "slices/age=*/accuracy", "min": 0.8}]}), found)
    assert outcome.status == "failed"
    assert [one.measure for one in outcome.checks] == ["slices/age=young/accuracy", "slices/age=old/accuracy"]


def test_parts_of_too_few_examples_are_named_and_not_hidden(found: Evaluation) -> None:
    rule = {"measure": "recall/*", "min": 0.5}
    (all_of,), (large,) = (judge(load_gate({"rules": [{**rule, "min_examples": k}]}), found) for k in (1, 20))
    assert (all_of.status, all_of.few) == ("not settled", ["recall/gone"])
    assert (large.status, large.few) == ("passed", ["recall/a/b", "recall/gone"])


def test_what_has_no_interval_is_not_settled_by_one(found: Evaluation) -> None:
    by_interval, by_value = judge(
        load_gate(
            {
                "rules": [
                    {"measure": "retention/old/cka", "min": 0.5},
                    {"measure": "retention/old/cka", "min": 0.5, "by": "value"},
                ]
            }
        ),
        found,
    )
    assert (by_interval.status, by_value.status) == ("not settled", "passed")
    assert "by: value" in by_interval.checks[0].why


def test_every_measure_that_is_not_there_is_told_at_once_with_what_to_do(found: Evaluation) -> None:
    asked = {
        "acuracy": "did you mean accuracy",
        "slices/agee=old/accuracy": "did you mean age",
        "slices/age=olt/accuracy": "did you mean old",
        "slices/colour=red/accuracy": "evaluation.slices",
        "fairness/gap": "gate RUN --evaluate",
        "recall/cta": "did you mean recall/cat",
        "zzz": "there are n, accuracy, ece",
    }
    with pytest.raises(RecipeError) as caught:
        statuses(found, *({"measure": name, "min": 0.5} for name in asked))
    assert len(caught.value.mistakes) == len(asked)
    for mistake, fix in zip(caught.value.mistakes, asked.values(), strict=True):
        assert fix in str(mistake)


def test_a_suite_that_was_skipped_says_why(found: Evaluation) -> None:
    skipped = replace(found, suites={"ood": SuiteResult("OOD", skipped="the target tells no logits")})
    with pytest.raises(RecipeError, match="the target tells no logits"):
        statuses(skipped, {"measure": "ood/auroc", "min": 0.5})


def test_a_margin_needs_a_baseline_and_goes_by_what_is_better(found: Evaluation) -> None:
    with pytest.raises(RecipeError, match="a margin needs a baseline"):
        statuses(found, {"measure": "accuracy", "margin": 0.01})
    (outcome,) = judge(load_gate({"rules": [{"measure": "accuracy", "margin": 0.01}]}), found, AgainstBase(found))
    assert outcome.status == "passed"
    with pytest.raises(RecipeError, match="only whole metrics"):
        judge(load_gate({"rules": [{"measure": "recall/cat", "margin": 0.01}]}), found, AgainstBase(found))


def test_against_a_run_margins_are_paired_and_other_examples_refused(text_run: Run, text_evaluation: Evaluation) -> None:
    own = open_side(text_run.path)
    rules = ["accuracy", "log_loss", "recall/*", "slices/scanner=*/accuracy"]
    gate = load_gate({"rules": [{"measure": name, "margin": 0.0} for name in rules]})
    outcomes = judge(gate, text_evaluation, AgainstSide(own, own, 0.95))
    assert all(one.gain is not None and one.gain.value == 0 for outcome in outcomes for one in outcome.checks)
    other = replace(own, records=own.records.slice(1))
    with pytest.raises(DataError, match="different examples"):
        judge(gate, text_evaluation, AgainstSide(own, other, 0.95))


def test_a_model_on_the_limit_passes_and_a_sound_one_is_turned_away_in_5_of_100_cases_at_most(found: Evaluation) -> None:
    """Twenty rules: on their limits a model passes rarely; well, and let through where open, it is stopped rarely."""
    rng, n, rounds = np.random.default_rng(1), 300, 200
    gate = load_gate({"undecided": "warn", "rules": [{"measure": "m*", "min": 0.8}]})
    stopped = passed = 0
    for _ in range(rounds):
        shares = {f"m{k}": share(value, n) for k, value in enumerate(rng.binomial(n, 0.8, 20) / n)}
        (outcome,) = judge(gate, replace(found, metrics=shares))
        stopped += outcome.blocks
        (single,) = judge(load_gate({"rules": [{"measure": "m0", "min": 0.8}]}), replace(found, metrics=shares))
        passed += single.status == "passed"
    assert stopped / rounds <= 0.05
    assert passed / rounds <= 0.05


@pytest.mark.parametrize(("limit", "expected"), [(100, "failed"), (400, "not settled")])
def test_one_end_of_an_interval_is_enough_to_fail_by(found: Evaluation, limit: float, expected: str) -> None:
    """Of 100 requests the slowest percent has no upper end."""
    slow = Estimate(500.0, 300.0, math.nan, 100, "order")
    known = replace(found, suites={"latency": SuiteResult("Latency", n=100, measures={"p99_ms": slow})})
    (outcome,) = judge(load_gate({"rules": [{"measure": "latency/p99_ms", "max": limit}]}), known)
    assert outcome.status == expected
    assert ("upper end" in outcome.checks[0].why) == (expected == "not settled")


def test_one_end_of_an_interval_is_enough_to_pass_by(found: Evaluation) -> None:
    known = replace(found, metrics={"accuracy": Estimate(0.9, 0.8, math.nan, 100, "none")})
    assert statuses(known, {"measure": "accuracy", "min": 0.7}) == ["passed"]


LESS_IS_BETTER = """
robustness/drop robustness/typos/drop robustness/typos/5/drop robustness/ece robustness/clean/log_loss
fairness/accuracy_difference fairness/sex/demographic_parity_difference fairness/equalized_odds_difference
behaviour/failure_rate behaviour/invariance/failure_rate
weak_slices/found weak_slices/worst/gap
calibration/ece calibration/ece_equal_mass calibration/ece_classwise calibration/overconfidence
calibration/brier calibration/log_loss
out_of_distribution/x/msp_fpr95 out_of_distribution/x/energy_fpr95
leakage/overlap leakage/exact_overlap leakage/near_overlap leakage/accuracy_gain
privacy/loss/attack_auc privacy/loss/attack_tpr privacy/loss/attack_advantage privacy/lira/attack_auc privacy/lira/attack_tpr
latency/p50_ms latency/p99_ms retention/old/drop
"""
MORE_IS_BETTER = """
robustness/accuracy robustness/worst_case robustness/typos/f1_macro robustness/typos/5/accuracy robustness/clean/accuracy
fairness/worst_group_accuracy fairness/demographic_parity_ratio fairness/sex+age/equalized_odds_ratio
weak_slices/worst/accuracy out_of_distribution/x/msp_auroc out_of_distribution/loss/energy_auroc
leakage/accuracy leakage/accuracy_without parity/agreement pairs/agreement pairs/accuracy
retention/old/cka recall/loss slices/gap=drop/accuracy
"""


@pytest.mark.parametrize(("names", "more"), [(LESS_IS_BETTER, False), (MORE_IS_BETTER, True)])
def test_every_measure_of_every_suite_has_its_better_way(names: str, more: bool) -> None:
    assert [name for name in names.strip().split() if is_better_when_more(name) != more] == []


def test_a_margin_on_a_false_positive_rate_bounds_its_rise(found: Evaluation, text_run: Run) -> None:
    def at(value: float) -> Evaluation:
        return replace(found, suites={"out_of_distribution": SuiteResult("OOD", n=400, measures={"x/msp_fpr95": share(value)})})

    own = replace(open_side(text_run.path), evaluation=at(0.5))
    gate = load_gate({"rules": [{"measure": "out_of_distribution/x/msp_fpr95", "margin": 0.02}]})
    (outcome,) = judge(gate, at(0.5), AgainstSide(own, replace(own, evaluation=at(0.1)), 0.95))
    assert outcome.status == "failed"


def test_what_an_evaluation_could_not_tell_is_no_baseline_for_a_margin(text_run: Run, text_evaluation: Evaluation) -> None:
    own = open_side(text_run.path)
    told = {name: one for name, one in text_evaluation.metrics.items() if name != "log_loss"}
    labels_only = replace(own, evaluation=replace(text_evaluation, metrics=told))
    gate = load_gate({"rules": [{"measure": "log_loss", "margin": 0.1}]})
    with pytest.raises(RecipeError, match="has no such measure"):
        judge(gate, text_evaluation, AgainstSide(own, labels_only, 0.95))
