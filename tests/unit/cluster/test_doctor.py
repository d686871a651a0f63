"""What `tunesmith doctor` says of Python itself."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

from tunesmith.cluster.doctor import examine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_an_environment_that_compiles_at_every_start_is_told_how_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool, compiled: bool
) -> None:
    module = tmp_path / "torch" / "__init__.py"
    module.parent.mkdir()
    module.touch()
    if compiled:
        cache = Path(importlib.util.cache_from_source(str(module)))
        cache.parent.mkdir(parents=True)
        cache.touch()
    spec = importlib.machinery.ModuleSpec("torch", None, origin=str(module))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", not written)
    monkeypatch.setattr(sys, "pycache_prefix", None)

    python = next(examine())

    assert python.name == "python"
    assert python.state == ("ok" if written or compiled else "warn")
    if python.state == "warn":
        assert f"-m compileall -q -j 0 {tmp_path}" in python.fix
