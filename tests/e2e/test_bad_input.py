"""Every mistake a user can make is told with what was found, where, and the fix; exit code 2, and nothing is left behind."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from support.data import pictures, texts
from support.models import tiny_bert, tiny_resnet
from tunesmith import storage
from tunesmith.cli import main
from tunesmith.data.prepare import prepare
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks import load_task

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROWS = texts(60)
Refused = Callable[..., str]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def changed(row: int, **values: Any) -> list[dict[str, Any]]:
    """The rows, one of them with other values."""
    return [{**one, **values} if index == row else one for index, one in enumerate(ROWS)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base`` without a head, ``three`` that answers with other classes, ``images`` for images."""
    folder = tmp_path_factory.mktemp("models")
    tiny_bert(folder / "base")
    tiny_bert(folder / "three", labels=["good", "bad", "neither"])
    tiny_resnet(folder / "images")
    return folder


@pytest.fixture
def project(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user whose recipe and data are sound."""
    write_csv(tmp_path / "reviews.csv", ROWS)
    recipe = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"model_name_or_path": str(models / "base")},
        "data": {"train": "reviews.csv"},
        "training": {"num_train_epochs": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Trains in this process (or another verb), where it must be refused; returns the message.

    No run is left, and Ray is not started.
    """

    def call(*arguments: str, verb: str = "train", with_ray: bool = False, prepared: bool = False) -> str:
        before = set(run_folders(project / "runs"))
        with pytest.raises(SystemExit) as ended:
            main([verb, "recipe.yaml", *arguments])
        said = capsys.readouterr()
        output = said.out + said.err
        assert ended.value.code == 2, output
        assert "Traceback" not in output
        assert output.count("error:") == 1
        assert with_ray or "Starting Ray" not in output
        assert set(run_folders(project / "runs")) == before, "a run was left behind"
        cache = project / "runs" / ".cache"
        assert with_ray or bool(list(cache.glob("*/manifest.json"))) == prepared, "prepared data was left behind"
        assert not list(cache.glob(".*.tmp"))
        return output.partition("error: ")[2]

    return call


def run_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def test_mistyped_keys_and_wrong_types_are_listed_together(project: Path, refused: Refused) -> None:
    text = (project / "recipe.yaml").read_text()
    (project / "recipe.yaml").write_text(text.replace("num_train_epochs: 1", "num_train_epochs: many\n  lerning_rate: 0.1"))

    said = refused("training.seed=x")

    assert "3 mistakes in the recipe" in said
    assert re.search(r"recipe\.yaml:\d+: training\.lerning_rate: .*\n\s+→ did you mean training\.learning_rate\?", said)
    assert re.search(r"recipe\.yaml:\d+: training\.num_train_epochs: found 'many'", said)
    assert re.search(r"command line: training\.seed: found 'x'", said)


def test_a_missing_file_is_named_with_its_neighbours(project: Path, refused: Refused) -> None:
    said = refused("data.train=review.csv")

    assert f"data.train: {project}/review.csv does not exist" in said
    assert "→ correct the path" in said
    assert "reviews.csv" in said


def test_a_missing_recipe_is_named_with_those_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "recip.yaml"])
    assert "there is no recipe recip.yaml" in (said := capsys.readouterr().err)
    assert "recipe.yaml" in said


@pytest.mark.parametrize(("content", "what"), [("", "is empty"), ("text,label\n", "has no rows")])
def test_an_empty_file(project: Path, refused: Refused, content: str, what: str) -> None:
    (project / "reviews.csv").write_text(content)

    said = refused()

    assert f"{project}/reviews.csv {what}" in said
    assert "→" in said


def test_a_label_in_test_that_train_lacks(project: Path, refused: Refused) -> None:
    others = [{**row, "text": f"{row['text']} word{index}"} for index, row in enumerate(ROWS[:9])]
    write_csv(project / "test.csv", [*others, {"text": "word1 word2", "label": "hihg"}])

    said = refused("data.test=test.csv")

    assert "1 of 70 rows cannot be used" in said
    assert f"{project}/test.csv, row 11 (test): label 'hihg' is not among the 2 labels of the training data" in said
    assert "did you mean 'high'?" in said
    assert "data.on_bad_row" in said


def test_one_class_only(project: Path, refused: Refused) -> None:
    write_csv(project / "reviews.csv", [{**row, "label": "low"} for row in ROWS])

    said = refused()

    assert "training data has only the class 'low' (48 rows)" in said
    assert "At least two are needed" in said


