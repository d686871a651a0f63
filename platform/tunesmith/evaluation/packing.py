"""Texts of different lengths in one pass without padding.

The texts of a batch stand one after the other in a single row of tokens. Linear layers, norms and activations, which look at
one token at a time, then compute nothing for padding, and over one large matrix; attention looks at each text alone; and before
the head the row becomes a padded batch again. The sums are those of the padded batch in another order. Krell et al. 2021
(arXiv:2107.02027) pack so for training; servers on GPUs do, with variable-length kernels of attention.

It takes an encoder of Transformers whose attention is exchangeable (``AttentionInterface``) and which takes ``position_ids``:
BERT, RoBERTa, XLM-RoBERTa, ELECTRA, DistilBERT and their like. Whether a model is one is not looked up but tried: its outputs
are held against those of a padded batch when it is loaded (:meth:`Packing.of`). Any other answers padded, as before.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.nn import functional

TOLERANCE = 1e-5
"""Most that an output may differ from that of a padded batch (of its size, where that is above 1). Both compute in float32,
whose sums differ by about 3e-7 with their order; what attends to a neighbour or stands at another position differs by 1e-3."""

TRIED = (3, 9, 9, 40, 150)
"""Tokens of the made-up texts on which a model is tried; cut at what it takes. Windows of attention show in the longest."""

NAME = "tunesmith_packed"
"""The attention in Transformers' list."""

_LOG = logging.getLogger("tunesmith.packing")


@dataclass(frozen=True)
class _Row:
    """One row of tokens: which of a padded batch they are, and where each text is."""

    kept: torch.Tensor
    """Booleans ``[batch, longest]``: True where there is a token."""
    runs: tuple[tuple[int, int, int], ...]
    """Texts of one length that stand together: their first token, how many texts, and the tokens of each."""


_ROW: ContextVar[_Row | None] = ContextVar("tunesmith_row", default=None)
_ON: ContextVar[bool] = ContextVar("tunesmith_packing", default=False)


