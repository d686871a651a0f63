"""Images into one class of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError
from tunesmith.recipe import augment
from tunesmith.tasks import classes, hub, images, labels
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


class ImageClassification:
    """ResNet, ViT, and whatever else ``AutoModelForImageClassification`` loads."""

    name = "image-classification"
    pipeline = "image-classification"
    columns: Mapping[str, Column] = {
        "image": Column("image", "the image: a path, or its bytes", ("image", "file_name", "file", "path", "img")),
        "label": Column("label", "its class", ("label", "class", "target", "category")),
    }
    target = "label"
    metric = "accuracy"
    ragged = False
    exact = True
    augmentations = augment.IMAGES

    def check(self, example: Example) -> str | None:
        """An image that decodes; a label."""
        if self.target in example and labels.label_name(example[self.target]) is None:
            return "label is missing"
        try:
            images.open_image(example.get("image"))
        except DataError as error:
            return str(error)
        return None

    def stratum(self, example: Example) -> str | None:
        """The label."""
        return labels.label_name(example.get(self.target))

    def collect(self, examples: Iterable[Example]) -> Stats:
        """How often each label stands there."""
        return {"labels": labels.count(name for e in examples if (name := labels.label_name(e.get(self.target))) is not None)}

    def merge(self, stats: Sequence[Stats]) -> Stats:
        """Counts added up."""
        return labels.merge(stats)

    def freeze(self, stats: Stats, recipe: Recipe) -> State:
        """Labels, and how pixels are stored and finished."""
        return {**labels.frozen(stats["labels"], recipe), **images.freeze(self.load_processor(recipe))}

    def load_processor(self, recipe: Recipe | None, source: str | None = None) -> Any:
        """The image processor, with the recipe's size."""
        from transformers import AutoImageProcessor

        processor = hub.load_processor(AutoImageProcessor, recipe, source)
        if recipe is not None and recipe.data.image_size is not None:
            side = recipe.data.image_size
            processor.size = type(processor)(size={"height": side, "width": side}).size
            if getattr(processor, "do_center_crop", False):
                processor.crop_size = processor.size
        return processor

    def admit(self, example: Example, state: State) -> str | None:
        """A label that training has."""
        name = labels.label_name(example.get(self.target))
        return labels.unknown([name] if name is not None else [], state)

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        """``pixel_values`` ``[channels, height, width]``, and ``labels``."""
        pixels = images.encode([example["image"] for example in examples], preprocessing.processor, preprocessing.state)
        encoded = []
        for example, one in zip(examples, pixels, strict=True):
            values: dict[str, Any] = {"pixel_values": one}
            target = classes.encode_target(example.get(self.target), preprocessing.state)
            if target is not None:
                values["labels"] = target
            encoded.append(Features(values))
        return encoded

    def collate(self, features: Sequence[Features], preprocessing: Preprocessing) -> Batch:
        """``pixel_values`` float32 ``[batch, channels, height, width]`` and ``labels`` int64 ``[batch]``."""
        pixels: list[Any] = [f.values["pixel_values"] for f in features]
        batch: Batch = {"pixel_values": images.batch(pixels, preprocessing.state)}
        if "labels" in features[0].values:
            batch["labels"] = classes.targets([f.values["labels"] for f in features], preprocessing.state)
        return batch

    def augment(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> Batch:
        """As :meth:`collate`, augmented; joined examples bring ``mixed_labels`` and ``mix_share`` float32 ``[batch]``."""
        from tunesmith.tasks.augment.pictures import pictures

        made, state = pictures(source, indices, preprocessing.state, augmentation), preprocessing.state
        batch: Batch = {"pixel_values": images.finish(made.images, state)}
        if made.labels:
            batch["labels"] = classes.targets(made.labels, state)
        if made.mixed_labels:
            batch |= {"mixed_labels": classes.targets(made.mixed_labels, state), "mix_share": made.mix_share}
        return batch

    def augmented(
        self, source: Source, indices: Sequence[int], preprocessing: Preprocessing, augmentation: Augmentation
    ) -> list[dict[str, Any]]:
        """``image`` uint8 ``[height, width, channels]`` and ``label``, both labels with their shares where two are joined."""
        from tunesmith.tasks.augment.pictures import pictures

        known = preprocessing.state["labels"]
        made = pictures(source, indices, preprocessing.state, augmentation)
        pixels = made.images.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        shown = [{"image": image, "label": known[label]} for image, label in zip(pixels, made.labels, strict=True)]
        for row, other in enumerate(made.mixed_labels):
            share = float(made.mix_share[row])
            if share < 1:
                shown[row]["label"] += f" {share:.0%} + {known[other]} {1 - share:.0%}"
        return shown

    def build_model(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The base with one output for each label."""
        from transformers import AutoModelForImageClassification

        return hub.build_classifier(AutoModelForImageClassification, recipe, state["labels"])

    def outline(self, recipe: Recipe, state: State) -> torch.nn.Module:
        """The same without weights."""
        from transformers import AutoModelForImageClassification

        return hub.outline_classifier(AutoModelForImageClassification, recipe, state["labels"])

    def load_model(self, folder: str) -> torch.nn.Module:
        """The saved model."""
        from transformers import AutoModelForImageClassification

        return hub.load_saved(AutoModelForImageClassification, folder)

    def load_base(self, recipe: Recipe, state: State) -> torch.nn.Module | None:
        """The base with its own head, where that answers with the same labels."""
        from transformers import AutoModelForImageClassification

        return hub.load_base(AutoModelForImageClassification, recipe, state["labels"])

    def classes_of(self, features: Sequence[Features], state: State) -> np.ndarray | None:
        """Its class."""
        return classes.classes_of(features, state)

    def loss(self, model: torch.nn.Module, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, int]:
        """The criterion, summed over the examples."""
        logits = model(pixel_values=batch["pixel_values"]).logits
        return classes.loss(logits, batch, criterion), len(logits)

    def answers(self, model: torch.nn.Module, batch: Batch, preprocessing: Preprocessing) -> list[Answer]:
        """Label and probabilities of each image."""
        return classes.answers(model(pixel_values=batch["pixel_values"]).logits, preprocessing.state)

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
        """Encoded images in; label and probabilities out."""
        return Signature(
            inputs=(TensorSpec("image", "BYTES", (-1,)),),
            outputs=(TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP32", (-1, len(state["labels"])))),
        )
