"""The documentation is of the service: schemathesis makes requests of it, good and bad, and none is answered with 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

from support.served import Service
from unit.serving.conftest import _load

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The document of a service of texts, pairs and images, asked with its key."""
    loaded = [_load(name, tmp_path_factory) for name in ("text", "text-pair", "vit")]
    service = Service(tmp_path_factory.mktemp("openapi"), *(one.engine() for one in loaded))

    async def with_key(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], (b"x-api-key", service.key.encode())]
        await service.app(scope, receive, send)

    return schemathesis.openapi.from_asgi("/openapi.json", with_key)


schema = schemathesis.pytest.from_fixture("documented")


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_that_the_documentation_allows_or_forbids_breaks_the_service(case: Any) -> None:
    for name in ("text", "text-pair", "vit"):
        if "name" in case.path_parameters:
            case.path_parameters["name"] = name
        case.call_and_validate(checks=[not_a_server_error])
