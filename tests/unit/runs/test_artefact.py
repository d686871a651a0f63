from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith import storage
from tunesmith.errors import ModelError
from tunesmith.runs.artefact import Artefact, base_model_record, weights_hash


def test_an_artefact_reads_back(output_dir: str) -> None:
    made = Artefact(
        task="text-classification",
        state={"labels": ["a", "b"]},
        base_model={"name_or_path": "owner/base", "revision": "abc", "hash": None},
        run="digits-1",
        metrics={"accuracy": 0.9},
        tunesmith="0.1.0",
    )
    made.write(output_dir)
    assert Artefact.read(output_dir) == made


def test_a_plain_model_folder_is_told_from_an_artefact(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tunesmith\.json there, so this is not a model that Tunesmith made"):
        Artefact.read(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"format": 1}', "[]"])
def test_a_damaged_artefact_is_named(tmp_path: Path, text: str) -> None:
    storage.write_text(tmp_path / "tunesmith.json", text)
    with pytest.raises(ModelError, match=r"tunesmith\.json is damaged"):
        Artefact.read(tmp_path)


def test_a_newer_format_is_refused_and_unknown_fields_are_not(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "tunesmith.json", {"format": 1, "task": "t", "state": {}, "later": 1})
    assert Artefact.read(tmp_path).task == "t"
    storage.write_json(tmp_path / "tunesmith.json", {"format": 2, "task": "t", "state": {}})
    with pytest.raises(ModelError, match="format 2 is newer"):
        Artefact.read(tmp_path)


def test_a_base_model_folder_is_known_by_its_weights_and_config(output_dir: str) -> None:
    place = storage.join(output_dir, "base")
    storage.write_text(storage.join(place, "config.json"), "{}")
    storage.write_bytes(storage.join(place, "model.safetensors"), b"weights")
    before = weights_hash(place)
    storage.write_text(storage.join(place, "README.md"), "a note")
    assert base_model_record(place) == {"name_or_path": place, "revision": None, "hash": before}
    storage.write_bytes(storage.join(place, "model.safetensors"), b"Weights")
    assert weights_hash(place) != before


def test_a_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    storage.write_text(tmp_path / "models--owner--base" / "refs" / "main", "c0ffee\n")
    assert base_model_record("owner/base")["revision"] == "c0ffee"
    assert base_model_record("owner/base", commit="feed")["revision"] == "feed"
    assert base_model_record("owner/base", "v1.0")["revision"] == "v1.0"
