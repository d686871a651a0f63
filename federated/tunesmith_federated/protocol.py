"""What server and sites say to one another: plain words beside the tensors, the same for every engine.

========  =====================================================  =====================================================
kind      the server asks                                        the site replies
========  =====================================================  =====================================================
describe  what do you hold, before round 1?                      counts above ``min_examples``, or a refusal
train     judge this model on what you hold back, then train it  sums of the judgement, the update, what it rests on
evaluate  judge this model                                       sums of the judgement
========  =====================================================  =====================================================

An update is what training has added to each parameter that travels. Rows, answers and file names never leave a site.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

import torch
from pydantic import TypeAdapter, ValidationError

Kind = Literal["describe", "train", "evaluate"]
Tensors = dict[str, torch.Tensor]
"""By parameter name, on the CPU."""

PROTOCOL = 1
"""Raised when old and new no longer understand one another; a site refuses what it does not speak."""


class _Words:
    """Plain data that travels as JSON."""

    def to_json(self) -> str:
        """As it travels."""
        return json.dumps(asdict(self))  # type: ignore[call-overload]  # its subclasses are dataclasses

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises :class:`ValueError` where a field is missing, unknown, or of another type than it should be."""
        try:
            values = json.loads(text)
        except RecursionError:
            raise ValueError(f"not a {cls.__name__}: it is too deep") from None
        known = {one.name for one in fields(cls)}  # type: ignore[arg-type]
        if not isinstance(values, dict) or set(values) - known:
            raise ValueError(f"not a {cls.__name__}: {sorted(set(values) - known) if isinstance(values, dict) else values!r}")
        try:
            found: Self = _adapter(cls).validate_json(text, strict=True)  # type: ignore[arg-type]  # a class is hashable
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"not a {cls.__name__}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        return found


@functools.cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


@dataclass(frozen=True)
class Ask(_Words):
    """A question to a site."""

    kind: Kind
    job: str
    """The federated run, by its id: the same when it is gone on with."""
    round: int
    """From 1; 0 before the first, and ``rounds + 1`` for the last judgement."""
    rounds: int
    recipe: str
    """The recipe as YAML, without the server's places of data."""
    fingerprint: str
    """Of the recipe (:func:`tunesmith_federated.asked_recipe.fingerprint`), as the server declares it; a site takes its own."""
    labels: list[str] | None = None
    """The classes that all sites share, once they are settled."""
    sites: int = 0
    """Sites whose updates become one, at least, as the server declares it; 0 where it declares nothing."""
    tunesmith: str = ""
    """The server's version."""
    protocol: int = PROTOCOL
    signatures: list[str] = field(default_factory=list)
    """Of the recipe (:mod:`tunesmith_federated.deployment.signatures`): the other thing that a site's owner allows by."""
    counted: int | None = None
    """The last round in which this site's update counted, 0 for none; None where it is the round before this one."""

    def to_json(self) -> str:
        """As it travels; a site that knows nothing of signatures, or of rounds that did not count, understands it without."""
        values = asdict(self)
        if not self.signatures:
            del values["signatures"]
        if self.counted in (None, self.round - 1):
            del values["counted"]
        return json.dumps(values)


@dataclass(frozen=True)
class Reply(_Words):
    """What a site says, beside its tensors."""

    site: str
    kind: Kind
    job: str
    round: int
    refused: str = ""
    """Why the site will not do it, for the server's log; empty where it has done it."""
    examples: int = 0
    """Rows that were trained on: what the update weighs."""
    steps: int = 0
    """Updates that were made."""
    loss: float | None = None
    """Mean training loss of the round."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """``describe``: what :meth:`Task.collect` says of the training rows, small counts left out."""
    sums: Mapping[str, Any] = field(default_factory=dict)
    """What the incoming model made of the rows held back (:mod:`tunesmith_federated.sums`); empty below ``min_examples``."""
    seconds: float = 0.0
    sent_bytes: int = 0
    """Of the tensors, as they travel."""
    tunesmith: str = ""
    protocol: int = PROTOCOL