@pytest.mark.parametrize(("text", "what"), [("", "text is missing"), ("  ", "text is empty")])
def test_a_row_without_text_is_listed(project: Path, refused: Refused, text: str, what: str) -> None:
    write_csv(project / "reviews.csv", changed(7, text=text))

    said = refused()

    assert "1 of 60 rows cannot be used" in said
    assert f"{project}/reviews.csv, row 9 (train): {what}" in said
    assert "→ Mend these rows, or set data.on_bad_row to drop or quarantine" in said


def test_a_row_with_nan_for_text_is_listed(project: Path, refused: Refused) -> None:
    lines = [
        json.dumps({"text": float("nan") if index == 3 else row["text"], "label": row["label"]})
        for index, row in enumerate(ROWS)
    ]
    (project / "reviews.jsonl").write_text("\n".join(lines))

    said = refused("data.train=reviews.jsonl")

    assert "1 of 60 rows cannot be used" in said
    assert f"{project}/reviews.jsonl, row 4 (train): text is missing" in said


def test_a_corrupt_image_is_listed(project: Path, models: Path, refused: Refused) -> None:
    folder = project / "images"
    for index, row in enumerate(pictures(24)):
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(row["image"]).save(folder / row["label"] / f"{index}.png")
    cut, emptied = sorted(folder.rglob("*.png"))[4:6]
    cut.write_bytes(cut.read_bytes()[:90])
    emptied.write_bytes(b"")
    values = yaml.safe_load((project / "recipe.yaml").read_text())
    values |= {"task": "image-classification", "model": {"model_name_or_path": str(models / "images")}}
    (project / "recipe.yaml").write_text(yaml.safe_dump(values))

    said = refused("data.train=images")

    assert "2 of 24 rows cannot be used" in said
    assert re.search(rf"{cut}, row \d+ \(train\): image is unreadable", said)
    assert re.search(rf"{emptied}, row \d+ \(train\): image is empty \(0 bytes\)", said)


def test_a_model_folder_without_config(project: Path, models: Path, refused: Refused) -> None:
    (project / "model").mkdir()
    shutil.copy(models / "base" / "model.safetensors", project / "model")

    said = refused("model.model_name_or_path=model")

    assert f"{project}/model holds no config.json" in said
    assert "→ name a folder that `save_pretrained` wrote" in said


def test_a_model_of_another_kind(models: Path, refused: Refused) -> None:
    said = refused(f"model.model_name_or_path={models / 'images'}")

    assert f"cannot load the processor '{models / 'images'}'" in said


def test_a_checkpoint_of_other_classes(models: Path, refused: Refused) -> None:
    said = refused(f"model.model_name_or_path={models / 'three'}", "model.ignore_mismatched_sizes=false")

    assert "answers with 3 classes ('good', 'bad', 'neither'), the data has 2 classes ('high', 'low')" in said
    assert "model.ignore_mismatched_sizes: true" in said


def test_a_column_that_is_not_there(refused: Refused) -> None:
    said = refused("data.columns={text: review}")

    assert "has no column 'review'" in said
    assert "Its columns are 'text', 'label'" in said


