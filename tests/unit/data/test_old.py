"""Old data is prepared with the new data's state, and rows that must not meet are found by their inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.data import pictures, texts
from support.models import tiny_bert, tiny_resnet
from tunesmith.data.old import OldPlaces, input_hashes, prepare_old
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def recipe_for(tmp_path: Path, *, labels: list[str] | None = None, replay: Rows | None = None, retain: Any = None) -> Recipe:
    base = tmp_path / "base"
    if not base.exists():
        tiny_bert(base, labels=labels)
    retention = {name: write(tmp_path / f"{name}.jsonl", rows) for name, rows in (retain or {}).items()}
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(base)},
        "data": {
            "train": write(tmp_path / "train.jsonl", texts(60)),
            "validation": write(tmp_path / "validation.jsonl", texts(20, seed=1)),
            "test": write(tmp_path / "test.jsonl", texts(20, seed=2)),
        },
        "training": {
            "output_dir": str(tmp_path / "runs"),
            "replay": {"data": write(tmp_path / "replay.jsonl", replay)} if replay else {},
        },
        "evaluation": {"retention": {"data": retention} if retention else {}},
    }
    return Recipe.from_dict(values)


def prepared_old(recipe: Recipe) -> tuple[PreparedData, OldPlaces]:
    task = load_task(recipe.task)
    prepared = prepare(recipe, task, output_dir=recipe.training.output_dir)
    return prepared, prepare_old(recipe, task, prepared)


def test_nothing_old_is_nothing(tmp_path: Path) -> None:
    assert prepared_old(recipe_for(tmp_path))[1] == OldPlaces()


def test_replay_and_retention_are_opened_where_the_record_says(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, labels=["high", "low"], replay=texts(30, seed=3), retain={"old": texts(25, seed=4)})
    _, places = prepared_old(recipe)
    again = OldPlaces.from_json(json.loads(json.dumps(places.to_json())))
    assert again.replay is not None
    assert len(again.replay.open()) == again.replay.rows == 30
    assert len(again.retention["old"].open()) == 25
    assert again.retention["old"].by == "score"
    assert again.retention["old"].open().examples()[0]["text"] == texts(25, seed=4)[0]["text"]


def test_where_the_base_answers_with_other_classes_only_drift_can_be_measured(tmp_path: Path) -> None:
    old = [{**row, "label": f"genre {i % 3}"} for i, row in enumerate(texts(24, seed=4))]
    prepared, places = prepared_old(recipe_for(tmp_path, labels=["genre 0", "genre 1", "genre 2"], retain={"genres": old}))
    assert prepared.state["labels"] == ["high", "low"]
    assert places.retention["genres"].by == "drift"
    assert len(places.retention["genres"].open()) == 24


@pytest.mark.parametrize("labels", [["high", "low"], ["genre 0", "genre 1", "genre 2"]])
def test_a_reference_text_without_labels_is_judged_by_drift(labels: list[str], tmp_path: Path) -> None:
    reference = [{"text": row["text"]} for row in texts(24, seed=4)]
    recipe = recipe_for(tmp_path, labels=labels, retain={"text": reference, "scored": texts(20, seed=5)})
    _, places = prepared_old(recipe.override("data.columns={label: label}"))
    assert places.retention["text"].by == "drift"
    split = places.retention["text"].open()
    assert [row["text"] for row in split.examples()] == [row["text"] for row in reference]
    assert all("labels" not in one.values for one in split.features(range(24)))
    assert places.retention["scored"].by == ("score" if "low" in labels else "drift")


@pytest.mark.parametrize("labels", [["high", "low"], ["genre 0", "genre 1", "genre 2"]])
@pytest.mark.parametrize("bare", [False, True])
def test_of_a_folder_with_splits_one_is_taken(labels: list[str], bare: bool, tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    folder.mkdir()
    for name, n, seed in (("train", 12, 4), ("test", 9, 5)):
        write(folder / f"{name}.jsonl", [{k: row[k] for k in ("text", "label")[: 2 - bare]} for row in texts(n, seed=seed)])
    recipe = recipe_for(tmp_path, labels=labels).override(f"evaluation.retention.data={folder}")
    (one,) = prepared_old(recipe)[1].retention.values()
    assert (one.by, one.rows) == ("score" if "low" in labels and not bare else "drift", 9 if "low" in labels else 12)


def test_a_reference_text_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in [*texts(10, seed=4), *texts(60)[:2]]]
    with pytest.raises(DataError, match=r"evaluation\.retention\.data\.old: 2 of its 12 rows also stand in the training"):
        prepared_old(recipe_for(tmp_path, labels=["high", "low"], retain={"old": rows}))
    with pytest.raises(DataError, match=r"evaluation\.retention\.data\.old: .* has no column for the role 'text'"):
        prepared_old(recipe_for(tmp_path, labels=["high", "low"], retain={"old": [{"words": "a"}]}))


@pytest.mark.parametrize(("action", "said"), [("drop", "no row can be used"), ("error", "2 of 2 rows cannot be used")])
def test_a_reference_text_without_a_usable_row_is_refused(action: str, said: str, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, labels=["high", "low"], retain={"old": [{"text": ""}, {"text": " "}]})
    with pytest.raises(DataError, match=rf"(?s)evaluation\.retention\.data\.old: {said}.*row 1: text is empty") as caught:
        prepared_old(recipe.override(f"data.on_bad_row={action}"))
    assert "unlabelled" not in str(caught.value)


@pytest.mark.parametrize("spec", ["old/*.jsonl", "old"])
def test_targets_are_looked_for_in_every_file(spec: str, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write(tmp_path / "old" / "a.jsonl", [{"text": row["text"]} for row in texts(9, seed=4)])
    write(tmp_path / "old" / "b.jsonl", texts(9, seed=5))
    recipe = recipe_for(tmp_path, labels=["high", "low"]).override(f"evaluation.retention.data={tmp_path}/{spec}")
    with pytest.raises(DataError, match=r"evaluation\.retention\.data: .*a\.jsonl has no column for the role 'label'"):
        prepared_old(recipe)


def test_a_few_shot_of_the_new_data_draws_nothing_from_the_old(tmp_path: Path) -> None:
    old = [{**row, "label": f"genre {i % 3}"} for i, row in enumerate(texts(24, seed=4))]
    recipe = recipe_for(tmp_path, labels=["genre 0", "genre 1", "genre 2"], retain={"genres": old})
    prepared, places = prepared_old(recipe.override("data.few_shot.per_class=2"))
    assert len(prepared.splits["train"]) == 4
    assert len(places.retention["genres"].open()) == 24


def test_replay_with_another_label_set_is_refused(tmp_path: Path) -> None:
    old = [{**row, "label": "medium"} for row in texts(10, seed=3)]
    with pytest.raises(DataError, match=r"(?s)training\.replay\.data.*medium.*classes that are there too"):
        prepared_old(recipe_for(tmp_path, replay=old))


@pytest.mark.parametrize(("seed", "split"), [(1, "validation"), (2, "test")])
def test_replayed_rows_in_what_is_judged_are_refused(seed: int, split: str, tmp_path: Path) -> None:
    leaked = [{**row, "label": "low"} for row in texts(20, seed=seed)[:4]]
    shown = rf"4 of its 34 rows also stand in the {split} split \(\S+replay\.jsonl, row 31; \S+, row 32; \S+, row 33 …\)"
    with pytest.raises(DataError, match=shown):
        prepared_old(recipe_for(tmp_path, replay=[*texts(30, seed=3), *leaked]))


@pytest.mark.parametrize("leakage", ["auto", "error", "off"])
def test_replayed_rows_that_are_nearly_judged_are_told(leakage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    longest = sorted(texts(20, seed=2), key=lambda row: len(row["text"]))[-2:]
    nearly = [{**row, "text": row["text"] + " word0"} for row in longest]
    recipe = recipe_for(tmp_path, replay=[*texts(30, seed=3), *nearly]).override(f"data.leakage={leakage}")
    if leakage == "error":
        with pytest.raises(
            DataError, match=r"training\.replay\.data: 2 of its 32 rows are nearly the same as rows of the test"
        ):
            prepared_old(recipe)
        return
    for _ in range(2):  # looked for once, and told each time
        caplog.clear()
        _, old = prepared_old(recipe)
        assert old.replay is not None
        assert old.replay.near == ({} if leakage == "off" else {"validation": 0, "test": 2})
        assert ("nearly the same as rows of the test split" in caplog.text) == (leakage == "auto")
    stored = OldPlaces.from_json(json.loads(json.dumps(old.to_json())))
    assert stored.replay is not None
    assert old.replay is not None
    assert stored.replay.near == old.replay.near


def test_retained_rows_in_the_training_split_are_refused_whatever_their_label(tmp_path: Path) -> None:
    turned = [{**row, "label": "low" if row["label"] == "high" else "high"} for row in texts(60)[:3]]
    with pytest.raises(DataError, match=r"(?s)evaluation\.retention\.data\.old: 3 of its 23 rows also stand in the training"):
        prepared_old(recipe_for(tmp_path, labels=["high", "low"], retain={"old": [*texts(20, seed=5), *turned]}))


def test_retained_rows_in_the_replayed_data_are_refused(tmp_path: Path) -> None:
    both = texts(30, seed=3)
    with pytest.raises(DataError, match="also stand in the replayed data"):
        prepared_old(recipe_for(tmp_path, labels=["high", "low"], replay=both, retain={"old": both[:5]}))


def test_images_are_compared_by_their_contents_not_their_names(tmp_path: Path) -> None:
    for folder in ("train", "old"):
        for k, row in enumerate(pictures(24, seed=0 if folder == "train" else 1)):
            place = tmp_path / folder / row["label"]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row["image"]).save(place / f"{k}.png")
    there = sorted((tmp_path / "train").rglob("*.png"))[0]
    (tmp_path / "old" / there.parent.name / "renamed.png").write_bytes(there.read_bytes())
    tiny_resnet(tmp_path / "base", labels=["ne", "nw", "se", "sw"])
    values = {
        "task": "image-classification",
        "model": {"model_name_or_path": str(tmp_path / "base")},
        "data": {"train": str(tmp_path / "train"), "split": {"validation": 0, "test": 0}},
        "training": {"output_dir": str(tmp_path / "runs"), "eval_strategy": "no"},
        "evaluation": {"retention": {"data": str(tmp_path / "old")}},
    }
    with pytest.raises(DataError, match=r"evaluation\.retention\.data: 1 of its 25 rows .*renamed\.png\)"):
        prepared_old(Recipe.from_dict(values))


def test_inputs_are_hashed_without_the_target(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    task = load_task(recipe.task)
    splits = prepare(recipe, task, output_dir=recipe.training.output_dir).splits
    hashes = input_hashes(splits["train"], task)
    assert len(set(hashes.tolist())) == len({row["text"] for row in texts(60)})
