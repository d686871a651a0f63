"""The browser that pages are looked at in, and what tests that need it have in common."""

from __future__ import annotations

import os
import shutil

import pytest

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
PHONE, DESK = 390, 1280
"""Widths in CSS pixels."""

NEEDED = pytest.mark.skipif(
    # Where everything is checked (CI), a missing browser is a failure: `make browser-deps` installs it.
    BROWSER is None and not os.environ.get("CI"),
    reason="no Chromium; `make browser-deps` installs one",
)
