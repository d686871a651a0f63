"""Servers of the OpenAI protocol: their addresses are known, so that whoever gives one is told why it cannot be judged yet."""

from __future__ import annotations

import re

from tunesmith.errors import UserError

_ENDPOINT = re.compile(r"https?://.*/v1(/(chat/)?completions|/responses|/models)?/?")


def refuse_openai(place: str) -> None:
    """Raises :class:`UserError` for ``openai:URL``, and for the address of an endpoint of that protocol.

    >>> refuse_openai("http://127.0.0.1:8321/v2/models/digits")
    >>> refuse_openai("openai:gpt")
    Traceback (most recent call last):
    ...
    tunesmith.errors.UserError: openai:gpt speaks the OpenAI protocol: it answers with free text, which no task here judges yet
        → Judge a served classifier or tagger: http://HOST:PORT/v2/models/NAME
    """
    if place.startswith("openai:") or _ENDPOINT.fullmatch(place):
        raise UserError(
            f"{place} speaks the OpenAI protocol: it answers with free text, which no task here judges yet\n"
            "    → Judge a served classifier or tagger: http://HOST:PORT/v2/models/NAME"
        )
