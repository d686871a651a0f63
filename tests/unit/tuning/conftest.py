from __future__ import annotations

from pathlib import Path

import pytest

from support.searches import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Where searches are played, in the test's folder."""
    return Stage(tmp_path)
