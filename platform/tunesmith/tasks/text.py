"""What all tasks over token ids share: the longest input, padding, the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.tasks import hub
from tunesmith.tasks.base import Batch, Features

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

LONGEST = 512
"""Tokens taken where neither recipe nor model says less: what BERT's family was trained on."""

TOKEN_INPUTS = ("input_ids", "token_type_ids")
"""What is stored of a tokenizer's output; the attention mask follows from the length."""


def max_length(recipe: Recipe, tokenizer: Any) -> int:
    """The longest input in tokens: the recipe's, else what tokenizer and model can hold, at most :data:`LONGEST`."""
    if recipe.data.max_length is not None:
        return recipe.data.max_length
    held = [LONGEST, tokenizer.model_max_length]
    positions = getattr(hub.load_config(recipe), "max_position_embeddings", None)
    if positions:
        held.append(positions)
    return int(min(held))


def token_features(encoding: Any, index: int) -> dict[str, Any]:
    """The stored arrays of one example of a tokenizer's output: ``int32`` ``[length]`` each."""
    return {name: np.asarray(encoding[name][index], dtype=np.int32) for name in TOKEN_INPUTS if name in encoding}


def pad_tokens(features: Sequence[Features], tokenizer: Any) -> Batch:
    """``input_ids``, ``attention_mask`` (and ``token_type_ids``) as int64 tensors ``[batch, longest]``, padded on the right."""
    import torch

    lengths = np.fromiter((len(f.values["input_ids"]) for f in features), dtype=np.int64, count=len(features))  # type: ignore[arg-type]
    longest = int(lengths.max(initial=1))
    batch: Batch = {"attention_mask": torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))}
    fillers = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0) or 0}
    for name in TOKEN_INPUTS:
        if name in features[0].values:
            batch[name] = torch.from_numpy(pad([f.values[name] for f in features], longest, fillers[name]))
    return batch


def pad(rows: Sequence[Any], longest: int, filler: int) -> np.ndarray:
    """Ragged integer rows as one int64 array ``[rows, longest]``."""
    padded = np.full((len(rows), longest), filler, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