class Packing:
    """A model that packs its batches inside of :meth:`on`, and is as it was outside."""

    def __init__(self, model: Any, encoder: torch.nn.Module) -> None:
        """Put the hooks in place; they do nothing yet."""
        self._filler = _numbering_filler(model)
        self._handles = (
            model.register_forward_pre_hook(self._pack, with_kwargs=True),
            model.register_forward_hook(self._leave, always_call=True),
            encoder.register_forward_hook(_unpack),
        )

    @classmethod
    def of(cls, model: torch.nn.Module) -> Packing | None:
        """The packing of this model on a CPU, float32, verified; None where it cannot be packed."""
        encoder = _encoder(model)
        if encoder is None:
            return None
        before = model.config._attn_implementation  # type: ignore[union-attr]
        found = cls(model, encoder)
        try:
            _register()
            model.set_attn_implementation(NAME)  # type: ignore[operator]
            worst = found._difference(model)
        except Exception as error:  # whatever a foreign model raises where it is run in a way that its authors did not plan
            _LOG.info("%s is not packed: %s", type(model).__name__, error)
            worst = float("inf")
        if worst <= TOLERANCE:
            return found
        found.remove()
        model.set_attn_implementation(before)  # type: ignore[operator]
        return None

    @contextmanager
    def on(self) -> Iterator[None]:
        """The model packs, in this thread."""
        before = _ON.set(True)
        try:
            yield
        finally:
            _ON.reset(before)

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _difference(self, model: Any) -> float:
        """The greatest difference between packed and padded outputs of made-up texts, of its size where that is above 1."""
        batch = _made_up(model.config)
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                want = model(**batch).logits
                with self.on():
                    got = model(**batch).logits
        finally:
            model.train(training)
        if got.dim() == 3 and got.shape == want.shape:  # an output for each token: those of padding mean nothing
            got, want = got[batch["attention_mask"].bool()], want[batch["attention_mask"].bool()]
        if got.shape != want.shape:
            return float("inf")
        difference = float(((got - want).abs() / want.abs().clamp(min=1)).max())
        return difference if difference == difference else float("inf")

    def _pack(self, model: torch.nn.Module, arguments: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """The inputs of a padded batch ``[batch, longest]`` as one row ``[1, tokens]``; None where there is no padding."""
        mask = given.get("attention_mask")
        if not _ON.get() or arguments or mask is None or "input_ids" not in given:
            return None
        kept = mask.bool()
        if kept.all():
            return None
        lengths = kept.sum(1).tolist()
        runs, start = [], 0
        for length, same in groupby(lengths):
            count = len(list(same))
            runs.append((start, count, length))
            start += count * length
        positions = self._positions(given["input_ids"], kept)
        row = {name: value[kept][None] for name, value in given.items() if name in ("input_ids", "token_type_ids")}
        rest = {name: value for name, value in given.items() if name not in row and name != "attention_mask"}
        _ROW.set(_Row(kept, tuple(runs)))
        return arguments, {**rest, **row, "position_ids": positions[kept][None]}

    def _positions(self, ids: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """The number of each token's position ``[batch, longest]``, as the model would count them itself."""
        if self._filler is None:
            return kept.cumsum(1) - 1
        counted = ids.ne(self._filler)
        return counted.cumsum(1) * counted + self._filler

    def _leave(self, model: torch.nn.Module, arguments: Any, output: Any) -> None:
        _ROW.set(None)


def _unpack(encoder: torch.nn.Module, arguments: Any, output: Any) -> Any:
    """The hidden states of a row ``[1, tokens, width]`` as those of a batch ``[batch, longest, width]``, padded with 0."""
    row = _ROW.get()
    if row is None:
        return None
    hidden = output[0]
    padded = hidden.new_zeros((*row.kept.shape, hidden.shape[-1]))
    padded[row.kept] = hidden[0]
    return type(output)(last_hidden_state=padded)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Each text's tokens among themselves; outside of packing it is PyTorch's own attention under the given mask.

    ``query``, ``key`` and ``value`` are ``[batch, heads, tokens, width]``; the result is ``[batch, tokens, heads, width]``.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    row = _ROW.get()
    if row is None:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return found
    heads, tokens = query.shape[1:3]
    result = query.new_empty(1, tokens, heads, value.shape[-1])
    for start, count, length in row.runs:
        part = slice(start, start + count * length)
        q, k, v = (x[0, :, part].reshape(heads, count, length, -1).transpose(0, 1) for x in (query, key, value))
        seen = functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        result[0, part] = seen.transpose(1, 2).flatten(0, 1)
    return result, None


def _register() -> None:
    """Make the attention known to Transformers, with the masks of PyTorch's own for batches that are not packed."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _encoder(model: Any) -> torch.nn.Module | None:
    """The part from embeddings to last hidden states, of a model of Transformers that is an encoder alone."""
    config: Any = getattr(model, "config", None)
    if not hasattr(model, "set_attn_implementation") or getattr(config, "_attn_implementation", "") != "sdpa":
        return None
    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return None
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    for name in ("encoder", "transformer"):
        found = getattr(model.base_model, name, None)
        if isinstance(found, torch.nn.Module):
            return found
    return None


def _numbering_filler(model: Any) -> int | None:
    """The token that the model's own numbering of positions leaves out: RoBERTa's family counts what is no padding, by the ids
    and not by the mask, and from behind the padding's own number. None where positions are plain places.
    """
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    return int(embeddings.padding_idx) if hasattr(embeddings, "create_position_ids_from_input_ids") else None


def _made_up(config: Any) -> Mapping[str, torch.Tensor]:
    """A padded batch of texts of :data:`TRIED` lengths, the same every time; the longest has a padding token within."""
    most = int(getattr(config, "max_position_embeddings", 0) or max(TRIED)) - 2
    lengths = torch.tensor([max(1, min(length, most)) for length in TRIED])
    filler = config.pad_token_id or 0
    ids = torch.arange(len(TRIED) * int(lengths.max())).reshape(len(TRIED), -1) * 7919 % config.vocab_size
    ids = torch.where(ids == filler, (filler + 1) % config.vocab_size, ids)
    ids[-1, 2] = filler
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    return {"input_ids": torch.where(mask, ids, filler), "attention_mask": mask.long()}
