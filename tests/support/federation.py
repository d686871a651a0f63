"""Federations in this process: the real server, app and sites over a grid that calls them, and faults where one is wanted."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from support.data import MemorySplit
from support.fits import recipe_for
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Preprocessing
from tunesmith_federated import client_app
from tunesmith_federated.codec import decode, encode
from tunesmith_federated.flower import Context, Error, Grid, Message, RecordDict, stand_alone
from tunesmith_federated.holdings import Counted, Held
from tunesmith_federated.messages import opened, replying
from tunesmith_federated.protocol import Reply, Tensors
from tunesmith_federated.rounds import Federation, Plan
from tunesmith_federated.server_state import Book
from tunesmith_federated.site import Site

Fault = Callable[[Message, Callable[[Message], Message]], Message | None]
"""Takes a message and the site's own way to answer; None says nothing, ever."""


class LocalGrid(Grid):
    """Asks the sites one after the other, in the order in which they were asked, or backwards."""

    def __init__(self, sites: Sequence[Site], faults: Mapping[str, Fault] | None = None, backwards: bool = False) -> None:
        stand_alone()
        self._sites = dict(enumerate(sites, start=1))
        self.faults = dict(faults or {})
        self.online = set(self._sites)
        self._backwards = backwards
        self._replies: dict[str, Message] = {}
        self.asked: list[tuple[str, str]] = []

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return sorted(self.online)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        for message in sent:
            message.metadata.__dict__["_message_id"] = secrets.token_hex(8)
        for message in reversed(sent) if self._backwards else sent:
            site = self._sites[message.metadata.dst_node_id]
            self.asked.append((site.name, message.metadata.message_type))
            fault = self.faults.get(site.name)
            reply = fault(message, self._answer) if fault else self._answer(message)
            if reply is not None:
                self._replies[message.metadata.message_id] = reply
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        client_app.find = lambda _: self._sites[node]
        context = Context(run_id=0, node_id=node, node_config={}, state=RecordDict(), run_config={})
        return client_app.app(message, context)


def lost(message: Message, _: Any) -> Message:
    """The site cannot be reached."""
    return Message(Error(1, "Node Unavailable"), reply_to=message)


class InMemory:
    """Rows that a site has in memory."""

    def __init__(self, rows: Sequence[dict[str, Any]], holdout: int, all_rows: Sequence[dict[str, Any]]) -> None:
        self._rows, self._holdout, self._all = list(rows), holdout, list(all_rows)

    def count(self, recipe: Recipe, task: Any) -> Counted:
        cut = len(self._rows) - self._holdout
        return Counted(task.collect(self._rows[:cut]), cut, self._holdout)

    def open(self, recipe: Recipe, task: Any) -> Held:
        state = task.freeze(task.merge([task.collect(self._all)]), recipe)
        preprocessing = Preprocessing(state, task.load_processor(recipe))
        cut = len(self._rows) - self._holdout
        held = MemorySplit(task, self._rows[cut:], preprocessing) if self._holdout else None
        return Held(MemorySplit(task, self._rows[:cut], preprocessing), held, state)


def federation_recipe(
    base: Path, folder: Path, training: Mapping[str, Any], task: str = "text-classification", **federation: Any
) -> Recipe:
    """A recipe over sites in memory."""
    recipe = recipe_for(task, base, folder, **training)
    overrides = [f"federation.{key}={value}" for key, value in {"round_timeout_s": 20, "min_examples": 1, **federation}.items()]
    return recipe.override(*overrides)


def sites_of(recipe: Recipe, rows: Sequence[dict[str, Any]], sites: int, folder: Path, holdout: int = 0) -> list[Site]:
    """The rows dealt out evenly, in order."""
    parts = np.array_split(np.arange(len(rows)), sites)
    jobs: dict[str, Any] = {}
    return [
        Site(f"site-{i}", InMemory([rows[k] for k in part], holdout, rows), folder / f"site-{i}", jobs)
        for i, part in enumerate(parts)
    ]


def federation(recipe: Recipe, grid: Grid, folder: Path, rows: Sequence[dict[str, Any]], **plan: Any) -> Federation:
    """The server's side; without ``rows`` it asks the sites for their classes."""
    task = load_task(recipe.task)
    known = {"state": task.freeze(task.merge([task.collect(rows)]), recipe)} if rows else {}
    told: list[Any] = []
    made = Federation(Plan("job", recipe.resolved(), task, folder, **{**known, "wait_s": 0.1, **plan}), grid, told.append)
    made.told = told  # type: ignore[attr-defined]  # for the tests to read
    return made


def run(recipe: Recipe, grid: Grid, folder: Path, rows: Sequence[dict[str, Any]], **plan: Any) -> Book:
    """All rounds."""
    return federation(recipe, grid, folder, rows, **plan).run()


def refusing(kind: str, reason: str = "the job has had its time of this site (limits.seconds)") -> Any:
    """A site that will not do what is asked of this kind."""

    def fault(message: Message, answer: Callable[[Message], Message]) -> Message:
        reply = Reply.from_json(opened(answer(message), decode).words)
        if reply.kind != kind:
            return answer(message)
        refused = Reply(reply.site, reply.kind, reply.job, reply.round, refused=reason)
        return replying(refused, encode({}), encode({}), message)

    return fault


def notes(made: Any) -> list[str]:
    """What a federation that :func:`federation` made has told."""
    return [str(one["message"]) for one in made.told if one["kind"] == "note"]


def same(one: Tensors, other: Tensors, tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=name)


def altered(change: Callable[[Tensors], None]) -> Any:
    """A site whose update is changed on its way."""

    def fault(message: Message, answer: Callable[[Message], Message]) -> Message:
        reply = answer(message)
        parcel = opened(reply, decode)
        change(parcel.model)
        return replying(Reply.from_json(parcel.words), encode(parcel.model), encode(parcel.extras), message)

    return fault


def of_nan(update: Tensors) -> None:
    for name in list(update)[:1]:
        update[name] = torch.full_like(update[name], float("nan"))


def hundredfold(update: Tensors) -> None:
    for name in update:
        update[name] = update[name] * 100
