"""The front door: the routes of the service over HTTP, whatever answers behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from tunesmith.tasks.base import Answer, Example
from tunesmith_serving import openapi, pages, plain, v2
from tunesmith_serving.describe import plain as in_words
from tunesmith_serving.guard import Facts, Guard
from tunesmith_serving.keys import KeyFile
from tunesmith_serving.mirror import Answered
from tunesmith_serving.problems import Refused, invalid, slow, unready
from tunesmith_serving.shelf import Served, Shelf

PARSED_APART = 1 << 18
"""Bytes of a body from which it is read in a thread, so that the others' requests go on."""
DEADLINE = "x-deadline-seconds"
VERSION = "x-model-version"
STICKY = "x-sticky-key"


def build(shelf: Shelf, keys: KeyFile, *, echo_id: bool = True) -> Guard:
    """The application: all routes over a shelf, behind the guard. ``echo_id`` as in :class:`Guard`."""
    app = FastAPI(**openapi.ABOUT)
    app.exception_handler(404)(_told)
    app.exception_handler(405)(_told)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(Exception)(_failed)
    _pages(app, shelf)
    _predict(app, shelf)
    _protocol(app, shelf)
    app.openapi = lambda: openapi.schema(app)  # type: ignore[method-assign]
    return Guard(app, keys, shelf.metrics, max_body=lambda: shelf.max_body, echo_id=echo_id)


async def _told(request: Request, error: Exception) -> JSONResponse:
    """The router's 404 and 405, in our shape."""
    status = getattr(error, "status_code", 404)
    words = {404: "there is no such page; /docs lists them", 405: f"{request.method} is not for this path"}
    return JSONResponse({"error": words[status]}, status, getattr(error, "headers", None))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return Response(error.body, error.status, error.headers, "application/json")


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """A defect: what happened is in the log, which the guard writes, and not in the answer."""
    return JSONResponse({"error": f"something went wrong here; it is logged under {_facts(request).id}"}, 500)


def _pages(app: FastAPI, shelf: Shelf) -> None:
    """The playground, the documentation, the list of models, the metrics."""
    tried = pages.PLAYGROUND.read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return HTMLResponse(tried, headers=pages.headers(tried))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = pages.documentation(app.openapi())
        return HTMLResponse(page, headers=pages.headers(page))

    @app.get("/models", **openapi.MODELS)
    async def models(request: Request) -> JSONResponse:
        """The models that the key may ask, each with its versions, its task, its labels and what it takes."""
        may = _facts(request).key
        listed = [
            {"name": name, "versions": list(versions), **in_words(next(iter(versions.values())).description)}
            for name, versions in shelf.models.items()
            if may is None or may.may(name)
        ]
        return JSONResponse({"models": listed})

    @app.get("/metrics", **openapi.METRICS)
    async def counted(request: Request) -> Response:
        """What Prometheus reads, of the models that the key may ask."""
        key = _facts(request).key
        text, kind = shelf.metrics.text() if key is None else shelf.metrics.text(key.may)
        return Response(text, headers={"Content-Type": kind})


def _predict(app: FastAPI, shelf: Shelf) -> None:
    """What people ask."""

    @app.post("/predict/{name}", **openapi.PREDICT)
    async def predict(name: str, request: Request) -> JSONResponse:
        """Human inputs, human answers."""
        facts = _facts(request)
        with _chosen(request, shelf, name) as served:
            about, kind = served.description, request.headers.get("content-type", "")
            body = await _body(request, served)
            examples, given_id = await _apart(len(body), plain.read, body, kind, about)
            answers = await _answer(request, shelf, served, examples, len(body))
        return JSONResponse(
            {
                "id": given_id or facts.id,
                "model": about.name,
                "version": about.version,
                "predictions": [plain.spoken(answer, about.labels) for answer in answers],
                "ms": _ms(facts),
            }
        )


