"""The front door's configuration: HAProxy takes it, and what would end up in it by mistake is refused."""

from __future__ import annotations

import shutil

import pytest

from tunesmith.errors import UserError
from tunesmith_federated.deployment import proxy
from tunesmith_federated.deployment.folder import Federation

pytestmark = pytest.mark.unit


def test_haproxy_takes_it(federation: Federation) -> None:
    federation.state.mkdir()
    text = proxy.write_config(federation, "127.0.0.1:8443", 1234).read_text(encoding="utf-8")
    assert "verify required" in text
    assert "127.0.0.1:1234 ssl verify required" in text


def test_a_path_that_haproxy_would_read_as_something_else_is_refused(federation: Federation) -> None:
    moved = Federation.open(shutil.move(federation.folder, federation.folder.with_name("two words")))
    with pytest.raises(UserError, match="no blanks or quotes"):
        proxy.write_config(moved, "127.0.0.1:8443", 1234)
