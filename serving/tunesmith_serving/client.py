"""A client of a service: several requests at a time, repeated where that can help, answers in the order of what was asked.

>>> client = Client("http://127.0.0.1:8000/predict/reviews", key="tsk_…")  # doctest: +SKIP
>>> client.predict(["I loved it", "I want my money back"])  # doctest: +SKIP
[{'label': 'good', 'score': 0.98, 'scores': {'bad': 0.02, 'good': 0.98}}, …]
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from tunesmith.errors import DataError, ServiceError, nearest
from tunesmith.evaluation.service import BODY_BYTES, GREETING_SECONDS, Address, Service, message
from tunesmith.evaluation.targets import Provided, Reply
from tunesmith.tasks.base import Example, State, Task
from tunesmith_serving import plain
from tunesmith_serving.describe import BYTES_KINDS

VERSION = "X-Model-Version"
_WHICH = re.compile(r"^inputs\[(\d+)\]")


@dataclass(frozen=True)
class About:
    """What a service says of a model."""

    name: str
    version: str
    task: str
    labels: tuple[str, ...]
    columns: Mapping[str, str]
    """Roles that it takes → their kind; the first is what a bare value is taken for."""


class Client:
    """One model of a service, a :class:`tunesmith.evaluation.targets.Target`. May be shared by threads."""

    provides: frozenset[Provided] = frozenset({"labels", "scores"})

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        concurrency: int = 8,
        batch_size: int = 32,
        timeout: float = 60.0,
        deadline: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: ``http://HOST:PORT/predict/NAME`` or ``…/v2/models/NAME``; without a path where the service has one model. With
                ``…/v2/models/NAME/versions/VERSION`` that version answers; without one, during a rollout, either of the two.
            key: the API key; None is that of the variable ``TUNESMITH_API_KEY``, if there is one.
            concurrency: most requests under way at a time.
            batch_size: most examples of one request.
            timeout: seconds that one attempt may take.
            deadline: seconds that one request may take with all its attempts.
            transport: what sends the requests, instead of the network.

        Raises:
            UserError: no such URL, or a key that no header can carry.
        """
        self._address = Address.of(url)
        self.url, self._batch_size = self._address.root, max(1, batch_size)
        which = {VERSION: self._address.version} if self._address.version is not None else {}
        self._service = Service(
            self.url, key, concurrency=concurrency, timeout=timeout, deadline=deadline, headers=which, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End what is under way, and let go of the connections."""
        self._service.close()

    @property
    def in_the_clear(self) -> bool:
        """Whether what is sent can be read on the way: plain HTTP to another machine."""
        return self._address.in_the_clear

    @property
    def name(self) -> str:
        """The model's."""
        return self.about.name

    @property
    def version(self) -> str:
        """The model's that answers."""
        return self.about.version

    @cached_property
    def task(self) -> Task:
        """What it is asked."""
        from tunesmith.tasks import load_task

        return load_task(self.about.task)

    @property
    def state(self) -> State:
        """Its labels."""
        return {"labels": list(self.about.labels)}

    @cached_property
    def about(self) -> About:
        """The model, as the service describes it; asked once.

        Raises:
            ServiceError: it cannot be reached, refuses the key, or has no such model.
        """
        listed = self._service.json(self._service.send("GET", "/models", deadline=GREETING_SECONDS))
        wanted, version = self._address.model, self._address.version
        try:
            models = {one["name"]: one for one in listed["models"]}
            if wanted is None and len(models) != 1:
                raise ServiceError(
                    f"{self.url} has {len(models)} models that the key may ask: {', '.join(models) or 'none'}"
                    f"\n    → Name one: {self.url}/predict/NAME"
                )
            name = wanted or next(iter(models))
            if name not in models:
                close = nearest(name, models)
                hint = f"Did you mean {close!r}?" if close else f"Those that the key may ask: {', '.join(models) or 'none'}."
                raise ServiceError(f"{self.url} has no model {name!r}\n    → {hint}", 404)
            one = models[name]
            if version not in (None, *one["versions"]):
                there = ", ".join(one["versions"])
                raise ServiceError(f"{self.url} has no version {version} of {name}\n    → It has {there}.", 404)
            return About(name, version or one["versions"][0], one["task"], tuple(one["labels"]), dict(one["inputs"]))
        except (KeyError, TypeError, IndexError) as error:
            raise ServiceError(f"{self.url}/models does not answer as Tunesmith does\n    → Check the URL.") from error

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """What the model says of each input, in their order.

        An input is a mapping by role (``{"text": …, "text_pair": …}``), or only the value of the first role. Images are bytes,
        a path, or a PIL image.

        Raises:
            DataError: inputs that the model cannot use: which, counted from 0, and why.
            ServiceError: the service refuses, or does not answer within the deadline.
        """
        found: dict[int, Reply] = {reply.index: reply for reply in self.replies([self._example(one) for one in inputs])}
        bad = sorted((reply for reply in found.values() if reply.problem is not None), key=lambda reply: reply.index)
        if bad:
            told = "\n".join(f"    input {reply.index}: {reply.problem}" for reply in bad[:10])
            raise DataError(f"{len(bad)} of {len(inputs)} inputs cannot be used:\n{told}")
        return [plain.spoken(found[index].answer or {}, self.about.labels) for index in range(len(inputs))]

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """A reply for each example, as they come in; at most ``concurrency`` requests are under way, and no more is read."""
        return self._service.together(self._ask, self._batches(examples))

    def _example(self, given: Any) -> dict[str, Any]:
        """An input as an example by role, media as bytes."""
        first = next(iter(self.about.columns))
        example = dict(given) if isinstance(given, Mapping) else {first: given}
        unknown = next((role for role in example if role not in self.about.columns), None)
        if unknown is not None:
            raise DataError(f"there is no input {unknown!r}: {self.about.name} takes {' and '.join(self.about.columns)}")
        return {role: _bytes(value) if self.about.columns[role] in BYTES_KINDS else value for role, value in example.items()}

    def _batches(self, examples: Iterable[Example]) -> Iterator[list[tuple[int, Any]]]:
        """Numbered inputs as they go over the wire, cut into requests."""
        columns = self.about.columns
        batch: list[tuple[int, Any]] = []
        size = 0
        for index, example in enumerate(examples):
            wire = {role: _on_the_wire(value) for role, value in example.items() if role in columns and value is not None}
            batch.append((index, wire))
            size += sum(len(value) if isinstance(value, str) else 64 for value in wire.values())
            if len(batch) >= self._batch_size or size >= BODY_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _check_classes(self, said: Sequence[Any]) -> None:
        """The service describes a model's first version alone; one that was let in with other classes is not read by these.

        Raises :class:`ServiceError`.
        """
        scores = (one.get("scores") for one in said if isinstance(one, Mapping))
        other = next((one for one in scores if isinstance(one, Mapping) and set(one) != set(self.about.labels)), None)
        if other is not None and self._address.version is not None:
            theirs, first = ", ".join(other), ", ".join(self.about.labels)
            raise ServiceError(
                f"version {self.version} of {self.name} tells the classes {theirs}, and the model's first version {first}\n"
                "    → Promote it first, or ask its run: `tunesmith predict RUN`."
            )

    def _ask(self, batch: list[tuple[int, Any]]) -> list[Reply]:
        """The replies of one request; one that is refused for an example is repeated without it, one too large in halves."""
        replies: list[Reply] = []
        while batch:
            body = json.dumps({"inputs": [wire for _, wire in batch]}, ensure_ascii=True).encode()
            start = time.perf_counter()
            answer = self._service.send("POST", f"/predict/{quote(self.about.name, safe='')}", body)
            if answer.status_code == 200:
                whole = self._service.json(answer)
                said, version = whole.get("predictions"), whole.get("version")
                if not isinstance(said, list) or len(said) != len(batch):
                    raise ServiceError(f"{self.url} did not answer every input of a request")
                self._check_classes(said)
                took = time.perf_counter() - start
                heard = (plain.heard(one, self.about.labels) for one in said)
                both = zip(batch, heard, strict=True)
                return [*replies, *(Reply(index, one, seconds=took, version=version) for (index, _), one in both)]
            told = message(answer)
            if answer.status_code == 413 and len(batch) > 1:
                middle = len(batch) // 2
                return [*replies, *self._ask(batch[:middle]), *self._ask(batch[middle:])]
            place = 0 if answer.status_code == 413 else _place(told, len(batch))
            if place is None:
                raise self._service.refusal(answer.status_code, told)
            index, _ = batch.pop(place)
            replies.append(Reply(index, problem=_WHICH.sub("", told).lstrip(".: ")))
        return replies


def _bytes(value: Any) -> Any:
    """A medium as the bytes of a file."""
    if isinstance(value, str | Path):
        try:
            return Path(value).read_bytes()
        except OSError as error:
            raise DataError(f"{value} cannot be read: {error.strerror}") from error
    if hasattr(value, "save"):  # a PIL image
        import io

        stream = io.BytesIO()
        value.save(stream, format="PNG")
        return stream.getvalue()
    return value


def _on_the_wire(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes | bytearray) else value


def _place(told: str, size: int) -> int | None:
    """Which input of a request a message is about.

    >>> _place("inputs[3].text: is a number, not text", size=8), _place("inputs[3].text: is empty", size=2)
    (3, None)
    """
    found = _WHICH.match(told)
    return int(found[1]) if found and int(found[1]) < size else None
