"""The report's section on augmentation: training examples as they are, and as the first epochs saw them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from tunesmith import storage
from tunesmith.report.page import Section
from tunesmith.tasks.augment import SAMPLES

if TYPE_CHECKING:
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.runs import Run


PICTURES = tuple(f"data:image/{form};base64," for form in ("png", "webp", "jpeg"))
"""How thumbnails begin, those of older runs too."""


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """What was changed, with samples; None where the run augments nothing."""
    operations = run.recipe_values.get("data", {}).get("augment") or []
    if not operations:
        return None
    try:
        kept = storage.read_json(run.file(SAMPLES))
    except (FileNotFoundError, json.JSONDecodeError):
        kept = []
    samples = kept if isinstance(kept, list) else []
    note = Markup(
        '<p class="note">Training examples are changed at random, anew in each epoch; validation and test examples never are. '
        "In this order: {}.</p>"
    ).format(Markup(", ").join(_operation(one) for one in operations))
    return Section("Augmentation", note + Markup("").join(_sample(one) for one in samples))


def _operation(values: Mapping[str, Any]) -> Markup:
    settings = ", ".join(f"{name} {value}" for name, value in values.items() if name != "name")
    return Markup("<b>{}</b>{}").format(values.get("name", ""), f" ({settings})" if settings else "")


def _sample(sample: Mapping[str, Any]) -> Markup:
    """The original and its variants, side by side."""
    cards = [_card(sample["original"], "as it is")]
    cards += [_card(one, f"epoch {epoch}") for epoch, one in enumerate(sample["variants"], start=1)]
    narrow = any(str(value).startswith("data:image/") for value in sample["original"].values())
    style = Markup(' style="grid-template-columns:repeat(auto-fill,minmax(110px,1fr));margin-bottom:14px"') if narrow else ""
    return Markup('<div class="cards{}"{}>{}</div>').format("" if narrow else " wide", style, Markup("").join(cards))


def _card(example: Mapping[str, Any], caption: str) -> Markup:
    parts = [_value(value) for value in example.values() if value is not None]
    return Markup('<article class="card">{}<footer>{}</footer></article>').format(Markup("").join(parts), caption)


def _value(value: Any) -> Markup:
    if isinstance(value, list):
        return Markup("<div>{}</div>").format(" ".join(map(str, value)))
    if str(value).startswith(PICTURES):
        return Markup('<img src="{}" alt="">').format(value)
    return Markup("<blockquote>{}</blockquote>").format(escape(value))
