"""``--on`` decides where a command runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tunesmith.cli import main
from tunesmith.verbs.options import dispatch, on_option, without_on


@click.command()
@on_option
def verb(on: str | None) -> None:
    """A verb."""
    click.echo(f"on {on}")


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [([], {}, "on None"), (["--on", "h:1"], {}, "on h:1"), ([], {"RAY_ADDRESS": "e:2"}, "on e:2")],
)
def test_an_address_reaches_the_verb(arguments: list[str], environment: dict[str, str], expected: str) -> None:
    assert CliRunner().invoke(verb, arguments, env=environment).output.strip() == expected


def test_the_option_wins_over_the_environment() -> None:
    assert CliRunner().invoke(verb, ["--on=h:1"], env={"RAY_ADDRESS": "e:2"}).output.strip() == "on h:1"


@pytest.mark.parametrize(("arguments", "expected"), [([], "on None"), (["--on", "http://h:1"], "on http://h:1")])
def test_what_is_done_from_here_is_submitted_nowhere(arguments: list[str], expected: str) -> None:
    @click.command()
    @partial(on_option, from_here=lambda given: True)
    def here(on: str | None) -> None:
        click.echo(f"on {on}")

    assert CliRunner().invoke(here, arguments, env={"RAY_ADDRESS": "http://e:2"}).output.strip() == expected


MODEL = "http://127.0.0.1:9/v2/models/m"


@pytest.mark.parametrize(
    "words",
    [["evaluate", MODEL], ["gate", MODEL, "--gate", "gate.yaml"], ["compare", "runs/a", MODEL], ["compare", MODEL, "runs/a"]],
)
def test_a_served_model_is_asked_from_here_and_its_key_goes_into_no_job(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("rules: [{metric: accuracy, min: 0.5}]\n")
    words = [str(tmp_path / word) if word == "gate.yaml" else word for word in words]
    refused = CliRunner().invoke(main, [*words, "--key", "secret", "--on", "http://127.0.0.1:9"])
    assert (refused.exit_code, "a served model is asked from here" in refused.output) == (2, True), refused.output


def test_a_cluster_to_join_is_no_job() -> None:
    dispatch("head:6379", ["train"])
    dispatch(None, ["train"])


@pytest.mark.parametrize("given", [["--on", "http://h", "train", "r.yaml"], ["train", "--on=http://h", "r.yaml"]])
def test_the_job_is_the_same_command_without_the_address(given: list[str]) -> None:
    assert without_on(given) == ["train", "r.yaml"]
