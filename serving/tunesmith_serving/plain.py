"""The plain protocol of ``POST /predict/NAME``: what people write, and what they want to read."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.tasks.base import Answer
from tunesmith_serving.describe import BYTES_KINDS, Description
from tunesmith_serving.problems import invalid

MOST_INPUTS = 1024
"""Examples of one request; more belong into several."""

DIGITS = re.compile(r"^[0-9]{1,15}$")
"""A number of bytes in a header: ``str.isdigit`` takes digits that ``int`` does not."""

_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(r'\bname="([^"]*)"', re.IGNORECASE)
_DATA_URL = re.compile(r"^data:[\w/+.-]*;base64,", re.ASCII)


def read(body: bytes, content_type: str, description: Description) -> tuple[list[dict[str, Any]], str | None]:
    """The examples of a request by role, and its ``id``. Raises :class:`Refused` (422) that names the field."""
    if content_type.lower().startswith("multipart/form-data"):
        return _from_parts(body, content_type, description), None
    given = parsed(body)
    if not isinstance(given, dict):
        raise invalid("body", f'is {kind_of(given)}, not an object like {{"inputs": [\u2026]}}')
    unknown = sorted(set(given) - {"inputs", "id"})
    if unknown:
        raise invalid(unknown[0], "there is no such field; write inputs (and id)")
    inputs = given.get("inputs")
    if not isinstance(inputs, list):
        raise invalid("inputs", "is missing" if inputs is None else f"is {kind_of(inputs)}, not a list")
    check_count(len(inputs))
    return [example(one, f"inputs[{index}]", description) for index, one in enumerate(inputs)], identity(given)


def identity(given: Mapping[str, Any]) -> str | None:
    """The ``id`` that a request brings, or None. Raises :class:`Refused`."""
    found = given.get("id")
    if found is not None and not (isinstance(found, str) and 0 < len(found) <= 128):
        raise invalid("id", "is no text of 1 to 128 characters")
    return whole(found, "id") if found is not None else None


def parsed(body: bytes) -> Any:
    """The body's JSON. Raises :class:`Refused` (422) with the place where it stops being JSON."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise invalid("body", f"is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise invalid("body", f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise invalid("body", "is nested too deeply") from error
    except ValueError as error:
        raise invalid("body", f"is not JSON: {error}") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def example(value: Any, where: str, description: Description) -> dict[str, Any]:
    """One input as an example by role: a bare value is taken for the first role. Raises :class:`Refused`."""
    if not isinstance(value, Mapping):
        value = {description.first: value}
    unknown = [str(role) for role in value if role not in description.columns]
    if unknown:
        raise invalid(f"{where}.{unknown[0]}", f"{description.name} takes {' and '.join(description.columns)}")
    for role in description.required:
        if value.get(role) is None:
            raise invalid(f"{where}.{role}", "is missing")
    return {role: _value(given, description.columns[role], f"{where}.{role}") for role, given in value.items()}


