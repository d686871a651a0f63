"""Commands in processes of their own, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def tunesmith(
    *arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """Runs ``tunesmith ARGUMENTS`` in ``cwd`` and returns what became of it; stopped after ``timeout`` seconds."""
    return subprocess.run(
        [sys.executable, "-m", "tunesmith.cli", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
