"""`make demo`: real images, two Ray workers, a model that was useless before and is good after."""

from __future__ import annotations

import csv
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

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

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
    clean = 539 + 360 + 360 + 898 + 4
    assert len(once) == clean + 305 + 84 + 3, "an image for each digit, and lists of labels and of faults"


def test_the_faults_are_planted_in_the_amounts_that_are_said(tmp_path: Path, shell: Callable[..., str]) -> None:
    shell(ROOT, f"{sys.executable} examples/digits/make_data.py {tmp_path}")
    messy = tmp_path / "messy"
    faults = list(csv.DictReader((messy / "faults.csv").read_text().splitlines()))
    rows = {
        split: {
            row["file_name"]: row["label"] for row in csv.DictReader((messy / split / "metadata.csv").read_text().splitlines())
        }
        for split in ("train", "validation")
    }

    amounts = {"duplicate": 25, "near-duplicate": 25, "conflict": 25, "mislabelled": 45 + 25, "leak": 12, "near-leak": 12}
    assert Counter(fault["fault"] for fault in faults) == amounts
    for fault in faults:
        image, other = (messy / fault["split"] / fault[name] for name in ("row", "of"))
        same_label = rows[fault["split"]][image.name] == rows[fault["split"]].get(other.name)
        if fault["fault"] == "duplicate":
            assert image.read_bytes() == other.read_bytes()
            assert same_label
        if fault["fault"] == "conflict":
            assert image.read_bytes() == other.read_bytes()
            assert not same_label
        if fault["fault"] in ("near-duplicate", "leak", "near-leak"):
            sources = [other] if fault["of"] else list((messy / "train").glob("*.png"))
            exact = any(image.read_bytes() == source.read_bytes() for source in sources)
            assert exact == (fault["fault"] == "leak")


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


def test_the_planted_faults_are_found(demo: Demo) -> None:
    import tunesmith

    found = {
        name: json.loads((demo.comparison / f"{name}-seed42" / "data" / "report.json").read_text())["care"]["known_faults"]
        for name in ("messy", "messy-cleaned", "messy-protected")
    }
    for name, kinds in found.items():
        for kind in ("duplicate", "conflict", "leak"):
            assert (kinds[kind]["precision"], kinds[kind]["recall"]) == (1.0, 1.0), (name, kind)
        for kind in ("near-duplicate", "near-leak"):
            assert kinds[kind]["precision"] == 1.0
            assert kinds[kind]["recall"] >= 0.7
        assert kinds["mislabelled"]["in_first_2k"] >= 0.6
    assert found["messy"]["mislabelled"]["looked_at"] == 70
    assert found["messy-cleaned"]["mislabelled"]["looked_at"] == 45, "those in conflicts are left out before"
    assert "known faults: 25 of 25 duplicates found" in " ".join(demo.output.split())
    run = tunesmith.Run.open(str(demo.comparison / "messy-seed42"))
    assert "Known faults" in Path(run.file("report.html")).read_text(encoding="utf-8")


def test_remedies_help_and_rehearsal_keeps_the_clean_digits(demo: Demo) -> None:
    found = json.loads((demo.comparison / "comparison.json").read_text(encoding="utf-8"))
    messy, cleaned, protected = found["outcomes"]

    assert found["n"] == 360, "all are judged on the clean test digits of the new scanner"
    assert cleaned["differences"]["accuracy"]["high"] > 0, "with few scans cleaning need not help, but it does no clear harm"
    assert protected["metrics"]["accuracy"]["value"] > messy["metrics"]["accuracy"]["value"]
    assert protected["metrics"]["accuracy/clean"]["value"] > 0.9
    assert protected["metrics"]["accuracy/clean"]["value"] > cleaned["metrics"]["accuracy/clean"]["value"]
    assert f"{demo.comparison.name}/comparison.html" in demo.output.replace("\n", "")


def test_the_same_comparison_again_trains_nothing(demo: Demo, shell: Callable[..., str]) -> None:
    verdicts = sorted(demo.comparison.glob("*/metrics.json"))
    before = [path.stat().st_mtime_ns for path in verdicts]
    names = ("messy", "messy-cleaned", "messy-protected")
    recipes = " ".join(f"examples/digits/{name}.yaml" for name in names)

    shell(demo.folder, f"tunesmith compare-recipes {recipes} --out {demo.comparison}")

    assert len(verdicts) == len(names)
    assert [path.stat().st_mtime_ns for path in verdicts] == before


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
