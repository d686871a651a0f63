"""What `tunesmith auto` searches, by what the data and the models are like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.recipe.starting import Family
from tunesmith.recipe.task_names import KNOWN
from tunesmith.recipe.template import inline
from tunesmith.tuning.looking import Seen

UNEVEN = 3.0
"""Times as many rows in the commonest class as in the rarest, from which each class should count alike."""

Searched = tuple[str, str, dict[str, Any]]
"""A searched key, the reason, and its range."""


def space(
    seen: Seen, models: Sequence[str], families: Sequence[Family | None], rate: float, joining: Sequence[Searched]
) -> Sequence[Searched]:
    """Everything that is searched; ``joining`` are the schedules of :func:`unfreezing`."""
    found: list[Searched] = []
    if len(models) > 1:
        found.append(("model.model_name_or_path", "Which of the models that were given.", {"choice": list(models)}))
    # A probe and adapters want rates ten times and more those of a full fine-tuning (Hu et al. 2021, table D).
    low, high = _power(rate / 10), _power(rate * 30)
    found.append(
        (
            "training.learning_rate",
            f"From a tenth of the usual {inline(rate)} to thirty times of it, which adapters and probes want; it matters most.",
            {"loguniform": [low, high]},
        )
    )
    ways = ["full", "linear-probe"] + (["lora"] if "convolutional" not in families else [])
    found.append(
        (
            "training.adaptation",
            "All parameters, or few of them: with few rows a probe or adapters may be better, and they are cheaper.",
            {"choice": ways},
        )
    )
    if "lora" in ways:
        found.append(
            (
                "training.lora.r",
                "The rank of the adapters, where there are any.",
                {"choice": [4, 8, 16, 32], "when": {"training.adaptation": "lora"}},
            )
        )
    if "convolutional" not in families:
        found.append(
            (
                "training.layerwise_lr_decay",
                "Lower layers learn more slowly, so that they keep more of what they know.",
                {"choice": [1.0, 0.9, 0.8], "when": {"training.adaptation": "full"}},
            )
        )
    found += joining
    found += [
        ("training.lr_scheduler_type", "How the rate falls.", {"choice": ["linear", "cosine"]}),
        ("training.warmup_ratio", "A rise before it, against early divergence.", {"choice": [0.0, 0.1]}),
        ("training.weight_decay", "How strongly weights are held small.", {"choice": [0.0, 0.01, 0.1]}),
    ]
    if KNOWN[seen.task].one_label and seen.imbalance >= UNEVEN:
        found.append(
            (
                "training.class_weights",
                f"The commonest class has {seen.imbalance:.0f} times the rows of the rarest: rare ones may have to weigh more.",
                {"choice": ["none", "effective", "inverse"]},
            )
        )
    return found


def unfreezing(layers: Sequence[int | None], grace: float) -> Sequence[Searched]:
    """Schedules of gradual unfreezing; none where a model's layers are not known to be grouped.

    When ASHA first compares the trial, after ``grace`` epochs, all groups have joined, or half of them: a slower schedule would
    be stopped for it.
    """
    known = [count for count in layers if count is not None]
    if not known or len(known) < len(layers):
        return []
    most = max(known)
    every = [float(f"{times * grace / (most - 1):.2g}") for times in (1, 2)]
    said = f"{most} groups of layers" if len(known) == 1 else f"up to {most} groups of layers"
    reason = (
        f"Train the head alone first, and let the {said} join from the top, one after so many epochs (Howard and Ruder 2018): "
        "what is pre-trained is not torn by a fresh head. null trains all from the start."
    )
    return [("training.unfreeze.every_epochs", reason, {"choice": [None, *every], "when": {"training.adaptation": "full"}})]


def _power(value: float) -> float:
    """Rounded to one digit that matters."""
    return float(f"{value:.0e}")
