"""Boxes around objects, as a task of its own: what the Protocol must carry beside classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks import hub, images, labels
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

NOTHING = -100
"""Class of the places beyond an image's boxes."""
OVERLAP = 0.5
"""Intersection over union from which a box is found."""


class Detection:
    """Whatever ``AutoModelForObjectDetection`` loads. ``objects`` is ``{"bbox": [[x, y, w, h], …], "category": […]}``."""

    name = "support.tasks_detection:Detection"
    pipeline = "object-detection"
    columns: Mapping[str, Column] = {
        "image": Column("image", "the image"),
        "objects": Column("boxes", "its boxes and their classes"),
    }
    target = "objects"
    metric = "ap50"
    ragged = False
    exact = False

    def check(self, example: Example) -> str | None:
        try:
            images.open_image(example.get("image"))
        except DataError as error:
            return str(error)
        if self.target in example:
            objects = example[self.target]
            if not objects or len(objects["bbox"]) != len(objects["category"]):
                return "objects are missing, or not as many boxes as categories"
            if any(w <= 0 or h <= 0 for _, _, w, h in objects["bbox"]):
                return "a box is empty"
        return None

    def stratum(self, example: Example) -> str | None:
        return None

    def collect(self, examples: Iterable[Example]) -> Stats:
        return {"labels": labels.count(str(name) for e in examples for name in e[self.target]["category"])}

    def merge(self, stats: Sequence[Stats]) -> Stats:
        return labels.merge(stats)

    def freeze(self, stats: Stats, recipe: Recipe) -> State:
        return {"labels": labels.freeze(stats["labels"], recipe), **images.freeze(self.load_processor(recipe))}

    def load_processor(self, recipe: Recipe | None, source: str | None = None) -> Any:
        from transformers import AutoImageProcessor

        return hub.load_processor(AutoImageProcessor, recipe, source)

    def admit(self, example: Example, state: State) -> str | None:
        return labels.unknown([str(name) for name in example[self.target]["category"]], state)

    def encode(self, examples: Sequence[Example], preprocessing: Preprocessing) -> list[Features]:
        """``pixel_values``, ``size`` (height, width), ``boxes`` ``[k, 4]`` (middle and size, in shares of it), ``labels``."""
        opened = [images.open_image(example["image"]) for example in examples]
        pixels = images.encode(opened, preprocessing.processor, preprocessing.state)
        encoded = []
        for example, image, one in zip(examples, opened, pixels, strict=True):
            values: dict[str, Any] = {"pixel_values": one, "size": np.array([image.height, image.width], np.int32)}
            objects = example.get(self.target)
            if objects is not None:
                corner = np.asarray(objects["bbox"], dtype=np.float32).reshape(-1, 4)
                whole = np.array([image.width, image.height], np.float32)
                middle = corner[:, :2] + corner[:, 2:] / 2
                values["boxes"] = np.concatenate([middle / whole, corner[:, 2:] / whole], axis=1)
                known = preprocessing.state["labels"]
                values["labels"] = np.array([known.index(str(name)) for name in objects["category"]], np.int32)
            encoded.append(Features(values))
        return encoded

    def collate(self, features: Sequence[Features], preprocessing: Preprocessing) -> Batch:
        """Boxes and classes are padded to the most of any image, so that a batch is tensors and nothing else."""
        pixels: list[Any] = [one.values["pixel_values"] for one in features]
        batch: Batch = {
            "pixel_values": images.batch(pixels, preprocessing.state),
            "sizes": torch.from_numpy(np.stack([one.values["size"] for one in features])),
        }
        if "labels" in features[0].values:
            given: list[Any] = [(one.values["boxes"], one.values["labels"]) for one in features]
            most = max(len(kinds) for _, kinds in given)
            boxes = np.zeros((len(given), most, 4), np.float32)
            kinds_of = np.full((len(given), most), NOTHING, np.int64)
            for row, (places, kinds) in enumerate(given):
                boxes[row, : len(places)], kinds_of[row, : len(kinds)] = places, kinds
            batch |= {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(kinds_of)}
        return batch

    def build_model(self, recipe: Recipe, state: State) -> torch.nn.Module:
        from transformers import AutoModelForObjectDetection

        return hub.build_classifier(AutoModelForObjectDetection, recipe, state["labels"])

    def outline(self, recipe: Recipe, state: State) -> torch.nn.Module:
        from transformers import AutoModelForObjectDetection

        return hub.outline_classifier(AutoModelForObjectDetection, recipe, state["labels"])

    def load_model(self, folder: str) -> torch.nn.Module:
        from transformers import AutoModelForObjectDetection

        return hub.load_saved(AutoModelForObjectDetection, folder)

    def load_base(self, recipe: Recipe, state: State) -> torch.nn.Module | None:
        from transformers import AutoModelForObjectDetection

        return hub.load_base(AutoModelForObjectDetection, recipe, state["labels"])

    def classes_of(self, features: Sequence[Features], state: State) -> np.ndarray | None:
        return None

    def loss(self, model: torch.nn.Module, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, int]:
        """The model's own loss, which is an average over the batch's boxes."""
        size = len(batch["pixel_values"])
        return model(pixel_values=batch["pixel_values"], labels=_targets(batch)).loss * size, size

    def answers(self, model: torch.nn.Module, batch: Batch, preprocessing: Preprocessing) -> list[Answer]:
        """``boxes`` (left, top, right, bottom, in pixels), ``labels`` and ``scores``, as many as the model has queries."""
        outputs = model(pixel_values=batch["pixel_values"])
        scores, kinds = outputs.logits.float().softmax(-1)[..., :-1].max(-1)
        height, width = batch["sizes"].to(scores.device).unbind(-1)
        scale = torch.stack([width, height, width, height], dim=-1)[:, None]
        boxes = _corners(outputs.pred_boxes.float()) * scale
        known = preprocessing.state["labels"]
        found: list[Answer] = [
            {"boxes": places.tolist(), "labels": [known[i] for i in indices.tolist()], "scores": sure.tolist()}
            for places, indices, sure in zip(boxes.cpu(), kinds.cpu(), scores.cpu(), strict=True)
        ]
        if "labels" in batch:
            for row, target in enumerate(_targets(batch)):
                found[row]["loss"] = _loss_of_one(model, outputs.logits[row], outputs.pred_boxes[row], target)
        return found

    def score(self, answer: Answer, example: Example, state: State) -> Record:
        """Which of the answer's boxes hit one of the example's; lists may be empty, so they are arrays that know their type."""
        objects = example.get(self.target) or {"bbox": [], "category": []}
        corner = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
        wanted = np.concatenate([corner[:, :2], corner[:, :2] + corner[:, 2:]], axis=1)
        kinds = [str(name) for name in objects["category"]]
        order = np.argsort(-np.asarray(answer["scores"]), kind="stable")
        hits, free = [], set(range(len(kinds)))
        for place in order:
            near = max(
                (k for k in free if kinds[k] == answer["labels"][place]),
                key=lambda k: _overlap(answer["boxes"][place], wanted[k]),
                default=None,
            )
            hit = near is not None and _overlap(answer["boxes"][place], wanted[near]) >= OVERLAP
            free -= {near} if hit and near is not None else set()
            hits.append(hit)
        return {
            "reference": np.asarray(kinds, dtype=str),
            "hits": np.asarray(hits, dtype=bool),
            "scores": np.asarray(answer["scores"], dtype=np.float32)[order],
            "correct": not free,
            "confidence": float(max(answer["scores"], default=0.0)),
            "loss": float(answer.get("loss", 0.0)),
        }

    def aggregate(self, records: pa.Table, state: State, weights: np.ndarray | None = None) -> Metrics:
        """Average precision over all classes at an overlap of one half; recall of whatever score."""
        each = np.ones(len(records)) if weights is None else np.asarray(weights, dtype=np.float64)
        sizes = [len(row) for row in records["hits"].to_pylist()]
        hits = np.concatenate([np.asarray(row, dtype=bool) for row in records["hits"].to_pylist()])
        scores = np.concatenate([np.asarray(row, dtype=np.float64) for row in records["scores"].to_pylist()])
        weight = np.repeat(each, sizes)
        order = np.argsort(-scores, kind="stable")
        found, seen = np.cumsum((weight * hits)[order]), np.cumsum(weight[order])
        wanted = float((each * [len(row) for row in records["reference"].to_pylist()]).sum())
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        return {
            "loss": weighted_mean(records["loss"].to_numpy(), weights),
            "ap50": float((precision * (weight * hits)[order]).sum() / wanted) if wanted else float("nan"),
            "recall": float(found[-1] / wanted) if wanted and len(found) else float("nan"),
        }

    def majority(self, train: Iterable[Example], state: State) -> Answer | None:
        return None

    def charts(self, records: pa.Table, state: State) -> list[Chart]:
        return []

    def signature(self, state: State) -> Signature:
        return Signature(
            inputs=(TensorSpec("image", "BYTES", (-1,)),),
            outputs=(
                TensorSpec("boxes", "FP32", (-1, -1, 4)),
                TensorSpec("labels", "BYTES", (-1, -1)),
                TensorSpec("scores", "FP32", (-1, -1)),
            ),
        )