def _protocol(app: FastAPI, shelf: Shelf) -> None:
    """The Open Inference Protocol v2."""

    @app.get("/v2/health/live", **openapi.HEALTH)
    async def live() -> Response:
        """200 while the service runs."""
        return Response()

    @app.get("/v2/health/ready", **openapi.READY)
    async def ready() -> Response:
        """200 where every model is loaded and warm."""
        if not await shelf.ready():
            raise unready("the service")
        return Response()

    @app.get("/v2", **openapi.SERVER)
    async def server() -> JSONResponse:
        """The server's name, version and extensions."""
        return JSONResponse(v2.server())

    @app.get("/v2/models/{name}", **openapi.METADATA)
    @app.get("/v2/models/{name}/versions/{version}", **openapi.METADATA)
    async def metadata(name: str, request: Request, version: str | None = None) -> JSONResponse:
        """What the model takes and gives."""
        served = _allowed(request, shelf, name, version)
        return JSONResponse(v2.metadata(served.description, list(shelf.models[name])))

    @app.get("/v2/models/{name}/ready", **openapi.MODEL_READY)
    @app.get("/v2/models/{name}/versions/{version}/ready", **openapi.MODEL_READY)
    async def model_ready(name: str, request: Request, version: str | None = None) -> Response:
        """200 where the model is loaded and warm."""
        served = _allowed(request, shelf, name, version)
        if not await served.backend.ready():
            raise unready(name)
        return JSONResponse({"name": name, "ready": True})

    @app.post("/v2/models/{name}/infer", **openapi.INFER)
    @app.post("/v2/models/{name}/versions/{version}/infer", **openapi.INFER)
    async def infer(name: str, request: Request, version: str | None = None) -> Response:
        """Tensors in, tensors out, as JSON or in binary."""
        length = request.headers.get(v2.HEADER_LENGTH)
        with _chosen(request, shelf, name, version) as served:
            body = await _body(request, served)
            asked = await _apart(len(body), v2.read, body, length, served.description)
            answers = await _answer(request, shelf, served, asked.examples, len(body), version)
        content, headers = await _apart(len(body), v2.write, asked, answers, served.description, _facts(request).id)
        return Response(content, headers=headers)


def _allowed(request: Request, shelf: Shelf, name: str, version: str | None = None, sticky: str | None = None) -> Served:
    """The model that is asked, if the key may. Raises :class:`Refused` with 403 or 404."""
    facts = _facts(request)
    if facts.key is not None and not facts.key.may(name):
        raise Refused(403, f"the key {facts.key.name} may not ask {name!r}")
    served = shelf.find(name, version, sticky)
    facts.model, facts.version = served.description.name, served.description.version
    return served


def _chosen(request: Request, shelf: Shelf, name: str, version: str | None = None) -> AbstractContextManager[Served]:
    """The version that answers: the path's, the header's, or the one for this caller. Raises :class:`Refused`."""
    key = _facts(request).key
    sticky = request.headers.get(STICKY) or (key.name if key is not None else "")
    return shelf.hold(_allowed(request, shelf, name, version or request.headers.get(VERSION), sticky))


async def _body(request: Request, served: Served) -> bytes:
    """The request's body, whole. Raises :class:`Refused` (408) where it does not come in the time that an answer has."""
    seconds = served.within(_deadline(request))
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError as error:
        raise slow(seconds) from error


async def _answer(
    request: Request, shelf: Shelf, served: Served, examples: Sequence[Example], size: int, version: str | None = None
) -> list[Answer]:
    """The answers, which another version is compared with once the caller has them, where no version was named."""
    facts, start = _facts(request), time.perf_counter()
    facts.examples = len(examples)
    answers = await shelf.answer(served, examples, _deadline(request), "inputs")
    if version is None and VERSION not in request.headers:
        seconds = time.perf_counter() - start
        facts.after = partial(shelf.answered, Answered(facts.id, examples, answers, served.description, seconds, size))
    return answers


def _deadline(request: Request) -> float | None:
    """Seconds that the caller gives, or None. Raises :class:`Refused` (422)."""
    said = request.headers.get(DEADLINE)
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise invalid("X-Deadline-Seconds", f"is {said!r}, not a number of seconds")
    return seconds


async def _apart(size: int, function: Any, *arguments: Any) -> Any:
    """The function's result, from a thread where the body is large."""
    return await asyncio.to_thread(function, *arguments) if size >= PARSED_APART else function(*arguments)


def _facts(request: Request) -> Facts:
    facts: Facts = request.scope["state"]["facts"]
    return facts


def _ms(facts: Facts) -> float:
    return round(1000 * (time.perf_counter() - facts.start), 2)
