"""Runs: the folder that holds everything a training did, and the artefact in it."""

from __future__ import annotations

from tunesmith.runs.artefact import Artefact
from tunesmith.runs.find import find_resumable, find_runs, find_search, open_run
from tunesmith.runs.run import Run

__all__ = ["Artefact", "Run", "find_resumable", "find_runs", "find_search", "open_run"]
