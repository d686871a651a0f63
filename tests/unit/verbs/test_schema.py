"""``tunesmith schema`` prints the JSON Schema, or writes it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tunesmith.cli import main
from tunesmith.recipe.schema import json_schema


def test_it_prints_the_schema() -> None:
    assert json.loads(CliRunner().invoke(main, ["schema"]).output) == json_schema()


def test_it_writes_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "schemas/tunesmith.schema.json"
    assert CliRunner().invoke(main, ["schema", "--out", str(path)]).output == f"wrote {path}\n"
    assert json.loads(path.read_text()) == json_schema()
