"""What is particular to images: sizes, and the pipeline of Transformers as a peer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.cases import CASES, png
from support.saved import peer, saved
from tunesmith.tasks.image_classification import ImageClassification

pytestmark = pytest.mark.unit

TASK = ImageClassification()


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_pipeline_of_transformers_agrees(name: str, tmp_path: Path) -> None:
    predictor, folder = saved(CASES[name], tmp_path)
    theirs = peer(TASK.pipeline, folder, top_k=4)
    given = [row["image"] for row in CASES[name].rows(8)]
    given.append(np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8))
    answers = predictor.predict([{"image": pixels} for pixels in given])
    for answer, pixels in zip(answers, given, strict=True):
        said = theirs(Image.fromarray(pixels))
        assert answer["label"] == said[0]["label"]
        found = {one["label"]: one["score"] for one in said}
        wanted = [found[label] for label in predictor.preprocessing.state["labels"]]
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-4)
    assert np.std([answer["probabilities"][0] for answer in answers]) > 0.001


def test_the_recipes_size_is_that_of_the_pixels_and_stays_in_the_artefact(tmp_path: Path) -> None:
    predictor, folder = saved(CASES["resnet"], tmp_path, image_size=24)
    (features,) = TASK.encode([{"image": CASES["resnet"].rows(1)[0]["image"]}], predictor.preprocessing)
    assert np.shape(features.values["pixel_values"]) == (3, 24, 24)
    theirs = peer(TASK.pipeline, folder)
    assert dict(theirs.image_processor.size) == {"height": 24, "width": 24}


def test_a_path_bytes_and_pixels_get_the_same_answer(tmp_path: Path) -> None:
    predictor, _ = saved(CASES["vit"], tmp_path)
    pixels = CASES["vit"].rows(1)[0]["image"]
    (tmp_path / "a.png").write_bytes(png(pixels))
    answers = predictor.predict([{"image": pixels}, png(pixels), str(tmp_path / "a.png"), Image.fromarray(pixels)])
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)


def test_pixels_are_stored_in_bytes(tmp_path: Path) -> None:
    predictor, _ = saved(CASES["vit"], tmp_path)
    (features,) = TASK.encode([CASES["vit"].rows(1)[0]], predictor.preprocessing)
    assert str(np.asarray(features.values["pixel_values"]).dtype) == "uint8"
    assert (features.length, features.count) == (1, 1)
