"""Every task over both protocols: what is served is what the predictor says."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.served import Service
from tunesmith.evaluation.padding import TOLERANCE, same
from unit.serving.conftest import Loaded

pytestmark = pytest.mark.unit


def in_json(example: dict[str, Any]) -> dict[str, Any]:
    return {role: base64.b64encode(value).decode() if isinstance(value, bytes) else value for role, value in example.items()}


def test_predict_says_what_the_predictor_says(loaded: Loaded, tmp_path: Path) -> None:
    service, inputs = Service(tmp_path, loaded.engine()), loaded.inputs(9)
    answer = service.ask("POST", f"/predict/{loaded.case.id}", json={"id": "mine", "inputs": [in_json(one) for one in inputs]})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["id"], said["model"], said["version"]) == ("mine", loaded.case.id, "1")
    for got, want in zip(said["predictions"], loaded.predictor.predict(inputs), strict=True):
        if "probabilities" in want:
            labels = loaded.predictor.preprocessing.state["labels"]
            assert np.allclose([got["scores"][label] for label in labels], want.pop("probabilities"), atol=TOLERANCE)
        if "label" in want:
            assert got["score"] == got["scores"][want["label"]] == max(got["scores"].values())
        assert same({name: got[name] for name in want}, want)


def test_v2_metadata_infer_and_the_predictor_agree(loaded: Loaded, tmp_path: Path) -> None:
    service, inputs, name = Service(tmp_path, loaded.engine()), loaded.inputs(5), loaded.case.id
    about = service.ask("GET", f"/v2/models/{name}").json()
    if loaded.predictor.task.name.endswith("SpeechToText"):
        pytest.skip("its input is samples, which test_ragged_numbers covers")
    answer = service.ask("POST", f"/v2/models/{name}/infer", json={"id": "42", "inputs": tensors(about["inputs"], inputs)})
    assert answer.status_code == 200, answer.text
    said, wanted = answer.json(), loaded.predictor.predict(inputs)
    assert (said["id"], said["model_name"], said["model_version"]) == ("42", name, "1")
    assert [one["name"] for one in said["outputs"]] == [one["name"] for one in about["outputs"]]
    for one, spec in zip(said["outputs"], about["outputs"], strict=True):
        assert one["datatype"] == spec["datatype"]
        assert len(one["shape"]) == len(spec["shape"])
        assert all(want in (-1, size) for want, size in zip(spec["shape"], one["shape"], strict=True))
        assert len(one["data"]) == np.prod(one["shape"])
        rows = np.asarray(one["data"], dtype=object).reshape(one["shape"])
        for row, want in zip(rows, wanted, strict=True):
            if one["name"].startswith("num_"):
                assert row == len(want[one["name"].removeprefix("num_").replace("tags", "tags")])
            elif one["datatype"] == "BYTES":
                given = want[one["name"]]
                assert (list(row[: len(given)]) if isinstance(given, list) else row) == given
            else:
                given = np.asarray(want[one["name"]], dtype=float)
                assert np.allclose(np.asarray(row, dtype=float)[: len(given)] if given.ndim else row, given, atol=1e-2)


def tensors(specs: list[dict[str, Any]], inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for spec in specs:
        rows: list[Any] = [in_json(one)[spec["name"]] for one in inputs]
        shape = [len(rows)]
        if len(spec["shape"]) == 2:
            longest = max(map(len, rows))
            rows, shape = [[*row, *[""] * (longest - len(row))] for row in rows], [len(rows), longest]
        made.append({"name": spec["name"], "datatype": spec["datatype"], "shape": shape, "data": rows})
    return made


def test_ragged_numbers_come_padded_and_are_cut_where_they_end(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from unit.serving.conftest import _load

    speech = _load("ctc", tmp_path_factory)
    sounds = [np.asarray(row["audio"], dtype=np.float32) for row in speech.case.rows(2) if not isinstance(row["audio"], bytes)]
    if not sounds:
        import io
        import wave

        for row in speech.case.rows(2):
            with wave.open(io.BytesIO(row["audio"])) as file:
                sounds.append(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768)
    sounds[0] = sounds[0][: len(sounds[0]) // 2]
    longest = max(map(len, sounds))
    padded = [np.pad(one, (0, longest - len(one))).tolist() for one in sounds]
    inputs = [
        {"name": "audio", "datatype": "FP32", "shape": [2, longest], "data": padded},
        {"name": "num_audio", "datatype": "INT64", "shape": [2], "data": [len(one) for one in sounds]},
    ]
    service = Service(tmp_path, speech.engine())
    said = service.ask("POST", "/v2/models/ctc/infer", json={"inputs": inputs}).json()
    texts = next(one for one in said["outputs"] if one["name"] == "text")["data"]
    assert texts == [answer["text"] for answer in speech.predictor.predict([{"audio": one} for one in sounds])]


def test_who_shares_the_batch_changes_no_answer(loaded: Loaded) -> None:
    inputs = loaded.inputs(24)

    async def ask() -> tuple[list[Any], list[Any]]:
        engine = loaded.engine(batch_wait_ms=20)
        alone = [(await engine.answer([one])).answers[0] for one in inputs]
        crowd = await asyncio.gather(*(engine.answer([one]) for one in inputs))
        await engine.close()
        return alone, [one.answers[0] for one in crowd]

    alone, together = asyncio.run(ask())
    for one, other in zip(alone, together, strict=True):
        assert same(one, other), (one, other)


def test_a_model_that_reads_its_padding_is_given_none(text: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without an attention mask: the same text must get the same answer whoever is beside it."""
    inputs = text.inputs(24)

    async def ask() -> tuple[bool, list[Any], list[Any], list[int]]:
        collate, sizes = type(text.predictor.task).collate, []

        def unmasked(self: Any, features: Any, preprocessing: Any) -> Any:
            batch = collate(self, features, preprocessing)
            batch["attention_mask"] = batch["attention_mask"] * 0 + 1
            sizes.append(len(features))
            return batch

        monkeypatch.setattr(type(text.predictor.task), "collate", unmasked)
        engine = text.engine(batch_wait_ms=20)
        alone = [(await engine.answer([one])).answers[0] for one in inputs]
        crowd = await asyncio.gather(*(engine.answer([one]) for one in inputs))
        await engine.close()
        return engine.padding_is_harmless, alone, [one.answers[0] for one in crowd], sizes

    harmless, alone, together, sizes = asyncio.run(ask())
    assert not harmless
    assert max(sizes) > 1
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_the_masked_model_mixes_lengths(text: Loaded) -> None:
    assert text.engine().padding_is_harmless
