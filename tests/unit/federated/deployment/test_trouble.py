"""What goes wrong on the line, in words: and whether waiting helps."""

from __future__ import annotations

import httpx
import pytest

from tunesmith_federated.deployment.proxy import NOT_A_SITE, NOT_ITS_KEY
from tunesmith_federated.deployment.trouble import RUN_IS_OVER, explain

pytestmark = pytest.mark.unit


def answer(status: int, text: str = "") -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://fed:8443/v1/fleet/pull-messages")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status, text=text, request=request))


@pytest.mark.parametrize(
    ("error", "what", "passes"),
    [
        (answer(403, NOT_A_SITE), "lets this site in no more", False),
        (answer(403, NOT_ITS_KEY), "refuses this site's node.key", False),
        (answer(403, '{"code": 2007, "detail": "The current run status does not allow this"}'), RUN_IS_OVER, False),
        (answer(401), "does not know this site's node key", False),
        (answer(503), "its SuperLink is not", True),
        (answer(500), "has failed", True),
        (answer(412, '{"code": 2004, "detail": "Failed to activate SuperNode."}'), "still counts this site as joined", True),
        (httpx.ConnectTimeout("timed out"), "does not answer in time", True),
        (httpx.ConnectError("[Errno 111] Connection refused"), "the federation is not up there", True),
        (
            httpx.ReadError("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"),
            "not what it wants",
            False,
        ),
        (httpx.ReadError("sslv3 alert certificate expired"), "has expired", False),
        (httpx.ReadError("tlsv1 alert unknown ca"), "of another federation", False),
    ],
)
def test_each_has_its_sentence(error: Exception, what: str, passes: bool) -> None:
    trouble = explain(error, "fed:8443")
    assert what in trouble.what
    assert trouble.passes is passes
