"""The section on augmentation: there only where something is augmented, and safe whatever the data says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tunesmith import storage
from tunesmith.evaluation.results import Evaluation
from tunesmith.report.augmentation import section
from tunesmith.runs import Run
from tunesmith.tasks.augment import SAMPLES

pytestmark = pytest.mark.unit

PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
def augmenting(judged: tuple[Run, Evaluation], tmp_path: Path) -> tuple[Run, Evaluation]:
    """A copy of the judged run whose recipe augments."""
    import shutil

    run, found = judged
    folder = tmp_path / run.name
    shutil.copytree(run.path, folder)
    recipe = folder / "recipe.yaml"
    values = yaml.safe_load(recipe.read_text())
    values["data"]["augment"] = [{"name": "rotation", "degrees": 15}, {"name": "hflip", "p": 0.25}]
    recipe.write_text(yaml.safe_dump(values))
    return Run.open(str(folder)), found


def test_there_is_none_where_nothing_is_augmented(judged: tuple[Run, Evaluation]) -> None:
    assert section(*judged) is None


def test_originals_and_variants_stand_side_by_side(augmenting: tuple[Run, Evaluation]) -> None:
    run, found = augmenting
    one = {"image": PIXEL, "label": "ne"}
    storage.write_json(run.file(SAMPLES), [{"original": one, "variants": [one] * 6}] * 4)
    made = section(run, found)
    assert made is not None
    assert made.title == "Augmentation"
    assert made.html.count("<img ") == 4 * 7
    assert made.html.count("as it is") == 4
    assert made.html.count("epoch 6") == 4
    assert "<b>rotation</b> (degrees 15), <b>hflip</b> (p 0.25)" in made.html


def test_text_from_the_data_cannot_become_markup(augmenting: tuple[Run, Evaluation]) -> None:
    run, found = augmenting
    evil = '<script>"x"</script>'
    storage.write_json(run.file(SAMPLES), [{"original": {"text": evil, "tokens": [evil]}, "variants": [{"text": evil}]}])
    made = section(run, found)
    assert made is not None
    assert "<script" not in made.html
    assert made.html.count("&lt;script&gt;") == 3


def test_a_run_without_samples_says_what_it_does(augmenting: tuple[Run, Evaluation]) -> None:
    made = section(*augmenting)
    assert made is not None
    assert "rotation" in made.html
    assert "<img" not in made.html
