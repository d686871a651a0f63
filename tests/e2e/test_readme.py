"""Every command and every program of the README, in its order, in a copy of the repository."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

README = Path(__file__).parents[2] / "README.md"
FENCE = re.compile(r"(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)\n```", re.DOTALL)
BLOCKS = [match.groupdict() for match in FENCE.finditer(README.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block["code"].splitlines()[0]) for block in BLOCKS if block["why"] is None]
)
def test_a_command_of_the_readme_works(block: dict[str, str], demo: Demo, shell: Callable[..., str]) -> None:
    if block["language"] == "python":
        program = demo.folder.with_name("readme.py")
        program.write_text(block["code"] + "\n", encoding="utf-8")
        assert shell(demo.folder, f"python {program}", timeout=1200)
    elif block["code"] == "make demo":  # what follows goes on in the folder where it was run
        assert demo.output
    else:
        assert shell(demo.folder, block["code"], timeout=1200)


def test_few_commands_of_the_readme_are_not_run() -> None:
    assert len(BLOCKS) >= 7
    assert sum(block["why"] is not None for block in BLOCKS) <= 3


def test_every_page_and_file_that_the_readme_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    paths = re.findall(r"`((?:platform|federated|serving|cluster|examples|tests|docs)/[\w./-]*)`", text)

    assert [name for name in [*links, *paths] if not (README.parent / name).exists()] == []
