"""``data.clean``: what is looked for in the rows before they are split, and what is done with what is found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.recipe.base import Section


class CleanSection(Section):
    """Duplicates and contradictions among the rows of each split that is given. Findings are in the report and the manifest."""

    normalize: bool = False
    """Train on texts in Unicode's composed form (NFC) with every run of white space as one space. Off, texts stay as they are
    and those that would change are counted: most tokenizers do this themselves, but line breaks can mean something. Rows are
    always *compared* in this form."""

    duplicates: Literal["report", "drop", "error"] = "report"
    """Rows with the same input and the same target. ``drop`` keeps the first of them."""

    near_duplicates: Literal["auto", "report", "drop", "off"] = "auto"
    """Rows with nearly the same input. ``drop`` keeps the first of those with the same target. ``auto`` reports them up to
    1,000,000 texts or 50,000 images and does not look for them beyond."""

    similarity: float = Field(default=0.8, ge=0.7, le=1)
    """From what share of common character 5-grams two texts are nearly the same (Jaccard similarity, case and punctuation left
    out)."""

    image_distance: int = Field(default=6, ge=0, le=10)
    """Up to how many of the 64 bits of their perceptual hashes two images may differ and be nearly the same."""

    conflicts: Literal["report", "drop", "majority", "error"] = "report"
    """The same input with different targets. ``majority`` keeps the rows with the most frequent target and none where two are
    equally frequent; ``drop`` keeps none of them."""
