"""Addresses of served models: ``openai:URL#MODEL`` behind the OpenAI protocol, any other behind the Open Inference Protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tunesmith.errors import UserError

if TYPE_CHECKING:
    from tunesmith.evaluation.service import Address

PREFIX = "openai:"
FORM = "openai:http://HOST:PORT/v1#MODEL"

_ENDPOINT = re.compile(r"(?P<root>https?://.*/v1)(/(chat/)?completions|/responses|/models)?/?")


def is_openai(place: str) -> bool:
    """Whether a place is the address of a server of the OpenAI protocol."""
    return place.startswith(PREFIX)


def address_of(url: str) -> Address:
    """The service's root, and the model there. Raises :class:`UserError`.

    >>> address_of("openai:http://127.0.0.1:8000/v1/#org/model")
    Address(root='http://127.0.0.1:8000/v1', model='org/model', version=None)
    >>> address_of("openai:http://127.0.0.1:8000/v1/chat/completions").model is None
    True
    >>> address_of("http://127.0.0.1:8000/v1/chat/completions")
    Traceback (most recent call last):
    ...
    tunesmith.errors.UserError: http://127.0.0.1:8000/v1/chat/completions is an address of the OpenAI protocol
        → Write openai:http://127.0.0.1:8000/v1#MODEL.
    """
    from tunesmith.evaluation.service import Address

    if not is_openai(url):
        if found := _ENDPOINT.fullmatch(url):
            raise UserError(f"{url} is an address of the OpenAI protocol\n    → Write {PREFIX}{found['root']}#MODEL.")
        return Address.of(url)
    place, _, model = url.removeprefix(PREFIX).partition("#")
    address = Address.of(re.sub(r"/chat/completions/?$", "", place), FORM)
    if address.model is not None:
        raise UserError(f"{place} is the address of a v2 server\n    → Write it without {PREFIX}, or {FORM}.")
    return Address(address.root, model or None)
