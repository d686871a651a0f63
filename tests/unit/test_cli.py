"""The command: verbs are found without importing them, and every error ends in a message and an exit code."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tunesmith import cli

Invoke = Callable[..., Result]
COMMAND = str(Path(sys.executable).with_name("tunesmith"))

VERB = '''
"""Greet somebody.

More about it.
"""
import os, signal, click
from tunesmith import errors

@click.command("greet")
@click.argument("how")
@click.option("--loudly", is_flag=True)
def command(how, loudly):
    """Greet somebody, HOW."""
    match how:
        case "user":
            raise errors.DataError("row 3 has no label: add one")
        case "gate":
            raise errors.GateFailed("accuracy 0.8 is below 0.9")
        case "failed":
            raise errors.TrainingFailed("worker 1 died; see train.log")
        case "defect":
            raise ZeroDivisionError("boom")
        case "interrupt":
            raise KeyboardInterrupt
        case "terminate":
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                click.echo("left in order")
        case "exit":
            click.get_current_context().exit(5)
    click.echo(f"hello {how}")
'''


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Runs ``tunesmith`` with three installed verbs: one that works, one that cannot be imported, one that is not there."""
    package = tmp_path / "plugin_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "greet.py").write_text(VERB)
    (package / "broken.py").write_text('"""A verb whose import fails."""\nraise RuntimeError("imported too early")\n')
    points = [EntryPoint(name, f"plugin_of_a_test.{name}:command", cli.GROUP) for name in ("broken", "greet", "absent")]
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(cli, "entry_points", lambda group: points)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    # Whatever the command sets in the environment is undone with this.
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "")
    cli.verbs.cache_clear()
    yield lambda *arguments: CliRunner().invoke(cli.main, arguments)
    cli.verbs.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plugin_of_a_test")]:
        del sys.modules[name]


def test_help_describes_verbs_that_it_does_not_import(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert "greet   Greet somebody\n" in result.output
    assert "broken  A verb whose import fails\n" in result.output
    assert "plugin_of_a_test.greet" not in sys.modules


def test_a_verb_whose_module_is_missing_is_not_listed(invoke: Invoke) -> None:
    assert "absent" not in invoke("--help").output
    assert invoke("absent").exit_code == 2


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("world", 0, "hello world"),
        ("user", 2, "error: row 3 has no label: add one"),
        ("gate", 3, "accuracy 0.8 is below 0.9"),
        ("failed", 1, "worker 1 died; see train.log"),
        ("interrupt", 130, "interrupted"),
        ("terminate", 143, "left in order"),
        ("terminate", 143, "terminated"),
        ("exit", 5, ""),
    ],
)
def test_each_ending_has_its_exit_code(invoke: Invoke, how: str, code: int, words: str) -> None:
    result = invoke("greet", how)
    assert result.exit_code == code
    assert words in result.output
    assert "Traceback" not in result.output


def test_messages_go_to_standard_error(invoke: Invoke) -> None:
    result = invoke("greet", "user")
    assert result.stdout == ""
    assert "row 3" in result.stderr


def test_a_defect_is_called_one_and_its_traceback_is_kept(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("greet", "defect")
    assert result.exit_code == 1
    assert "error: ZeroDivisionError: boom\nThis is a defect of Tunesmith." in result.stderr
    assert "Traceback" not in result.stderr
    (log,) = tmp_path.glob("tunesmith-*.log")
    assert str(log) in result.stderr
    assert "ZeroDivisionError: boom" in log.read_text()


def test_debug_shows_tracebacks(invoke: Invoke, tmp_path: Path) -> None:
    for how in ("defect", "user"):
        assert "Traceback (most recent call last)" in invoke("--debug", "greet", how).stderr
    assert not list(tmp_path.glob("tunesmith-*.log"))


def test_a_verb_that_cannot_be_imported_is_a_defect(invoke: Invoke) -> None:
    assert "RuntimeError: imported too early" in invoke("broken").stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gret", "x"], "there is no verb 'gret': did you mean greet?"),
        (["zzz"], "there is no verb 'zzz': the verbs are broken, greet"),
        (["greet", "--loud", "x"], "there is no option --loud: did you mean --loudly?"),
        (["greet"], "Missing argument 'HOW'"),
        (["greet", "a", "b"], "unexpected extra argument"),
        (["--zzz"], "there is no option --zzz: there are --debug, --version"),
    ],
)
def test_wrong_usage_gets_the_nearest_name(invoke: Invoke, arguments: list[str], words: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_without_a_verb_it_shows_its_help(invoke: Invoke) -> None:
    result = invoke()
    assert result.exit_code == 2
    assert "Begin with" in result.stderr
    assert "error:" not in result.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(cli.main, ["--version"]).output.startswith("tunesmith 0.")


def test_the_verbs_of_tunesmith_stand_in_the_order_of_use() -> None:
    cli.verbs.cache_clear()
    names = list(cli.verbs())
    assert names[:2] == ["init", "validate"]
    assert all(cli.one_line(point) for point in cli.verbs().values())


def test_a_closed_pipe_is_no_error_to_speak_of() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([COMMAND, "schema"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    os.close(writing)
    assert result.stderr == ""


def test_colours_are_left_out_where_they_are_not_wanted(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(cli.main, ["greet", "user"], color=True).stderr


def test_a_recipe_is_validated_within_a_second(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "task: text-classification\nmodel: {model_name_or_path: a/b}\ndata: {train: 'hf://a/b'}\n"
    )
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([COMMAND, "validate", "recipe.yaml"], cwd=tmp_path, capture_output=True, timeout=60, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time, which other processes on the machine do not stretch as they do the clock.
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 1
