"""`make demo`: real images, two Ray workers, a model that was useless before and is good after."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from conftest import Demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))
    }


def test_the_data_is_the_same_every_time(tmp_path: Path, shell: Callable[..., str]) -> None:
    for name in ("once", "twice"):
        shell(ROOT, f"{sys.executable} examples/digits/make_data.py {tmp_path / name}")

    once = fingerprints(tmp_path / "once")
    assert once == fingerprints(tmp_path / "twice")
    assert len(once) == 539 + 360 + 360 + 898 + 4, "an image for each digit, and four lists of labels"


def test_the_base_model_fails_and_the_fine_tuned_one_does_not(demo: Demo) -> None:
    import tunesmith

    run = tunesmith.Run.open(str(demo.run))

    assert run.status == "done"
    assert run.manifest["workers"] == 2
    assert run.metrics["accuracy"] is not None
    assert run.metrics["accuracy"] > 0.93
    assert run.estimates["accuracy"]["n"] == 360


def test_the_terminal_says_the_verdict_and_where_the_report_is(demo: Demo) -> None:
    assert "accuracy" in demo.output
    assert f"{demo.run.name}/report.html" in demo.output.replace("\n", "")
    assert "Traceback" not in demo.output
    assert "(TrainController" not in demo.output, "Ray's chatter belongs into the run's log"


def test_the_run_folder_holds_everything(demo: Demo) -> None:
    names = {path.name for path in demo.run.iterdir()}

    expected = {
        "recipe.yaml",
        "manifest.json",
        "metrics.jsonl",
        "metrics.json",
        "predictions.parquet",
        "report.html",
        "README.md",
    }
    assert expected | {"model", "checkpoints", "data"} <= names
    for line in (demo.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        assert {"step", "split"} <= json.loads(line).keys()


def test_plain_transformers_loads_the_model_and_agrees_with_the_predictions(demo: Demo) -> None:
    from transformers import pipeline

    classify = pipeline("image-classification", model=str(demo.run / "model"), device="cpu")
    rows = pq.read_table(demo.run / "predictions.parquet").to_pylist()
    folder = demo.folder / "examples" / "digits" / "data" / "test"
    images = sorted(folder.glob("*.png"))

    # The rows are known by what is in them and not by their files: the pairs are compared in order of confidence.
    said = sorted(
        (answer[0]["score"], answer[0]["label"]) for answer in classify([str(image) for image in images], batch_size=32)
    )
    kept = sorted((row["confidence"], row["prediction"]) for row in rows)
    assert len(said) == len(kept) == 360
    assert Counter(label for _, label in said) == Counter(label for _, label in kept)
    assert [score for score, _ in said] == pytest.approx([score for score, _ in kept], abs=1e-4)
