"""Each site's comparison has a file of its own, whatever the site is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_federated.comparing import file_name

pytestmark = pytest.mark.unit


@given(st.text(max_size=300), st.text(max_size=300))
def test_different_sites_have_different_files(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)
    assert len(file_name(one)) < 200
    assert "/" not in file_name(one)
    assert not file_name(one).startswith(".")
