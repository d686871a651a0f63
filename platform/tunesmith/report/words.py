"""Metrics in words: their names, their numbers, and the one sentence that says how the fine-tuning went."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tunesmith.evaluation.baselines import BASE_MODEL, MAJORITY
from tunesmith.evaluation.results import Baseline, Evaluation
from tunesmith.evaluation.statistics import Estimate
from tunesmith.tasks.metrics import greater_is_better

Tone = Literal["better", "unclear", "worse", "alone"]

_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "token_accuracy": "Token accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "ece_equal_mass": "ECE, equal mass",
    "ece_classwise": "ECE, classwise",
    "msp_auroc": "AUROC, probability",
    "msp_fpr95": "FPR at 95\u202f% TPR, probability",
    "energy_auroc": "AUROC, energy",
    "energy_fpr95": "FPR at 95\u202f% TPR, energy",
    "mcc": "Matthews correlation",
    "hamming_loss": "Hamming loss",
    "loss": "Loss",
    "equalized_odds_difference": "Odds difference",
    "equalized_odds_ratio": "Odds, smallest ratio",
    "demographic_parity_difference": "Parity difference",
    "demographic_parity_ratio": "Parity ratio",
    "accuracy_difference": "Accuracy difference",
    "attack_auc": "AUC of the attack",
    "attack_tpr": "Found at 1\u202f% false positives",
    "attack_advantage": "Advantage",
}
_AVERAGES = ("macro", "micro", "weighted", "samples")
_PERCENT = ("accuracy", "balanced_accuracy", "token_accuracy", "precision", "recall", "f1", "hamming_loss", "ece")
_RATES = (
    "selection_rate", "true_positive_rate", "false_positive_rate", "failure_rate", "ece_equal_mass", "ece_classwise",
    "overconfidence", "share_of_examples", "mean_probability", "accuracy_elsewhere", "accuracy_gap", "msp_fpr95",
    "energy_fpr95", "attack_tpr", "overlap", "exact_overlap", "near_overlap", "agreement",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How the fine-tuning went."""

    tone: Tone
    """``better`` or ``worse`` where the interval of the difference excludes 0; ``alone`` where there is nothing to compare."""
    sentence: str
    detail: str


def metric_title(name: str) -> str:
    """A metric's name for people.

    >>> metric_title("f1_macro"), metric_title("roc_auc"), metric_title("word_error_rate")
    ('F1 (macro)', 'ROC-AUC', 'Word error rate')
    """
    if "/" in name:
        whole, _, part = name.partition("/")
        return f"{metric_title(whole)}, {part}"
    base, _, average = name.rpartition("_")
    if average in _AVERAGES and base:
        return f"{metric_title(base)} ({average})"
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def in_sentence(name: str) -> str:
    """The same inside a sentence: ``accuracy``, but ``F1 (macro)``."""
    title = metric_title(name)
    return title if title[:2].isupper() or title[1:2].isdigit() else title[0].lower() + title[1:]


def is_percent(name: str) -> bool:
    """Whether the metric is written as a percentage."""
    name = name.partition("/")[0]
    base, _, average = name.rpartition("_")
    return name in _PERCENT or name in _RATES or (average in _AVERAGES and base in _PERCENT)


def number(name: str, value: float | None, unit: bool = True) -> str:
    """A metric's value for people: ``92.2 %``, ``0.259``, ``–`` where it is undefined.

    >>> number("accuracy", 0.9222), number("log_loss", 0.25871), number("f1", float("nan"))
    ('92.2\\u202f%', '0.259', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if is_percent(name):
        return f"{100 * value:.1f}" + ("\u202f%" if unit else "")
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(name: str, estimate: Estimate) -> str:
    """``89.0 to 94.6 %``, or nothing where there is no interval."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f"{number(name, estimate.low, unit=False)} to {number(name, estimate.high)}"


def change(name: str, estimate: Estimate) -> str:
    """A difference with its sign: ``+77.2 points``, ``−3.711``."""
    if not math.isfinite(estimate.value):
        return "–"
    return ("−" if estimate.value < 0 else "+") + size(name, estimate.value)


def size(name: str, difference: float) -> str:
    """How large a difference is: ``4.7 points``, ``0.180``."""
    return f"{100 * abs(difference):.1f} points" if is_percent(name) else f"{abs(difference):.3f}"


def change_interval(name: str, estimate: Estimate) -> str:
    """The ends of a difference's interval with their signs: ``+72.1 to +81.2``."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    scale, digits = (100, 1) if is_percent(name) else (1, 3)
    ends = (f"{'−' if end < 0 else '+'}{abs(end) * scale:.{digits}f}" for end in (estimate.low, estimate.high))
    return " to ".join(ends)


def tone_of(name: str, difference: Estimate) -> Tone:
    """Whether a difference is clearly for the better or for the worse."""
    if not (math.isfinite(difference.low) and math.isfinite(difference.high)) or difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.low > 0) == greater_is_better(name) else "worse"


def verdict(found: Evaluation) -> Verdict:
    """The sentence on top of everything."""
    if not found.n:
        return Verdict("alone", "Nobody has judged this model.", "There was no example to judge it by.")
    name, own = found.headline, found.metrics[found.headline]
    title = in_sentence(name)
    judged = {key: one for key, one in found.baselines.items() if not one.skipped and name in one.differences}
    range_ = interval(name, own)
    rows = {"test": "held-out examples", "validation": "validation examples", "train": "training examples"}
    where = f"On {found.n:,} {rows.get(found.split, 'examples')}"
    if found.source:
        where = f"On {found.n:,} examples of {found.source}"
    sure = f"{where}, with a {100 * found.confidence:g}\u202f% interval of {range_}." if range_ else f"{where}."
    detail = " ".join([sure, *(_compared(name, one) for one in judged.values())])
    now = number(name, own.value)
    if BASE_MODEL in judged:
        before = number(name, judged[BASE_MODEL].metrics[name].value)
        tone = tone_of(name, judged[BASE_MODEL].differences[name])
        moved = "raised" if judged[BASE_MODEL].differences[name].value > 0 else "lowered"
        sentence = {
            "better": f"Fine-tuning {moved} {title} from {before} to {now}.",
            "worse": f"Fine-tuning did harm: {title} went from {before} to {now}.",
        }.get(tone, f"Fine-tuning made no clear difference: {title} was {before} and is {now}.")
        return Verdict(tone, sentence, detail)
    if MAJORITY in judged:
        tone = tone_of(name, judged[MAJORITY].differences[name])
        guess = number(name, judged[MAJORITY].metrics[name].value)
        sentence = {
            "better": f"The model reaches {title} of {now}; guessing reaches {guess}.",
            "worse": f"The model is worse than guessing: {title} is {now}, and {guess} for the commonest class.",
        }.get(tone, f"The model is not clearly better than guessing: {title} is {now}, and {guess} for the commonest class.")
        return Verdict(tone, sentence, detail)
    return Verdict("alone", f"The model reaches {title} of {now}.", detail)


def _compared(name: str, baseline: Baseline) -> str:
    difference = baseline.differences[name]
    ends = change_interval(name, difference)
    return f"Against {baseline.title}: {change(name, difference)}" + (f" ({ends})." if ends else ".")


def duration(seconds: float | None) -> str:
    """A time for people.

    >>> duration(4.24), duration(75), duration(7384), duration(None)
    ('4.2 s', '1 min 15 s', '2 h 3 min', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
