"""What an engine does before its model is asked: images are looked at, decoded a few at a time, and bad examples are named."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.served import Service
from tunesmith.errors import DataError
from tunesmith.evaluation.padding import same
from tunesmith_serving.engine import Engine, opened_images, pixels
from tunesmith_serving.reply import Answered
from unit.serving.conftest import Loaded

pytestmark = pytest.mark.unit

LATER = float("inf")


def png(mode: str, width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, "PNG")
    return stream.getvalue()


def turned(data: bytes) -> bytes:
    """A JPEG to be turned by 90°, whose notes give its width as a text."""
    exif = bytes.fromhex("4d4d002a00000008 0002 010000020000000461626300 011200030000000100060000 00000000")
    payload = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def answers(engine: Engine, inputs: Sequence[Any]) -> Answered:
    async def ask() -> Answered:
        try:
            return await engine.answer(inputs)
        finally:
            await engine.close()

    return asyncio.run(ask())


def keeping_sizes(monkeypatch: pytest.MonkeyPatch, task: Any) -> list[int]:
    """How many examples the task is given at a time."""
    encode, sizes = type(task).encode, []

    def kept(self: Any, examples: Any, preprocessing: Any) -> Any:
        sizes.append(len(examples))
        return encode(self, examples, preprocessing)

    monkeypatch.setattr(type(task), "encode", kept)
    return sizes


def test_a_request_that_unpacks_to_gigabytes_is_refused_unopened(
    image: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """41 files of some kilobytes have 49,000,000 pixels each; clients halve what is answered 413."""
    engine = image.engine()
    sizes = keeping_sizes(monkeypatch, image.predictor.task)
    many = [base64.b64encode(png("1", 7000, 7000)).decode()] * 41
    answer = Service(tmp_path, engine).ask("POST", "/predict/vit", json={"inputs": many})
    assert (answer.status_code, sizes) == (413, [])
    told = "inputs: have images of more than 2,000,000,000 pixels together: send several requests"
    assert answer.json() == {"error": told}


def test_images_are_decoded_a_few_at_a_time_and_answered_as_together(image: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = image.inputs(9)
    with Image.open(io.BytesIO(inputs[0]["image"])) as header:
        one = header.width * header.height
    wanted = image.predictor.predict(inputs)
    engine = image.engine(max_image_pixels=4 * one)
    sizes = keeping_sizes(monkeypatch, image.predictor.task)
    got = answers(engine, inputs).answers
    assert sizes == [4, 4, 1]
    assert all(same(answer, want) for answer, want in zip(got, wanted, strict=True))


def test_an_image_that_is_larger_than_its_header_says_is_refused(image: Loaded) -> None:
    example, columns = {"image": png("1", 9, 9)}, image.predictor.task.columns
    assert opened_images(example, columns, pixels(example, columns, 81))["image"].size == (9, 9)
    with pytest.raises(DataError, match="more pixels than its header says"):
        opened_images(example, columns, 64)


def test_nothing_is_decoded_that_nobody_waits_for(image: Loaded) -> None:
    with pytest.raises(TimeoutError):
        image.engine()._encode(image.inputs(1), time.monotonic() - 1)


def test_a_damaged_image_is_told_whatever_pillow_raises(image: Loaded, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 4)).save(stream, "JPEG")
    good = image.inputs(1)[0]["image"]
    files = [("inputs", ("a", raw, "image/jpeg")) for raw in (good, turned(stream.getvalue()))]
    answer = Service(tmp_path, image.engine()).ask("POST", "/predict/vit", files=files)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"].startswith("inputs[1]: image is unreadable: ")


@pytest.mark.parametrize("kind", [struct.error, RuntimeError, NotImplementedError, AttributeError])
def test_a_header_that_cannot_be_read_is_told(image: Loaded, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    def damaged(*_: Any, **__: Any) -> Any:
        raise kind("it is damaged")

    engine = image.engine()
    monkeypatch.setattr(Image, "open", damaged)
    assert engine._encode(image.inputs(1), LATER) == Answered(problem=(0, "image is unreadable: it is damaged"))


@pytest.mark.parametrize("alone", [True, False])
def test_of_examples_that_cannot_be_encoded_the_bad_one_is_named(
    text: Loaded, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Or all are answered, where each can be encoded alone."""
    engine, inputs = text.engine(), text.inputs(5)
    encode = type(text.predictor.task).encode

    def picky(self: Any, examples: Any, preprocessing: Any) -> Any:
        if inputs[3] in examples and (alone or len(examples) > 1):
            raise DataError("it is too odd")
        return encode(self, examples, preprocessing)

    monkeypatch.setattr(type(text.predictor.task), "encode", picky)
    got = answers(engine, inputs)
    assert (got.problem, len(got.answers)) == (((3, "it is too odd"), 0) if alone else (None, 5))
