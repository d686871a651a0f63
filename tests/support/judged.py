"""The texts that a served model is judged on, the map of its tensors, and what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from support.data import texts
from support.foreign import Foreign

Judge = Callable[..., Result]
"""``tunesmith evaluate URL …`` with more arguments."""
ROWS = texts(90)
"""A foreign model knows the first 40; it is asked about the rest."""


def mapping(words: Foreign, **changes: Any) -> None:
    """Writes ``target.yaml``."""
    told = {
        "task": "text-classification",
        "labels": words.labels,
        "inputs": {"text": {"name": "document"}},
        "outputs": {"label": {"name": "verdict"}, "probabilities": {"name": "odds"}},
    }
    Path("target.yaml").write_text(json.dumps({**told, **changes}))


def verdict(folder: str = "judged") -> dict[str, Any]:
    return dict(json.loads(Path(folder, "metrics.json").read_text()))
