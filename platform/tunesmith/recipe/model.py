"""``model:``: the pre-trained model that is fine-tuned."""

from __future__ import annotations

from pydantic import Field

from tunesmith.recipe.base import Section


class ModelSection(Section):
    """The pre-trained model, named as ``from_pretrained`` takes it."""

    model_name_or_path: str
    """A Hub id (``google-bert/bert-base-uncased``), a local folder (relative to the recipe's file) or any URI."""

    revision: str = "main"
    """Branch, tag or commit of a Hub id. The commit that was loaded is recorded in the run."""

    processor_name_or_path: str | None = None
    """Tokenizer or image processor, where it is not beside the model."""

    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Replaces every dropout probability of the model's config. None leaves them."""

    ignore_mismatched_sizes: bool = True
    """Replace a head whose number of classes differs from the data's by a fresh one. False refuses such a model."""

    attn_implementation: str | None = None
    """``sdpa``, ``eager``, ``flash_attention_2``; None lets Transformers choose."""
