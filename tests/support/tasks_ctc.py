"""Speech to text by connectionist temporal classification (Graves et al. 2006), as a task of its own."""

from __future__ import annotations

import io
import wave
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunesmith.errors import DataError, ModelError
from tunesmith.recipe import Recipe
from tunesmith.runs.artefact import Artefact
from tunesmith.tasks import hub, labels
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
from tunesmith.tasks.losses import Criterion
from tunesmith.tasks.metrics import weighted_mean

IGNORED = -100
BLANK = 0
"""The output that says nothing: the first of the vocabulary, as in Wav2Vec2's."""


class SpeechToText:
    """Whatever ``AutoModelForCTC`` loads over raw samples. The vocabulary is the characters of the training texts."""

    name = "support.tasks_ctc:SpeechToText"
    pipeline = "automatic-speech-recognition"
    columns: Mapping[str, Column] = {
        "audio": Column("audio", "a WAV file, its bytes, or its samples"),
        "text": Column("text", "what is said", ("text", "sentence", "transcription")),
    }
    target = "text"
    metric = "cer"
    ragged = True
    exact = True

    def check(self, example: Example) -> str | None:
        try:
            if len(_samples(example.get("audio"))) == 0:
                return "audio is empty"
        except DataError as error:
            return str(error)
        if self.target in example and not (isinstance(example[self.target], str) and example[self.target].strip()):
            return "text is missing or empty"
        return None

    def stratum(self, example: Example) -> str | None:
        return None

    def collect(self, examples: Iterable[Example]) -> Stats:
        return {"characters": labels.count(character for e in examples for character in e[self.target])}

    def merge(self, stats: Sequence[Stats]) -> Stats:
        return labels.merge(stats, "characters")

    def freeze(self, stats: Stats, recipe: Recipe) -> State:
        config = hub.load_config(recipe)
        return {
            "vocabulary": ["<blank>", *sorted(stats["characters"])],
            "kernels": list(config.conv_kernel),
            "strides": list(config.conv_stride),
        }

    def load_processor(self, recipe: Recipe | None, source: str | None = None) -> Any:
        from transformers import AutoFeatureExtractor

        return hub.load_processor(AutoFeatureExtractor, recipe, source)

    def admit(self, example: Example, state: State) -> str | None:
        unknown = next((c for c in example.get(self.target) or "" if c not in state["vocabulary"]), None)
        return None if unknown is None else f"character {unknown!r} does not occur in the training data"

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        """``input_values`` float32 ``[samples]``, ``frames`` (outputs of the model), ``labels`` int32 ``[characters]``.

        The length is in frames, which is what a batch costs, not in samples.
        """
        state, extractor = preprocessing.state, preprocessing.processor
        index = {character: i for i, character in enumerate(state["vocabulary"])}
        encoded = []
        for example in examples:
            samples = extractor(_samples(example["audio"]), sampling_rate=extractor.sampling_rate, return_tensors="np")
            values: dict[str, Any] = {"input_values": samples["input_values"][0].astype(np.float32)}
            values["frames"] = frames = _frames(len(values["input_values"]), state)
            text = example.get(self.target)
            if text is not None:
                target = np.array([index.get(character, BLANK) for character in text], dtype=np.int32)
                needed = len(target) + int((target[1:] == target[:-1]).sum())
                if frames < needed:
                    raise DataError(f"text has {len(target)} characters, too many for {frames} frames of sound")
                values["labels"] = target
            encoded.append(Features(values, length=max(frames, 1), count=len(values.get("labels", [0]))))
        return encoded

    def collate(self, features: Sequence[Features], preprocessing: Preprocessing) -> Batch:
        sounds: list[Any] = [one.values["input_values"] for one in features]
        lengths = np.array([len(sound) for sound in sounds])
        padded = np.zeros((len(sounds), lengths.max()), dtype=np.float32)
        for row, sound in enumerate(sounds):
            padded[row, : len(sound)] = sound
        batch: Batch = {
            "input_values": torch.from_numpy(padded),
            "attention_mask": torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)),
            "frames": torch.tensor([int(one.values["frames"]) for one in features]),
        }
        if "labels" in features[0].values:
            given: list[Any] = [torch.from_numpy(np.array(one.values["labels"], dtype=np.int64)) for one in features]
            batch["labels"] = torch.nn.utils.rnn.pad_sequence(given, batch_first=True, padding_value=IGNORED)
        return batch

    def build_model(self, recipe: Recipe, state: State) -> torch.nn.Module:
        from transformers import AutoModelForCTC

        source, size = hub.model_source(recipe), len(state["vocabulary"])
        config = hub.load_config(recipe, vocab_size=size, pad_token_id=BLANK)
        with hub.explained(source), hub.quiet():
            model: torch.nn.Module = AutoModelForCTC.from_pretrained(
                source, config=config, use_safetensors=True, ignore_mismatched_sizes=True
            )
        return model

    def outline(self, recipe: Recipe, state: State) -> torch.nn.Module:
        from transformers import AutoModelForCTC

        config = hub.load_config(recipe, vocab_size=len(state["vocabulary"]), pad_token_id=BLANK)
        return hub.outlined(lambda: AutoModelForCTC.from_config(config), hub.model_source(recipe))

    def load_model(self, folder: str) -> torch.nn.Module:
        from transformers import AutoModelForCTC

        return hub.load_saved(AutoModelForCTC, folder)

    def load_base(self, recipe: Recipe, state: State) -> torch.nn.Module | None:
        """The base where it was fine-tuned for the same characters."""
        source = hub.model_source(recipe)
        try:
            own = Artefact.read(source).state
        except ModelError:
            return None
        return self.load_model(source) if own["vocabulary"] == state["vocabulary"] else None

    def classes_of(self, features: Sequence[Features], state: State) -> np.ndarray | None:
        return None

    def loss(self, model: torch.nn.Module, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, int]:
        """Summed over the texts; the unit is a character."""
        chances = _log_chances(model, batch)
        return _losses(chances, batch).sum(), int((batch["labels"] != IGNORED).sum())

    def answers(self, model: torch.nn.Module, batch: Batch, preprocessing: Preprocessing) -> list[Answer]:
        """The best character of each frame, repetitions and blanks left out."""
        chances = _log_chances(model, batch)
        best, said = (part.cpu() for part in chances.max(-1))
        vocabulary = preprocessing.state["vocabulary"]
        found: list[Answer] = []
        for row, frames in enumerate(batch["frames"].tolist()):
            characters = torch.unique_consecutive(said[row, :frames]).tolist()
            text = "".join(vocabulary[i] for i in characters if i != BLANK)
            found.append({"text": text, "confidence": float(best[row, :frames].mean().exp())})
        if "labels" in batch:
            for answer, loss in zip(found, _losses(chances, batch).tolist(), strict=True):
                answer["loss"] = loss
        return found

    def score(self, answer: Answer, example: Example, state: State) -> Record:
        reference, said = str(example.get(self.target) or ""), answer["text"]
        return {
            "reference": reference,
            "prediction": said,
            "correct": reference == said,
            "confidence": answer["confidence"],
            "loss": float(answer.get("loss", 0.0)),
            "words": len(reference.split()),
            "word_errors": edits(reference.split(), said.split()),
            "characters": len(reference),
            "character_errors": edits(reference, said),
        }

    def aggregate(self, records: pa.Table, state: State, weights: np.ndarray | None = None) -> Metrics:
        values = {name: records[name].to_numpy() for name in ("loss", "words", "word_errors", "characters", "character_errors")}
        return {
            "loss": weighted_mean(values["loss"], weights, per=values["characters"]),
            "wer": weighted_mean(values["word_errors"], weights, per=values["words"]),
            "cer": weighted_mean(values["character_errors"], weights, per=values["characters"]),
        }

    def majority(self, train: Iterable[Example], state: State) -> Answer | None:
        """The most frequent text: what can be said without listening."""
        (text, _), *_ = Counter(str(example[self.target]) for example in train).most_common(1)
        return {"text": text, "confidence": 1.0}

    def charts(self, records: pa.Table, state: State) -> list[Chart]:
        return []

    def signature(self, state: State) -> Signature:
        return Signature(
            inputs=(TensorSpec("audio", "FP32", (-1, -1)),),
            outputs=(TensorSpec("text", "BYTES", (-1,)), TensorSpec("confidence", "FP32", (-1,))),
        )


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, mine in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, theirs in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (mine != theirs))
    return row[-1]


def _log_chances(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """``[batch, frames, characters]``."""
    logits: torch.Tensor = model(input_values=batch["input_values"], attention_mask=batch["attention_mask"]).logits
    return logits.float().log_softmax(-1)


def _losses(chances: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The loss of each text ``[batch]``."""
    target = batch["labels"]
    return torch.nn.functional.ctc_loss(
        chances.transpose(0, 1), target.clamp(min=0), batch["frames"], (target != IGNORED).sum(-1), BLANK, reduction="none"
    )


def _frames(samples: int, state: State) -> int:
    """Outputs that the model's convolutions make of so many samples."""
    for kernel, stride in zip(state["kernels"], state["strides"], strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _samples(value: Any) -> np.ndarray:
    """Samples between -1 and 1, float32 ``[samples]``. Raises :class:`DataError`."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32)
    if isinstance(value, str):
        try:
            value = Path(value).read_bytes()
        except OSError as error:
            raise DataError(f"audio is not there: {error.filename}") from error
    if not isinstance(value, bytes):
        raise DataError("audio is missing")
    try:
        with wave.open(io.BytesIO(value)) as sound:
            raw = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"audio is unreadable: {error}") from error
    return np.frombuffer(raw, dtype="<i2").astype(np.float32) / 32768
