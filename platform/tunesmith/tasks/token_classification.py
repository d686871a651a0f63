"""A tag for every word: named entities, parts of speech, redaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.errors import ModelError
from tunesmith.recipe import augment
from tunesmith.tasks import classes, hub, labels, metrics, text
from tunesmith.tasks.augment.words import change_words
from tunesmith.tasks.base import (
    Answer,
    Batch,
    Chart,
    Column,
    Example,
    Features,
    Metrics,
    Preprocessing,
    Record,
    Signature,
    State,
    Stats,
    TensorSpec,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from tunesmith.recipe import Recipe
    from tunesmith.tasks.augment import Augmentation, Source
    from tunesmith.tasks.losses import Criterion

IGNORED = -100
"""Target of tokens that bring no loss: all but the first token of each word (PyTorch's ignore_index)."""

_PLAIN = "?"
"""Read in place of a word without a token where the tokenizer, one over bytes, has no token for the unknown."""


class TokenClassification:
    """Whatever ``AutoModelForTokenClassification`` loads. A word's tag is that of its first token."""

    name = "token-classification"
    pipeline = "token-classification"
    columns: Mapping[str, Column] = {
        "tokens": Column("strings", "the words", ("tokens", "words", "text")),
        "tags": Column("tags", "a tag for each word", ("tags", "ner_tags", "pos_tags", "labels")),
    }
    target = "tags"
    metric = "f1"
    ragged = True
    exact = True
    augmentations = augment.WORDS

    def check(self, example: Example) -> str | None:
        """Words, and as many tags."""
        words = labels.words(example.get("tokens"))
        if not words:
            return "tokens are missing or empty"
        if self.target in example:
            tags = self._tags(example)
            if tags is None:
                return "tags are missing"
            if len(tags) != len(words):
                return f"{len(words)} words but {len(tags)} tags"
        return None

    def stratum(self, example: Example) -> str | None:
        """None: a sentence has no single class."""
        return None

    def collect(self, examples: Iterable[Example]) -> Stats:
        """How often each tag stands there."""
        return {"labels": labels.count(tag for example in examples for tag in self._tags(example) or [])}

    def merge(self, stats: Sequence[Stats]) -> Stats:
        """Counts added up."""
        return labels.merge(stats)

    def freeze(self, stats: Stats, recipe: Recipe) -> State:
        """Tags, and the longest input in tokens."""
        tokenizer = self.load_processor(recipe)
        return {
            **labels.frozen(stats["labels"], recipe, what="tag"),
            "max_length": text.max_length(recipe, tokenizer),
        }

    def load_processor(self, recipe: Recipe | None, source: str | None = None) -> Any:
        """The tokenizer, which must be a fast one (it knows which word a token is of)."""
        from transformers import AutoTokenizer

        tokenizer = hub.load_processor(AutoTokenizer, recipe, source, add_prefix_space=True)
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} of {tokenizer.name_or_path!r} does not tell which word a token is of. "
                "Choose a model with a fast tokenizer (tokenizer.json)"
            )
        return tokenizer

    def admit(self, example: Example, state: State) -> str | None:
        """Tags that training has."""
        return labels.unknown(self._tags(example) or [], state)

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        """``input_ids`` int32 ``[length]``; ``starts`` int32 ``[words]``, the place of each word's first token; ``tags``.

        Words beyond the longest input are cut off: they bring no loss, and count as wrong in the verdict. A word that gives no
        token (an empty one, or a lone variation selector) is read as an unknown word, so that every word has its tag.
        """
        state = preprocessing.state
        index = {label: i for i, label in enumerate(state["labels"])}
        sentences = [labels.words(example["tokens"]) or [] for example in examples]
        encoding = _encoded(sentences, preprocessing)
        if blank := _blank(sentences, encoding):
            for row, place in blank:
                sentences[row][place] = preprocessing.processor.unk_token or _PLAIN
            encoding = _encoded(sentences, preprocessing)
        encoded = []
        for row, example in enumerate(examples):
            values = text.token_features(encoding, row)
            places, held = _first_tokens(encoding.word_ids(row))
            values["starts"] = places
            tags = self._tags(example)
            if tags is not None:
                values["tags"] = np.asarray([index.get(tags[word], IGNORED) for word in held], dtype=np.int32)
            encoded.append(Features(values, length=len(values["input_ids"]), count=len(held)))
        return encoded

    def collate(self, features: Sequence[Features], preprocessing: Preprocessing) -> Batch:
        """Padded token ids, the mask, ``starts`` ``[batch, most words]`` (-1 beyond) and ``labels`` ``[batch, longest]``."""
        import torch

        batch = text.pad_tokens(features, preprocessing.processor)
        starts: list[Any] = [f.values["starts"] for f in features]
        batch["starts"] = torch.from_numpy(text.pad(starts, max(map(len, starts)), -1))
        if "tags" in features[0].values:
            target = np.full(batch["input_ids"].shape, IGNORED, dtype=np.int64)
            for row, feature in enumerate(features):
                target[row, np.asarray(feature.values["starts"])] = feature.values["tags"]
            batch["labels"] = torch.from_numpy(target)
        return batch

    def augment(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> Batch:
        """The words changed, each with its tag, and tokenised anew."""
        examples = self.augmented(source, indices, preprocessing, augmentation)
        return self.collate(self.encode(examples, preprocessing), preprocessing)

    def augmented(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> list[dict[str, Any]]:
        """The examples with their words changed; a word that is left out takes its tag with it."""
        changed = []
        for rng, example in zip(augmentation.rngs(indices), source.examples(list(indices)), strict=True):
            words, tags = labels.words(example["tokens"]) or [], self._tags(example)
            kept = change_words(words, augmentation.operations, rng)
            new: dict[str, Any] = {**example, "tokens": [word for word, _ in kept]}
            changed.append(new if tags is None else {**new, self.target: [tags[place] for _, place in kept]})
        return changed

    def build_model(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The base with one output for each tag."""
        from transformers import AutoModelForTokenClassification

        return hub.build_classifier(AutoModelForTokenClassification, recipe, state["labels"])

    def outline(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The same without weights."""
        from transformers import AutoModelForTokenClassification

        return hub.outline_classifier(AutoModelForTokenClassification, recipe, state["labels"])

    def load_model(self, folder: str) -> torch.nn.Module:
        """The saved model."""
        from transformers import AutoModelForTokenClassification

        return hub.load_saved(AutoModelForTokenClassification, folder)

    def load_base(self, recipe: Recipe, state: State) -> torch.nn.Module | None:
        """The base with its own head, where that answers with the same labels."""
        from transformers import AutoModelForTokenClassification

        return hub.load_base(AutoModelForTokenClassification, recipe, state["labels"])

    def classes_of(self, features: Sequence[Features], state: State) -> np.ndarray | None:
        """The tags that stand in each sentence."""
        held = np.zeros((len(features), len(state["labels"])), dtype=bool)
        for row, feature in enumerate(features):
            tags = np.asarray(feature.values["tags"])
            held[row, tags[tags != IGNORED]] = True
        return held

    def loss(self, model: torch.nn.Module, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, int]:
        """The criterion, summed over the labelled words; :data:`IGNORED` tokens do not reach it."""
        labelled = batch["labels"] != IGNORED
        logits, targets = model(**_inputs(batch)).logits[labelled], batch["labels"][labelled]
        return criterion(logits, targets).sum(), len(targets)

    def answers(self, model: torch.nn.Module, batch: Batch, preprocessing: Preprocessing) -> list[Answer]:
        """``tags`` and ``scores`` (probability of the tag) for every word that fitted; ``losses`` where the tags are known."""
        import torch

        known = preprocessing.state["labels"]
        chances = model(**_inputs(batch)).logits.float().softmax(-1)
        starts = batch["starts"].to(chances.device)
        best, tag = chances.max(-1)
        rows = torch.arange(len(starts), device=starts.device)[:, None]
        places = starts.clamp(min=0)
        best, tag, counts = best[rows, places].cpu(), tag[rows, places].cpu(), (starts >= 0).sum(-1).tolist()
        found: list[Answer] = []
        for row, count in enumerate(counts):
            answer = {"tags": [known[i] for i in tag[row, :count].tolist()], "scores": best[row, :count].tolist()}
            if "labels" in batch:
                place = places[row, :count]
                target = batch["labels"][row, place]
                right = chances[row, place, target.clamp(min=0)].clamp(min=classes.TINY)
                answer["losses"] = torch.where(target >= 0, -right.log(), torch.zeros_like(right)).tolist()
            found.append(answer)
        return found

    def score(self, answer: Answer, example: Example, state: State) -> Record:
        """Tags asked for and said, counts for entity-level F1, and the loss, summed over the words."""
        reference = self._tags(example) or []
        outside = "O" if "O" in state["labels"] else ""
        said = [*answer["tags"], *[outside] * (len(reference) - len(answer["tags"]))][: len(reference)]
        return {
            "tokens": labels.words(example["tokens"]) or [],
            "reference": reference,
            "prediction": said,
            "correct": reference == said,
            "confidence": float(min(answer["scores"], default=0.0)),
            "loss": float(sum(answer.get("losses", []))),
            "truncated": len(reference) - len(answer["tags"]),
        }

    def aggregate(self, records: pa.Table, state: State, weights: np.ndarray | None = None) -> Metrics:
        """Precision, recall and F1 of entities (seqeval's), or of tags where no tag begins with B- or I-; token accuracy."""
        reference, said = records["reference"].to_pylist(), records["prediction"].to_pylist()
        loss = metrics.weighted_mean(records["loss"].to_numpy(), weights, per=[len(row) for row in reference])
        return {"loss": loss, **metrics.tagging(reference, said, state["labels"], weights)}

    def majority(self, train: Iterable[Example], state: State) -> Answer | None:
        """None: the most frequent tag is O, and its entity F1 is 0 by definition."""
        return None

    def charts(self, records: pa.Table, state: State) -> list[Chart]:
        """Which tag is taken for which."""
        index = {label: i for i, label in enumerate(state["labels"])}
        counts = np.zeros((len(index), len(index)), dtype=np.int64)
        for reference, said in zip(records["reference"].to_pylist(), records["prediction"].to_pylist(), strict=True):
            for one, other in zip(reference, said, strict=True):
                if one in index and other in index:
                    counts[index[one], index[other]] += 1
        return [Chart("confusion", "Tags taken for one another", {"labels": list(index), "counts": counts})]

    def signature(self, state: State) -> Signature:
        """Words in, padded to the longest; tags and scores out, with their number."""
        return Signature(
            inputs=(TensorSpec("tokens", "BYTES", (-1, -1)),),
            outputs=(
                TensorSpec("tags", "BYTES", (-1, -1)),
                TensorSpec("scores", "FP32", (-1, -1)),
                TensorSpec("num_tags", "INT64", (-1,)),
            ),
        )

    def _tags(self, example: Example) -> list[str] | None:
        return labels.tag_names(example.get(self.target))


def _inputs(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name not in ("labels", "starts")}


def _encoded(sentences: list[list[str]], preprocessing: Preprocessing) -> Any:
    """The tokenizer's output over words, cut at the longest input."""
    return preprocessing.processor(
        sentences,
        is_split_into_words=True,
        truncation=True,
        max_length=preprocessing.state["max_length"],
        padding=False,
        return_attention_mask=False,
    )


def _blank(sentences: list[list[str]], encoding: Any) -> list[tuple[int, int]]:
    """Row and place of each word that gives no token, though it was not cut off."""
    found = []
    for row, words in enumerate(sentences):
        held = {word for word in encoding.word_ids(row) if word is not None}
        if len(held) < len(words):
            cut = bool(encoding.encodings[row].overflowing)
            end = max(held, default=0) if cut else len(words)
            found += [(row, place) for place in range(end) if place not in held]
    return found


def _first_tokens(word_ids: list[int | None]) -> tuple[np.ndarray, list[int]]:
    """Where each word's first token stands, and which words have one."""
    places, held, last = [], [], None
    for place, word in enumerate(word_ids):
        if word is not None and word != last:
            places.append(place)
            held.append(word)
        last = word if word is not None else last
    return np.asarray(places, dtype=np.int32), held
