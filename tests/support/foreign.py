"""A v2 server that knows nothing of Tunesmith: Starlette around a scikit-learn pipeline, with faults on request."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Fault = Callable[[dict[str, Any], int], dict[str, Any] | Response]
"""Changes the outputs of a request (its number from 0), or answers in their place."""


def fitted(rows: Sequence[dict[str, Any]]) -> Pipeline:
    """Bags of words under a logistic regression."""
    model = make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=300))
    return model.fit([row["text"] for row in rows], [row["label"] for row in rows])


class Foreign:
    """The server. Its tensors are called ``document``, ``verdict`` and ``odds``; the numbers are logits where ``logits``."""

    def __init__(self, model: Pipeline, *, logits: bool = False, numbers: bool = False, seconds: float = 0.0) -> None:
        self.model, self.logits, self.numbers, self.seconds = model, logits, numbers, seconds
        self.fault: Fault | None = None
        self.upper = False
        """Whether its preprocessing is corrupted: it sees capital letters."""
        self.version = "7"
        """The one that it says has answered."""
        self.column = False
        """Whether its verdicts have the shape [n, 1]."""
        self.refuses: set[str] = set()
        """Texts that it answers 422."""
        self.asked: list[str] = []
        self.requests = 0
        self.app = Starlette(
            routes=[
                Route("/v2/models/words", self.metadata),
                Route("/v2/models/words/infer", self.infer, methods=["POST"]),
            ]
        )

    @property
    def labels(self) -> list[str]:
        """In the order of its numbers."""
        return [str(label) for label in self.model.classes_]

    async def metadata(self, request: Request) -> Response:
        """What it takes and gives."""
        verdict = {"name": "verdict", "datatype": "INT64" if self.numbers else "BYTES", "shape": [-1]}
        odds = {"name": "odds", "datatype": "FP32", "shape": [-1, len(self.labels)]}
        return JSONResponse(
            {
                "name": "words",
                "versions": ["7"],
                "platform": "sklearn",
                "inputs": [{"name": "document", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [verdict, odds],
            }
        )

    async def infer(self, request: Request) -> Response:
        """Its answers."""
        given = await request.json()
        texts = given["inputs"][0]["data"]
        number, self.requests = self.requests, self.requests + 1
        await asyncio.sleep(self.seconds)
        if self.refuses & set(texts):
            return JSONResponse({"error": "cannot be read"}, 422)
        scores = self.model.decision_function([text.upper() if self.upper else text for text in texts])
        chances = self.model.predict_proba([text.upper() if self.upper else text for text in texts])
        best = chances.argmax(axis=1)
        odds = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        outputs = {
            "verdict": [int(k) if self.numbers else self.labels[k] for k in best],
            "odds": (odds / 2 if scores.ndim == 1 else odds) if self.logits else chances,
        }
        if self.fault is not None:
            changed = self.fault(outputs, number)
            if isinstance(changed, Response):
                return changed
            outputs = changed
        self.asked.extend(texts)
        kind, each = "INT64" if self.numbers else "BYTES", [1] if self.column else []
        numbers = np.asarray(outputs["odds"])
        tensors = [
            {"name": "verdict", "datatype": kind, "shape": [len(outputs["verdict"]), *each], "data": outputs["verdict"]},
            {"name": "odds", "datatype": "FP32", "shape": list(numbers.shape), "data": numbers.ravel().tolist()},
        ]
        wanted = {one["name"] for one in given.get("outputs", [])}
        tensors = [one for one in tensors if not wanted or one["name"] in wanted]
        return Response(json.dumps({"model_name": "words", "model_version": self.version, "outputs": tensors}))


def nan(outputs: dict[str, Any], number: int) -> dict[str, Any]:
    """A number that is none."""
    odds = np.array(outputs["odds"])
    odds[0, 0] = math.nan
    return {**outputs, "odds": odds}


def too_narrow(outputs: dict[str, Any], number: int) -> dict[str, Any]:
    """One class fewer."""
    return {**outputs, "odds": np.asarray(outputs["odds"])[:, :1]}


def one_missing(outputs: dict[str, Any], number: int) -> dict[str, Any]:
    """One answer fewer."""
    return {"verdict": outputs["verdict"][1:], "odds": np.asarray(outputs["odds"])[1:]}


def other_labels(outputs: dict[str, Any], number: int) -> dict[str, Any]:
    """Names that nobody knows."""
    return {**outputs, "verdict": [f"LABEL_{name}" for name in outputs["verdict"]]}


def swapped(outputs: dict[str, Any], number: int) -> dict[str, Any]:
    """Probabilities in another order than that of the labels."""
    return {**outputs, "odds": np.asarray(outputs["odds"])[:, ::-1]}


def busy(times: int, status: int = 429) -> Fault:
    """Too busy for the first requests."""
    return lambda outputs, number: Response("{}", status, {"Retry-After": "0"}) if number < times else outputs


def refusing(status: int, said: str) -> Fault:
    """An error each time."""
    return lambda outputs, number: JSONResponse({"error": said}, status)
