"""A model behind the OpenAI protocol (``POST /chat/completions``), as a target of the test bench: it answers with words.

Source: https://platform.openai.com/docs/api-reference/chat/create; vLLM, llama.cpp, Ollama and others answer alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx

from tunesmith.errors import DataError, ServiceError, UserError
from tunesmith.evaluation.chat_words import Words
from tunesmith.evaluation.openai_url import PREFIX, address_of
from tunesmith.evaluation.service import GREETING_SECONDS, REFUSING, Asking, Service, message
from tunesmith.evaluation.target_file import TargetFile
from tunesmith.evaluation.targets import Provided, Reply
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Example, State, Task

PATH = "/chat/completions"
TASK = "text-classification"
"""What is asked where nobody says."""
UNLISTED = frozenset({403, 404, 405})
"""Answers to ``GET /models`` of servers that list none, or not with this key; their models can be asked."""
OURS = ("model", "messages", "stream", "n")
"""Keys of a request that no parameter may be."""


class ChatTarget:
    """One model of a server; made by :func:`connect`."""

    provides: frozenset[Provided] = frozenset({"labels"})
    version = "not told"
    batch_size = 1

    def __init__(self, service: Service, model: str, words: Words) -> None:
        """``words`` says how an example is asked about, and what an answer means."""
        self.name, self.model = f"{PREFIX}{service.url}#{model}", model
        self.task: Task = words.task
        self.state: State = words.state
        self._service, self._words = service, words

    def close(self) -> None:
        """End what is under way, and let go of the connections."""
        self._service.close()

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """A reply for each example, as they come in; no more is read than is under way."""
        return self._service.together(self._ask, enumerate(examples))

    def body(self, examples: Iterable[Example]) -> bytes:
        """The request about one example, as JSON.

        Raises :class:`UserError` for several, and :class:`DataError` where it lacks a role that the prompt names.
        """
        one, *more = examples
        if more:
            raise UserError(f"{self.name} is asked about one sample a request\n    → Leave out --batch-size.")
        asked = {"model": self.model, "messages": self._words.messages(one), **self._words.parameters()}
        return json.dumps(asked).encode()

    def infer_url(self) -> str:
        """Where requests go."""
        return self._service.url + PATH

    def mapping(self) -> dict[str, Any]:
        """How it is asked and read, as plain values: answers that were read otherwise do not belong to these."""
        return {"chat": self._words.chat.model_dump(exclude={"model"}), "parameters": self._words.parameters()}

    def _ask(self, numbered: tuple[int, Example]) -> list[Reply]:
        index, example = numbered
        start = time.perf_counter()
        try:
            body = self.body([example])
        except DataError as error:
            return [Reply(index, problem=str(error))]
        answer = self._service.send("POST", PATH, body, told=REFUSING)
        if answer.status_code in REFUSING:
            return [Reply(index, problem=message(answer))]
        said = self._text(self._service.json(answer))
        return [Reply(index, self._words.answer(said), seconds=time.perf_counter() - start)]

    def _text(self, said: Mapping[str, Any]) -> str:
        """The words of an answer; empty where the model said none. Raises :class:`ServiceError`."""
        try:
            content = said["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise ServiceError(
                f"{self._service.url} answers without a message: {str(dict(said))[:200]}\n"
                "    → Is this a server of the OpenAI protocol, and the URL without /chat/completions?"
            ) from error
        return content if isinstance(content, str) else ""


def connect(
    url: str,
    key: str | None = None,
    *,
    task: Task | None = None,
    state: State | None = None,
    file: TargetFile | None = None,
    asking: Asking | None = None,
    transport: httpx.BaseTransport | None = None,
) -> ChatTarget:
    """The model at ``openai:URL#MODEL``; the arguments are those of :func:`tunesmith.evaluation.v2_target.connect`.

    Raises:
        UserError: no such URL; its labels or its model are not known; its task, prompt or labels cannot be asked in words.
        ServiceError: it cannot be reached, or refuses the key.
    """
    file = file or TargetFile()
    address = address_of(url)
    _check_file(file)
    task = task or load_task(file.task or TASK)
    words = Words.of(task, state if state is not None else _state(file, task, url), file.chat)
    service = Service.of(address.root, key, asking or Asking(), transport)
    try:
        return ChatTarget(service, _model(service, address.model or file.chat.model, url), words)
    except BaseException:
        service.close()
        raise


def _check_file(file: TargetFile) -> None:
    """Raises :class:`DataError` for keys that say nothing here, and would be passed over."""
    wrong = next((name for name in ("inputs", "outputs", "rename") if getattr(file, name)), None)
    if wrong is not None:
        raise DataError(
            f"target.yaml: {wrong}: a server of the OpenAI protocol has no tensors\n"
            "    → Leave it out; chat.prompt and chat.words say how it is asked and read."
        )
    ours = next((name for name in OURS if name in file.chat.parameters), None)
    if ours is not None:
        raise DataError(f"target.yaml: chat.parameters.{ours}: the test bench says this itself\n    → Leave it out.")


def _state(file: TargetFile, task: Task, url: str) -> State:
    if not file.labels:
        raise UserError(
            f"{url} does not say its labels\n"
            "    → Write them in a target.yaml (`labels: [bad, good]`) and give --target target.yaml, or give --like RUN."
        )
    pairs = "text_pair" in task.columns and "{text_pair}" in file.chat.prompt
    return {"labels": list(file.labels), "multi_label": file.multi_label, "pairs": pairs}


def _model(service: Service, named: str, url: str) -> str:
    """The model's name: as it was said, or the only one that the server lists. Asked first: who is not there is told soon."""
    answer = service.send("GET", "/models", deadline=GREETING_SECONDS, told=UNLISTED)
    if named:
        return named
    listed = service.json(answer).get("data") if answer.status_code == 200 else None
    names = [str(one["id"]) for one in listed or () if isinstance(one, Mapping) and "id" in one]
    if len(names) == 1:
        return names[0]
    there = f"; it has {', '.join(names[:8])}" if names else ""
    raise UserError(f"{url} names no model{there}\n    → Write {PREFIX}{service.url}#MODEL, or chat.model in target.yaml.")