@pytest.mark.parametrize("option", ["--run", "training.output_dir"])
def test_an_unwritable_run_folder(project: Path, refused: Refused, option: str) -> None:
    (project / "file").write_text("")
    place = str(project / "file" / "runs")
    said = refused(*(["--run", place] if option == "--run" else [f"{option}={place}"]))

    assert f"{place} cannot be written" in said
    assert f"{project}/file is a file" in said or "not a folder" in said


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("only root may mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # prepared data is still mapped


def test_a_full_disk(tiny_disk: Path, refused: Refused) -> None:
    (tiny_disk / "other").write_bytes(b"x" * 260_000)

    said = refused(f"training.output_dir={tiny_disk / 'runs'}")

    assert_full(said, tiny_disk)
    assert run_folders(tiny_disk / "runs") == []


@pytest.mark.usefixtures("ray_local")
def test_a_disk_that_fills_up_in_training(tiny_disk: Path, refused: Refused) -> None:
    (tiny_disk / "other").write_bytes(b"x" * 170_000)

    said = refused(f"training.output_dir={tiny_disk / 'runs'}", with_ray=True)

    assert_full(said, tiny_disk)


def assert_full(said: str, disk: Path) -> None:
    assert f"{disk}/runs" in said
    assert "cannot be written: the disk is full (" in said
    assert "MiB are free" in said
    assert "→ Free some space, or choose another place" in said


def test_a_run_folder_of_another_recipe(project: Path, refused: Refused) -> None:
    run = Run.create(Recipe.load("recipe.yaml"), ["tunesmith", "train"], str(project / "runs" / "mine"))
    run.set_status("interrupted")
    run.lock().release()

    said = refused("training.learning_rate=1e-3", "--run", "runs/mine")

    assert "runs/mine is a run of another recipe:" in said
    assert "training.learning_rate: 5e-05 in the run, 0.001 now" in said
    assert "add --force to start this run over" in said
    assert Run.open(project / "runs" / "mine").status == "interrupted"


def test_force_does_not_lose_a_run_to_bad_data(project: Path, refused: Refused) -> None:
    run = Run.create(Recipe.load("recipe.yaml"), ["tunesmith", "train"], str(project / "runs" / "mine"))
    storage.write_text(run.file("README.md"), "precious")
    run.set_status("done")
    run.lock().release()
    (project / "bad.csv").write_text("text,label\n")

    said = refused("data.train=bad.csv", "--run", "runs/mine", "--force")

    assert "has no rows" in said
    assert storage.read_text(run.file("README.md")) == "precious"


def test_force_without_a_run_is_refused(refused: Refused) -> None:
    assert "--force goes with --run DIR" in refused("--force")


@pytest.mark.parametrize(
    ("arguments", "asked", "fix"),
    [
        (["training.num_workers=3"], "asked: 3 workers × {CPU: 1}", "training.num_workers=2"),
        (["training.use_gpu=true"], "asked: 1 worker × {CPU: 1, GPU: 1}", "training.num_workers=1 training.use_gpu=false"),
    ],
)
@pytest.mark.usefixtures("ray_local")
def test_more_than_the_cluster_has(refused: Refused, arguments: list[str], asked: str, fix: str) -> None:
    begun = time.monotonic()

    said = refused(*arguments, with_ray=True)

    assert time.monotonic() - begun < 30
    assert "the cluster is too small for this run" in said
    assert asked in said
    assert re.search(r"there: 1 node, room for \d", said)
    assert f"→ {fix}" in said


def test_more_workers_than_rows(refused: Refused) -> None:
    said = refused("training.num_workers=64", prepared=True)

    assert "48 training examples cannot fill 64 workers × 1 accumulation step: an update needs 64" in said
    assert "→ Lower training.num_workers" in said


def test_bad_rows_are_dropped_or_kept_aside_where_that_is_wanted(project: Path) -> None:
    write_csv(project / "reviews.csv", changed(7, text=""))
    for policy, expected in (("drop", None), ("quarantine", 9)):
        recipe = Recipe.load("recipe.yaml", [f"data.on_bad_row={policy}"]).resolved()
        prepared = prepare(recipe, load_task(recipe.task), output_dir="runs")
        assert sum(len(split) for split in prepared.splits.values()) == 59
        assert prepared.manifest["problems"]["by_reason"] == {"text is missing": 1}
        written = prepared.quarantine
        assert (written is None) == (expected is None)
        if written is not None:
            (line,) = map(json.loads, written.read_text().splitlines())
            assert (line["row"], line["reason"]) == (expected, "text is missing")


def test_test_rows_that_also_stand_in_training(project: Path, refused: Refused) -> None:
    write_csv(project / "test.csv", ROWS[:5])

    said = refused("data.test=test.csv")

    assert "5 of 5 rows also stand in data.train, exactly" in said
    assert "data.leakage: move" in said


RATE = "search.space={training.learning_rate: {loguniform: [0.0001, 0.01]}}"


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (
            "search.metric=f2_macro",
            "search.metric: the task has no metric 'f2_macro'\n    → Did you mean 'f1_macro'? There are: loss, ",
        ),
        (
            "search={objectives: [f1_macro, latency], scheduler: none}",
            "search.objectives: the task has no metric 'latency'\n    → Did you mean 'latency_ms'? ",
        ),
        ("training.metric_for_best_model=acuracy", "training.metric_for_best_model: the task has no metric 'acuracy'"),
    ],
)
def test_a_metric_that_no_trial_would_report(refused: Refused, search: str, said: str) -> None:
    assert said in refused(RATE, search, verb="tune", prepared=True)


def test_a_search_without_anything_to_search(refused: Refused) -> None:
    assert "the recipe searches nothing\n    → Add search.space" in refused(verb="tune")


def test_a_model_that_is_searched_and_is_not_there(project: Path, models: Path, refused: Refused) -> None:
    said = refused(f"search.space={{model.model_name_or_path: {{choice: [{models}/base, {models}/bse]}}}}", verb="tune")
    assert f"{models}/bse does not exist" in said
