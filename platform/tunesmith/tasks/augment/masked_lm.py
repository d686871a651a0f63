"""Words replaced by what a masked language model proposes (Garg and Ramakrishnan 2020, "BAE", arXiv:2004.01970).

The words of an example that are to go are masked together and filled by one forward pass, each by one of the ``top_k``
likeliest whole words other than itself (the paper masks one word at a time and keeps what an attacked model falls for). Which
words go and which rank fills each comes from the example's own random numbers. The passes of a batch are made together, and
their logits differ from an example's own in the last bits; where two candidates are so close that this could change their
order (:data:`MARGIN`), the example is asked again alone. So it becomes the same in any batch.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunesmith.errors import ModelError
from tunesmith.recipe.augment import MaskedLM
from tunesmith.tasks import hub, text
from tunesmith.tasks.base import Features

Words = list[tuple[str, int]]

MARGIN = 1e-3
"""Logits nearer to each other than this are compared once more, by the example alone; padding changes far less in float32."""

TOKENS = 2048
"""Padded tokens of one forward pass."""

_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)
_SPACES = ("Ġ", "▁")  # by which byte-pair and unigram vocabularies mark the beginning of a word


@dataclass(frozen=True)
class _Masked:
    """One text with masks in it."""

    features: Features
    places: list[int]
    """Which of its words each mask stands for, in order."""
    ranks: list[int]
    """Which of the likeliest fills each."""
    cores: list[str]
    """What each was, without punctuation."""


@functools.lru_cache(maxsize=2)
def load(name: str, revision: str = "main") -> MaskedWords:
    """The model of a Hub id, folder or URI, loaded once in this process.

    Raises :class:`ModelError` where it cannot be loaded, or has no head or no token for masks.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    source = hub.place_of(name, ".")
    kwargs: dict[str, Any] = {"revision": revision, "trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32}
    with hub.explained(source), hub.quiet():
        model, info = AutoModelForMaskedLM.from_pretrained(source, output_loading_info=True, **kwargs)
    if info["missing_keys"]:
        shown = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(
            f"data.augment: {name} has no head that fills masks: its weights lack {shown}"
            "\n    → Name a masked language model, such as distilbert/distilroberta-base"
        )
    tokenizer = hub.load_processor(AutoTokenizer, None, source, revision=revision)
    if tokenizer.mask_token_id is None:
        raise ModelError(f"data.augment: the tokenizer of {name} has no mask token\n    → Name a model with its own tokenizer")
    return MaskedWords(model, tokenizer)


class MaskedWords:
    """A masked language model that fills words."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.tokenizer = model.to(self.device).eval(), tokenizer
        positions = getattr(model.config, "max_position_embeddings", None) or text.LONGEST
        self.longest = int(min(text.LONGEST, tokenizer.model_max_length, positions))
        self.words, ids = _whole_words(tokenizer)
        self._ids = torch.tensor(ids, device=self.device)
        self._same: dict[str, list[int]] = {}
        for place, word in enumerate(self.words):
            self._same.setdefault(word.lower(), []).append(place)

    def substituted(self, texts: Sequence[Words], operation: MaskedLM, rngs: Sequence[np.random.Generator]) -> list[Words]:
        """The words of each text with some replaced, at the chance ``rate`` each; every word keeps its place."""
        masked = [self._masked(words, operation, rng) for words, rng in zip(texts, rngs, strict=True)]
        waiting = [index for index, one in enumerate(masked) if one.places]
        waiting.sort(key=lambda index: masked[index].features.length)
        new = [list(words) for words in texts]
        for batch in _batches([masked[index].features.length for index in waiting]):
            chosen = [waiting[place] for place in batch]
            for index, filled in zip(chosen, self._filled([masked[index] for index in chosen], operation.top_k), strict=True):
                for place, core, word in zip(masked[index].places, masked[index].cores, filled, strict=True):
                    old, origin = new[index][place]
                    before, _, after = old.partition(core)
                    new[index][place] = (before + word + after, origin)
        return new

    def _masked(self, words: Words, operation: MaskedLM, rng: np.random.Generator) -> _Masked:
        """The text with masks for the words that go, cut at what the model holds; a word without letters stays."""
        hit = rng.random(len(words)) < operation.rate
        ranks = rng.integers(operation.top_k, size=len(words))
        mask, shown, places, cores = self.tokenizer.mask_token, [], [], []
        for place, (word, _) in enumerate(words):
            plain, core = word.replace(mask, ""), _CORE.search(word)
            if hit[place] and plain == word and core is not None and any(map(str.isalpha, core[0])):
                places.append(place)
                cores.append(core[0])
                plain = word[: core.start()] + mask + word[core.end() :]
            shown.append(plain)
        if not places:
            return _Masked(Features({}), [], [], [])
        encoding = self.tokenizer([" ".join(shown)], truncation=True, max_length=self.longest, return_attention_mask=False)
        values = text.token_features(encoding, 0)
        held = int((values["input_ids"] == self.tokenizer.mask_token_id).sum())
        features = Features(values, length=len(values["input_ids"]))
        return _Masked(features, places[:held], ranks[places].tolist()[:held], cores[:held])

    def _filled(self, texts: Sequence[_Masked], top_k: int) -> list[list[str]]:
        """What stands in each mask of each text; texts with candidates too close to call are asked alone."""
        logits = self._logits([one.features for one in texts])
        found, start = [], 0
        for one in texts:
            mine = logits[start : start + len(one.places)]
            start += len(one.places)
            words, sure = self._chosen(mine, one, top_k)
            if not sure and len(texts) > 1:
                words, _ = self._chosen(self._logits([one.features]), one, top_k)
            found.append(words)
        return found

    def _chosen(self, logits: torch.Tensor, one: _Masked, top_k: int) -> tuple[list[str], bool]:
        """The word of each mask by its rank, and whether another batch would surely give the same."""
        words, sure = [], True
        for row, rank, core in zip(logits, one.ranks, one.cores, strict=True):
            row = row.clone()
            row[self._same.get(core.lower(), [])] = -torch.inf
            k = min(top_k, int(torch.isfinite(row).sum()))
            if k == 0:
                words.append(core)
                continue
            values, order = row.topk(min(k + 1, len(row)))
            at = rank % k
            near = values[max(at - 1, 0) : at + 2].tolist()
            sure = sure and all(high - low > MARGIN for high, low in itertools.pairwise(near))
            words.append(_cased(self.words[int(order[at])], core))
        return words, sure

    @torch.inference_mode()
    def _logits(self, features: Sequence[Features]) -> torch.Tensor:
        """Logits of the whole words in every mask of these texts, ``[masks, words]``, on the CPU.

        Only the states in the masks go through the head, which costs as much per token as a few layers.
        """
        batch = {name: tensor.to(self.device) for name, tensor in text.pad_tokens(features, self.tokenizer).items()}
        where = batch["input_ids"] == self.tokenizer.mask_token_id
        trunk: Any = getattr(self.model, "base_model", self.model)
        if trunk is self.model:
            everywhere: torch.Tensor = self.model(**batch).logits
            return everywhere[where][:, self._ids].float().cpu()

        def gather(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
            output["last_hidden_state"] = output["last_hidden_state"][where].unsqueeze(0)
            return output

        handle = trunk.register_forward_hook(gather)
        try:
            logits: torch.Tensor = self.model(**batch).logits[0]
            return logits[:, self._ids].float().cpu()
        finally:
            handle.remove()


def _batches(lengths: Sequence[int]) -> list[range]:
    """Places in lengths that rise, of at most :data:`TOKENS` padded tokens each."""
    batches, start = [], 0
    for place, length in enumerate(lengths):
        if place > start and (place + 1 - start) * length > TOKENS:
            batches.append(range(start, place))
            start = place
    return [*batches, range(start, len(lengths))] if len(lengths) else []


def _whole_words(tokenizer: Any) -> tuple[list[str], list[int]]:
    """The tokens that are a word by themselves, and their ids: no pieces, no punctuation, no numbers."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    spaced = next((mark for mark in _SPACES if any(str(token).startswith(mark) for token in tokens)), None)
    words, ids = [], []
    for number, token in enumerate(tokens):
        if token is None or number in special or token.startswith("##") or (spaced and not token.startswith(spaced)):
            continue
        word = token[1:] if spaced else token
        if not word.isascii():  # bytes stand for letters there
            word = tokenizer.decode([number]).strip()
        if word.isalnum() and any(map(str.isalpha, word)):
            words.append(word)
            ids.append(number)
    if not words:
        raise ModelError("data.augment: the masked language model has no token that is a whole word\n    → Name another model")
    return words, ids


def _cased(word: str, like: str) -> str:
    """The word in the case of the one that it replaces.

    >>> _cased("great", "GOOD"), _cased("great", "Good"), _cased("Paris", "there")
    ('GREAT', 'Great', 'Paris')
    """
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
