"""What ``/docs`` and ``/openapi.json`` say of the routes; the bodies are read and checked by ``plain.py`` and ``v2.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

ABOUT: dict[str, Any] = {
    "title": "Tunesmith",
    "description": "Fine-tuned models over the Open Inference Protocol v2 and a plain JSON protocol. Every route but the "
    "health checks needs a key: `Authorization: Bearer KEY`, or `X-API-Key: KEY`.",
    "docs_url": None,  # FastAPI's pages load their viewer from a CDN
    "redoc_url": None,
}
_WORDS = {
    401: "No key, or a wrong one",
    403: "The key may not ask this model",
    404: "No such model or version",
    408: "The body did not come in time",
    413: "The body is too large, or what its images unpack to",
    422: "The request cannot be used; the message names the field",
    429: "Too many requests wait; Retry-After says when to come again",
    503: "Not ready",
    504: "The answer did not come in time",
}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": _WORDS[status], "content": _ERROR} for status in statuses}


def _gives(schema: dict[str, Any], *statuses: int, words: str = "The answer") -> dict[int | str, dict[str, Any]]:
    return {200: {"description": words, "content": {"application/json": {"schema": schema}}}, **_errors(401, *statuses)}


_OF_A_MODEL = (403, 404, 408, 413, 422, 429, 503, 504)
"""What can go wrong where a model is asked."""


def _object(required: Sequence[str] | None = None, **properties: Any) -> dict[str, Any]:
    """An object with these properties, all of them required unless said."""
    return {"type": "object", "required": list(properties if required is None else required), "properties": properties}


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_ID = {"type": "string", "minLength": 1, "maxLength": 128}
_TENSOR = _object(
    ("name", "datatype", "shape"),
    name=_TEXT,
    datatype={"type": "string", "examples": ["BYTES", "FP32"]},
    shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
    data={"type": "array", "items": {}},
    parameters={"type": "object"},
)
_SPECS = {
    "type": "array",
    "items": _object(name=_TEXT, datatype=_TEXT, shape={"type": "array", "items": {"type": "integer"}}),
}
_EMPTY: dict[int | str, dict[str, Any]] = {200: {"description": "Yes"}}

MODELS: dict[str, Any] = {
    "tags": ["models"],
    "responses": _gives(
        _object(
            models={
                "type": "array",
                "items": _object(
                    name=_TEXT,
                    versions=_TEXTS,
                    task=_TEXT,
                    input={"type": "string", "examples": ["text", "text-pair", "image"]},
                    inputs={"type": "object", "additionalProperties": _TEXT},
                    labels=_TEXTS,
                    backend={"type": "string", "examples": ["torch", "openvino"]},
                ),
            }
        )
    ),
}
METRICS: dict[str, Any] = {
    "tags": ["service"],
    "responses": {200: {"description": "Prometheus text", "content": {"text/plain": {}}}, **_errors(401)},
}
_SECONDS = {"type": "number", "exclusiveMinimum": 0}
_CHOICE = [
    {"name": name, "in": "header", "required": False, "description": words, "schema": schema}
    for name, words, schema in (
        ("X-Model-Version", "The version that answers, where the path names none", _TEXT),
        ("X-Sticky-Key", "Who is answered by the same version all along in a canary; without it, who has the key", _TEXT),
        ("X-Deadline-Seconds", "Seconds that the caller waits, where that is less than the model's own", _SECONDS),
    )
]
PREDICT: dict[str, Any] = {
    "tags": ["plain"],
    "openapi_extra": {
        "parameters": _CHOICE,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["inputs"],
                        "additionalProperties": False,
                        "properties": {
                            "inputs": {"type": "array", "minItems": 1, "maxItems": 1024, "items": {}},
                            "id": _ID,
                        },
                    },
                    "examples": {
                        "texts": {"value": {"inputs": ["I loved it", "I want my money back"]}},
                        "pairs": {"value": {"inputs": [{"text": "A man sleeps", "text_pair": "Somebody is awake"}]}},
                        "images": {"value": {"inputs": [{"image": "iVBORw0KGgo…"}]}},
                    },
                },
                "multipart/form-data": {
                    "schema": _object(inputs={"type": "array", "items": {"type": "string", "format": "binary"}})
                },
            },
        },
    },
    "responses": _gives(
        _object(
            id=_TEXT,
            model=_TEXT,
            version=_TEXT,
            predictions={"type": "array", "items": {"type": "object"}},
            ms={"type": "number"},
        ),
        *_OF_A_MODEL,
    ),
}
HEALTH: dict[str, Any] = {"tags": ["v2"], "responses": _EMPTY, "openapi_extra": {"security": []}}
READY: dict[str, Any] = {"tags": ["v2"], "responses": {**_EMPTY, **_errors(503)}, "openapi_extra": {"security": []}}
SERVER: dict[str, Any] = {
    "tags": ["v2"],
    "responses": _gives(_object(name=_TEXT, version=_TEXT, extensions=_TEXTS)),
}
METADATA: dict[str, Any] = {
    "tags": ["v2"],
    "responses": _gives(
        _object(name=_TEXT, versions=_TEXTS, platform=_TEXT, inputs=_SPECS, outputs=_SPECS),
        403,
        404,
    ),
}
MODEL_READY: dict[str, Any] = {
    "tags": ["v2"],
    "responses": _gives(
        _object(name=_TEXT, ready={"type": "boolean"}),
        403,
        404,
        503,
    ),
}
INFER: dict[str, Any] = {
    "tags": ["v2"],
    "openapi_extra": {
        "parameters": _CHOICE,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _object(
                        ("inputs",),
                        id=_ID,
                        inputs={"type": "array", "minItems": 1, "items": _TENSOR},
                        outputs={"type": "array", "items": _object(name=_TEXT)},
                        parameters={"type": "object"},
                    )
                }
            },
        },
    },
    "responses": _gives(
        _object(
            model_name=_TEXT,
            model_version=_TEXT,
            id=_TEXT,
            outputs={"type": "array", "items": _TENSOR},
        ),
        *_OF_A_MODEL,
    ),
}


def schema(app: FastAPI) -> dict[str, Any]:
    """The whole document, made once: with the keys' schemes, and errors in the one shape they have."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=_version(), description=app.description, routes=app.routes)
        parts = made.setdefault("components", {})
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        parts["schemas"] = {"Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}}
        made["security"] = [{"bearer": []}, {"header": []}]
        for path in made["paths"].values():
            for operation in path.values():
                for status, answer in operation["responses"].items():
                    if status == "422":  # FastAPI's own shape, where it is not ours
                        answer["content"] = _ERROR
        app.openapi_schema = made
    return app.openapi_schema


def _version() -> str:
    from importlib.metadata import version

    return version("tunesmith")
