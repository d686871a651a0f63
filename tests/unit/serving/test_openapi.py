"""The documentation is of the service: schemathesis makes requests of it, good and bad, and none is answered with 5xx."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from support.served import Service, listening
from tunesmith_serving import door
from unit.serving.conftest import _load

pytestmark = pytest.mark.unit

PATIENT = settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_header_that_a_caller_may_send_is_there(service: Service) -> None:
    paths = service.ask("GET", "/openapi.json").json()["paths"]
    for path in ("/predict/{name}", "/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        told = {one["name"].lower() for one in paths[path]["post"]["parameters"] if one["in"] == "header"}
        assert {door.DEADLINE, door.VERSION, door.STICKY} <= told


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: str(mode.value))
def test_no_request_of_the_documentation_breaks_the_service(
    mode: schemathesis.GenerationMode, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Requests as the document allows them, and as it does not."""
    loaded = [_load(name, tmp_path_factory) for name in ("text", "text-pair", "vit")]
    service = Service(tmp_path_factory.mktemp("openapi"), *(one.engine() for one in loaded))

    asked: Counter[int] = Counter()
    with listening(service.app) as url:  # one event loop for all requests, as in life
        headers = {"x-api-key": service.key}
        for found in schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers).get_all_operations():

            @PATIENT
            @given(case=found.ok().as_strategy(generation_mode=mode), name=st.sampled_from(("text", "text-pair", "vit")))
            def attempt(case: schemathesis.Case, name: str) -> None:
                if "name" in case.path_parameters:
                    case.path_parameters["name"] = name
                answer = case.call(headers=headers)
                asked[answer.status_code] += 1
                late = answer.status_code == 504 and "X-Deadline-Seconds" in case.headers
                assert answer.status_code < 500 or late, (case.method, case.path, answer.text)
                assert answer.status_code == 200 or set(answer.json()) == {"error"}

            with contextlib.suppress(Unsatisfiable):  # a path without anything in it cannot be asked wrongly
                attempt()
    assert sum(asked.values()) > 50
    assert asked[200 if mode is schemathesis.GenerationMode.POSITIVE else 422] > 0
