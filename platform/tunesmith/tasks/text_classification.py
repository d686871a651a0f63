"""Texts, or pairs of texts, into one class of many or any number of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.recipe import augment
from tunesmith.tasks import classes, hub, labels, text
from tunesmith.tasks.augment.words import change_texts
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
    import numpy as np
    import pyarrow as pa
    import torch

    from tunesmith.recipe import Recipe
    from tunesmith.tasks.augment import Augmentation, Source
    from tunesmith.tasks.losses import Criterion


class TextClassification:
    """Whatever ``AutoModelForSequenceClassification`` loads. Lists of labels make it a multi-label task."""

    name = "text-classification"
    pipeline = "text-classification"
    columns: Mapping[str, Column] = {
        "text": Column("text", "the text", ("text", "sentence", "sentence1", "premise", "review", "content", "question")),
        "text_pair": Column("text", "a second text", ("text_pair", "sentence2", "hypothesis"), required=False),
        "label": Column("labels", "its class, or a list of classes", ("label", "labels", "class", "target", "category")),
    }
    target = "label"
    metric = "f1_macro"
    ragged = True
    exact = True
    augmentations = augment.TEXTS

    def check(self, example: Example) -> str | None:
        """A text that is text and not empty; a label."""
        for role in ("text", "text_pair"):
            if role not in example and role == "text_pair":
                continue
            value = example.get(role)
            if value is None or value != value:
                return f"{role} is missing"
            if not isinstance(value, str):
                return f"{role} is {type(value).__name__} {value!r:.40}, not text"
            if not value.strip():
                return f"{role} is empty"
        if self.target in example and labels.label_names(example[self.target]) is None:
            return "label is missing"
        return None

    def stratum(self, example: Example) -> str | None:
        """The label; several labels as one combination."""
        return " + ".join(sorted(labels.label_names(example.get(self.target)) or [])) or None

    def collect(self, examples: Iterable[Example]) -> Stats:
        """How often each label stands there, whether any row has a list, and whether the rows are pairs of texts."""
        several, pairs, found = False, False, []
        for example in examples:
            value = example.get(self.target)
            pairs = pairs or example.get("text_pair") is not None
            several = several or labels.listed(value) is not None
            found.extend(labels.label_names(value) or [])
        return {"labels": labels.count(found), "multi_label": several, "pairs": pairs}

    def merge(self, stats: Sequence[Stats]) -> Stats:
        """Counts added up."""
        any_of = {name: any(one.get(name, False) for one in stats) for name in ("multi_label", "pairs")}
        return {**labels.merge(stats), **any_of}

    def freeze(self, stats: Stats, recipe: Recipe) -> State:
        """Labels, whether several may hold, whether texts come in pairs, the longest input in tokens."""
        return {
            **labels.frozen(stats["labels"], recipe),
            "multi_label": bool(stats["multi_label"]),
            "pairs": bool(stats.get("pairs", False)),
            "max_length": text.max_length(recipe, self.load_processor(recipe)),
        }

    def load_processor(self, recipe: Recipe | None, source: str | None = None) -> Any:
        """The tokenizer."""
        from transformers import AutoTokenizer

        return hub.load_processor(AutoTokenizer, recipe, source)

    def admit(self, example: Example, state: State) -> str | None:
        """A label that training has."""
        return labels.unknown(labels.label_names(example.get(self.target)) or [], state)

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        """``input_ids`` (and ``token_type_ids``) int32 ``[length]``, cut at the longest input, and ``labels``."""
        state = preprocessing.state
        pairs = [example.get("text_pair") for example in examples]
        encoding = preprocessing.processor(
            [example["text"] for example in examples],
            pairs if any(pair is not None for pair in pairs) else None,
            truncation=True,
            max_length=state["max_length"],
            padding=False,
            return_attention_mask=False,
        )
        encoded = []
        for index, example in enumerate(examples):
            values = text.token_features(encoding, index)
            target = classes.encode_target(example.get(self.target), state)
            if target is not None:
                values["labels"] = target
            encoded.append(Features(values, length=len(values["input_ids"])))
        return encoded

    def collate(self, features: Sequence[Features], preprocessing: Preprocessing) -> Batch:
        """Padded token ids, the mask, and ``labels`` (int64 ``[batch]``, or float ``[batch, classes]``)."""
        batch = text.pad_tokens(features, preprocessing.processor)
        if "labels" in features[0].values:
            batch["labels"] = classes.targets([f.values["labels"] for f in features], preprocessing.state)
        return batch

    def augment(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> Batch:
        """The texts changed and tokenised anew."""
        examples = self.augmented(source, indices, preprocessing, augmentation)
        return self.collate(self.encode(examples, preprocessing), preprocessing)

    def augmented(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> list[dict[str, Any]]:
        """The examples with both texts changed."""
        changed = [dict(example) for example in source.examples(list(indices))]
        rngs = augmentation.rngs(indices)
        for role in ("text", "text_pair"):
            held = [place for place, example in enumerate(changed) if isinstance(example.get(role), str)]
            texts = [changed[place][role] for place in held]
            made = change_texts(texts, augmentation.operations, [rngs[place] for place in held])
            for place, new in zip(held, made, strict=True):
                changed[place][role] = new
        return changed

    def build_model(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The base with one output for each label."""
        from transformers import AutoModelForSequenceClassification

        return hub.build_classifier(AutoModelForSequenceClassification, recipe, state["labels"], problem_type=_kind(state))

    def outline(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The same without weights."""
        from transformers import AutoModelForSequenceClassification

        return hub.outline_classifier(AutoModelForSequenceClassification, recipe, state["labels"], problem_type=_kind(state))

    def load_model(self, folder: str) -> torch.nn.Module:
        """The saved model."""
        from transformers import AutoModelForSequenceClassification

        return hub.load_saved(AutoModelForSequenceClassification, folder)

    def load_base(self, recipe: Recipe, state: State) -> torch.nn.Module | None:
        """The base with its own head, where that answers with the same labels."""
        from transformers import AutoModelForSequenceClassification

        return hub.load_base(AutoModelForSequenceClassification, recipe, state["labels"])

    def classes_of(self, features: Sequence[Features], state: State) -> np.ndarray | None:
        """Its class, or its classes."""
        return classes.classes_of(features, state)

    def loss(self, model: torch.nn.Module, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, int]:
        """The criterion, summed over the examples."""
        logits = model(**classes.inputs_of(batch)).logits
        return classes.loss(logits, batch, criterion), len(logits)

    def answers(self, model: torch.nn.Module, batch: Batch, preprocessing: Preprocessing) -> list[Answer]:
        """Label(s) and probabilities of each text."""
        return classes.answers(model(**classes.inputs_of(batch)).logits, preprocessing.state)

    def score(self, answer: Answer, example: Example, state: State) -> Record:
        """Reference, prediction, confidence, loss, probabilities."""
        return classes.score(answer, example.get(self.target), state)

    def aggregate(self, records: pa.Table, state: State, weights: np.ndarray | None = None) -> Metrics:
        """Accuracy, precision, recall, F1, areas under curves, calibration."""
        return classes.aggregate(records, state, weights)

    def majority(self, train: Iterable[Example], state: State) -> Answer | None:
        """The most frequent class, with the shares as probabilities."""
        return classes.majority(train, self.target, state)

    def charts(self, records: pa.Table, state: State) -> list[Chart]:
        """Confusion matrix and reliability."""
        return classes.charts(records, state)

    def signature(self, state: State) -> Signature:
        """Text in, or two; label and probabilities out."""
        second = (TensorSpec("text_pair", "BYTES", (-1,)),) if state.get("pairs") else ()
        several = (TensorSpec("labels", "BYTES", (-1, -1)),) if state["multi_label"] else (TensorSpec("label", "BYTES", (-1,)),)
        return Signature(
            inputs=(TensorSpec("text", "BYTES", (-1,)), *second),
            outputs=(*several, TensorSpec("probabilities", "FP32", (-1, len(state["labels"])))),
        )


def _kind(state: State) -> str:
    """What Transformers calls the problem."""
    return "multi_label_classification" if state["multi_label"] else "single_label_classification"
