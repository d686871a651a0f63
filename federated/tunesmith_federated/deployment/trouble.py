"""What may go wrong on a site's line to the fleet, in words, and whether it may pass by itself."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from tunesmith_federated.deployment.proxy import NOT_A_SITE, NOT_ITS_KEY

RUN_IS_OVER = "the run that asked is over"

ALREADY_THERE = 2004
"""Flower's code where a node goes online that is online already: its process died, and its heartbeats have not run out."""


@dataclass(frozen=True)
class Trouble:
    """Why a request failed."""

    what: str
    """A sentence, with the way out where there is one."""
    passes: bool
    """Whether trying again may help."""


def explain(error: Exception, server: str) -> Trouble:
    """What is behind an error of a request to ``server``."""
    if isinstance(error, httpx.HTTPStatusError):
        return _status(error.response, server)
    causes = list(_causes(error))
    said = " ".join(str(one).lower() for one in causes)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause, server)
        if isinstance(cause, socket.gaierror):
            return Trouble(f"{server}: there is no machine of this name", passes=True)
    if "alert" in said:  # the server's answer to our certificate
        if "expired" in said:
            return Trouble(f"{server} says that this site's certificate has expired\n    → Ask for a new one.", passes=False)
        why = ("unknown ca" in said and "is of another federation") or "is not what it wants"
        return Trouble(
            f"{server} says that this site's certificate {why}\n    → Take the folder made for this site.", passes=False
        )
    if isinstance(error, httpx.TimeoutException):
        return Trouble(f"{server} does not answer in time", passes=True)
    if "refused" in said:
        return Trouble(f"{server} refuses the connection: the federation is not up there, or the port is another", passes=True)
    return Trouble(f"{server} cannot be reached: {str(error) or type(error).__name__}", passes=True)


def _certificate(error: ssl.SSLCertVerificationError, server: str) -> Trouble:
    said = error.verify_message.lower()
    if "expired" in said:
        new = "`tunesmith federation renew FOLDER`, then `stop` and `up`"
        return Trouble(f"the certificate of {server} has expired\n    → Its operator makes a new one: {new}.", passes=True)
    if "hostname" in said or "ip address" in said:
        return Trouble(
            f"the certificate of {server} is for another name\n    → server: in site.yaml is as in `federation init --host`.",
            passes=False,
        )
    return Trouble(
        f"{server} is not the server of this federation: its certificate is not by ca.crt ({error.verify_message})\n"
        "    → Check server: and the folder of certificates.",
        passes=False,
    )


def _status(response: httpx.Response, server: str) -> Trouble:
    text = response.text[:500].strip()
    if NOT_A_SITE in text:
        return Trouble(f"{server} lets this site in no more: {NOT_A_SITE}\n    → Ask the federation's operator.", passes=False)
    if NOT_ITS_KEY in text:
        return Trouble(
            f"{server} refuses this site's node.key: {NOT_ITS_KEY}\n    → Take the folder made for this site.", passes=False
        )
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return Trouble(
            f"{server} does not know this site's node key, or the clocks are more than five minutes apart\n"
            "    → Take the folder made for this site; set the clock.",
            passes=False,
        )
    if response.status_code == httpx.codes.FORBIDDEN:
        return Trouble(RUN_IS_OVER, passes=False)
    if response.status_code in (502, 503, 504):
        return Trouble(f"{server} is there, but its SuperLink is not (HTTP {response.status_code})", passes=True)
    if response.status_code >= 500:
        return Trouble(f"{server} has failed (HTTP {response.status_code})", passes=True)
    try:
        said = json.loads(text)
        if said["code"] == ALREADY_THERE:
            return Trouble(f"{server} still counts this site as joined, from before; that ends within a minute", passes=True)
        text = f"{said['detail']} (code {said['code']})"
    except (ValueError, KeyError, TypeError):
        pass
    return Trouble(f"{server} refuses: {text}", passes=False)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