def checked(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At least one example, and not too many. Raises :class:`Refused`."""
    check_count(len(examples))
    return examples


def check_count(examples: int) -> None:
    """The same of a number that a request says, before the examples are made. Raises :class:`Refused`."""
    if not examples:
        raise invalid("inputs", "is empty")
    if examples > MOST_INPUTS:
        raise invalid("inputs", f"has {examples:,} examples, more than {MOST_INPUTS:,}: send several requests")


def _value(value: Any, kind: str, where: str) -> Any:
    """A JSON value as the task takes it. Text never becomes a path: what is an image must be its bytes."""
    if kind in BYTES_KINDS:
        return decoded(value, where) if not isinstance(value, bytes) else value
    if kind == "text" and not isinstance(value, str):
        raise invalid(where, f"is {kind_of(value)}, not text")
    if kind == "text":
        return whole(value, where)
    if kind == "strings":
        if isinstance(value, str):
            return whole(value, where).split()
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise invalid(where, "is neither text nor a list of words")
        return [whole(word, where) for word in value]
    return value


def whole(text: str, where: str) -> str:
    """Text that can be written as UTF-8: JSON can hold half a surrogate pair. Raises :class:`Refused`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(where, f"has half a character at {error.start} (a lone surrogate)") from error
    return text


def decoded(value: Any, where: str) -> bytes:
    """Base64, or a data URL, as bytes. Raises :class:`Refused`."""
    if not isinstance(value, str):
        raise invalid(where, f"is {kind_of(value)}, not base64")
    text = value[match.end() :] if (match := _DATA_URL.match(value)) else value
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(where, "is not base64") from error


def _from_parts(body: bytes, content_type: str, description: Description) -> list[dict[str, Any]]:
    """Each part called ``inputs`` is one example: a file, or a text."""
    found = _BOUNDARY.search(content_type)
    if not found:
        raise invalid("Content-Type", "multipart/form-data without a boundary")
    examples: list[dict[str, Any]] = []
    for name, content in parts(body, found.group(1).encode("latin-1", "replace")):
        if name != "inputs":
            raise invalid(name or "a part without a name", "there is no such field; write inputs")
        where = f"inputs[{len(examples)}]"
        examples.append(example(_of_part(content, description, where), where, description))
    return checked(examples)


def _of_part(content: bytes, description: Description, where: str) -> Any:
    if description.columns[description.first] in BYTES_KINDS:
        return content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(where, f"is not UTF-8 (byte {error.start})") from error


def parts(body: bytes, boundary: bytes) -> list[tuple[str, bytes]]:
    """Name and content of each part of a multipart/form-data body (RFC 7578). Raises :class:`Refused`.

    >>> parts(b'--x\\r\\nContent-Disposition: form-data; name="inputs"\\r\\n\\r\\nhello\\r\\n--x--\\r\\n', b"x")
    [('inputs', b'hello')]
    """
    whole, delimiter = b"\r\n" + body, b"\r\n--" + boundary
    if (many := whole.count(delimiter) - 1) > MOST_INPUTS:
        check_count(many)
    pieces = whole.split(delimiter)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise invalid("body", "is no complete multipart/form-data")
    found = []
    for piece in pieces[1:-1]:
        head, gap, content = piece.partition(b"\r\n\r\n")
        name = _NAME.search(head.decode("utf-8", "replace"))
        if not gap or not name:
            raise invalid("body", "has a part without a name")
        found.append((name.group(1), content))
    return found


def spoken(answer: Answer, labels: Sequence[str]) -> dict[str, Any]:
    """An answer for people: probabilities become ``scores`` by label, and ``score`` is that of the label given.

    >>> spoken({"label": "b", "probabilities": [0.25, 0.75]}, ["a", "b"])
    {'label': 'b', 'score': 0.75, 'scores': {'a': 0.25, 'b': 0.75}}
    >>> spoken({"tags": ["O"], "scores": [0.5]}, ["O"])
    {'tags': ['O'], 'scores': [0.5]}
    """
    probabilities = answer.get("probabilities")
    if probabilities is None or len(probabilities) != len(labels):
        return dict(answer)
    scores = dict(zip(labels, probabilities, strict=True))
    rest = {name: value for name, value in answer.items() if name != "probabilities"}
    if "label" in rest:
        return {"label": rest.pop("label"), "score": scores[answer["label"]], "scores": scores, **rest}
    return {**rest, "scores": scores}


def heard(said: Any, labels: Sequence[str]) -> Answer:
    """What :func:`spoken` made of an answer, as the answer again.

    >>> heard({"label": "b", "score": 0.75, "scores": {"a": 0.25, "b": 0.75}}, ["a", "b"])
    {'label': 'b', 'probabilities': [0.25, 0.75]}
    >>> heard({"tags": ["O"], "scores": [0.5]}, ["O"])
    {'tags': ['O'], 'scores': [0.5]}
    """
    scores = said.get("scores")
    if not isinstance(scores, Mapping) or set(scores) != set(labels):
        return dict(said)
    rest = {name: value for name, value in said.items() if name not in ("score", "scores")}
    return {**rest, "probabilities": [scores[label] for label in labels]}


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {
        type(None): "null",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