def _targets(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """Boxes and classes of each image, as DETR's family takes them."""
    held = batch["labels"] != NOTHING
    return [
        {"class_labels": kinds[there], "boxes": boxes[there]}
        for kinds, boxes, there in zip(batch["labels"], batch["boxes"], held, strict=True)
    ]


def _loss_of_one(model: Any, logits: torch.Tensor, boxes: torch.Tensor, target: dict[str, torch.Tensor]) -> float:
    """The loss of one image alone. (The model's own would wait for the other ranks, which may have fewer batches.)"""
    from transformers.loss import loss_for_object_detection as theirs

    config, make_criterion = model.config, cast(Any, theirs.ImageLoss)  # untyped
    matcher = theirs.HungarianMatcher(class_cost=config.class_cost, bbox_cost=config.bbox_cost, giou_cost=config.giou_cost)
    criterion = make_criterion(matcher, config.num_labels, config.eos_coefficient, ["labels", "boxes"]).to(logits.device)
    outputs = {"logits": logits[None].float(), "pred_boxes": boxes[None].float()}
    indices = matcher(outputs, [target])
    parts: dict[str, torch.Tensor] = {}
    for name in ("labels", "boxes"):
        parts |= criterion.get_loss(name, outputs, [target], indices, max(1, len(target["boxes"])))
    total = parts["loss_ce"] + config.bbox_loss_coefficient * parts["loss_bbox"]
    return float(total + config.giou_loss_coefficient * parts["loss_giou"])


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    """Middle and size → left, top, right, bottom."""
    middle, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([middle - size / 2, middle + size / 2], dim=-1)


def _overlap(one: Any, other: Any) -> float:
    """Intersection over union of two boxes by their corners."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = float(sides.prod())
    return both / float((a[2:] - a[:2]).clip(0).prod() + (b[2:] - b[:2]).prod() - both)
