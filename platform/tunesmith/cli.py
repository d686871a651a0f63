"""The ``tunesmith`` command: collects the verbs, and turns errors into messages and exit codes. Imports nothing heavy.

A verb is an entry point of the group ``tunesmith.commands`` that names a click command. ``--help`` reads the first line of each
verb's module docstring from its source, so that no verb is imported before it is called.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from tunesmith.errors import EXIT_ERROR, EXIT_OK, EXIT_USER, Terminated, TunesmithError, nearest

GROUP = "tunesmith.commands"
ORDER = ("init", "validate", "train", "evaluate", "runs", "show", "reproduce", "doctor", "schema")
"""The order of a newcomer's way through; verbs of other packages follow by name."""

DEBUG_VARIABLE = "TUNESMITH_DEBUG"
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
EXIT_TERMINATED = 143


@cache
def verbs() -> dict[str, EntryPoint]:
    """The verbs of every installed package, by name, in the order of ``--help``."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    ranks = {name: rank for rank, name in enumerate(ORDER)}
    return {
        name: found[name]
        for name in sorted(found, key=lambda name: (ranks.get(name, len(ranks)), name))
        if _source(found[name])
    }


def _source(point: EntryPoint) -> Path | None:
    """The file of a verb's module, found without importing it; None where the module is not there."""
    try:
        spec = importlib.util.find_spec(point.module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def one_line(point: EntryPoint) -> str:
    """The first line of the docstring of a verb's module, read and not imported; empty where it has none."""
    source = _source(point)
    try:
        text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) if source else None
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""
    return (text or "").partition("\n")[0].rstrip(".")


class Verbs(click.Group):
    """A click group whose commands are imported when they are called, and whose errors end in a message and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command and leave the process with its exit code, as the console script does."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        sys.exit(_run(self, args, prog_name or "tunesmith", complete_var, **extra))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the verbs."""
        return list(verbs())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        point = verbs().get(cmd_name)
        if point is None:
            return None
        command = point.load()
        if not isinstance(command, click.Command):
            raise TunesmithError(f"the verb {cmd_name} ({point.value}) is no click command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was called. Raises :class:`click.UsageError` with the nearest name where there is none."""
        if args and args[0] not in verbs():
            near = nearest(args[0], verbs())
            hint = f"did you mean {near}?" if near else "the verbs are " + ", ".join(verbs())
            raise click.UsageError(f"there is no verb {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with a line each, none of them imported."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, one_line(point)) for name, point in verbs().items()])


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"tunesmith {version('tunesmith')}")
        ctx.exit()


@click.group(
    "tunesmith",
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    subcommand_metavar="VERB [ARGS]...",
)
@click.option("--debug", is_flag=True, help=f"Show tracebacks; the same as {DEBUG_VARIABLE}=1.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Fine-tune a pre-trained model on your labelled data, prove that it is good, and put it to work.

    Begin with `tunesmith init TASK`, then `tunesmith train recipe.yaml`.
    """
    context.color = _colour()
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def _run(group: Verbs, args: Sequence[str] | None, prog_name: str, complete_var: str | None, **extra: Any) -> int:
    """Run one command and return its exit code; every message goes to standard error."""
    try:
        with _ending_in_order():
            result = group.main(args, prog_name, complete_var, standalone_mode=False, **extra)
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        cause = error.__cause__ or error
        ended, code = ("terminated", EXIT_TERMINATED) if isinstance(cause, Terminated) else ("interrupted", EXIT_INTERRUPTED)
        _say("\n".join([ended, *getattr(cause, "__notes__", ())]))
        return code
    except click.exceptions.NoArgsIsHelpError as error:
        _say(error.format_message())
        return EXIT_USER
    except click.ClickException as error:
        return _usage(error)
    except TunesmithError as error:
        if _debugging():
            sys.excepthook(type(error), error, error.__traceback__)
        _say(f"{click.style('error:', fg='red', bold=True)} {error}")
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except Exception as error:
        return _defect(error)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM ends what runs meanwhile as Ctrl-C does: a run is left to go on with, and no process stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _terminated(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice, and the second must not cut the clearing up short
    raise Terminated


def _usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    if context is not None:
        _say(context.get_usage())
    message = error.format_message()
    if isinstance(error, click.NoSuchOption) and context is not None:
        names = [name for param in context.command.get_params(context) for name in param.opts if name.startswith("-")]
        near = nearest(error.option_name, names)
        message = f"there is no option {error.option_name}: " + (
            f"did you mean {near}?" if near else f"there are {', '.join(names)}"
        )
    _say(f"{click.style('error:', fg='red', bold=True)} {message}")
    return EXIT_USER


def _defect(error: Exception) -> int:
    """An error nobody meant to raise: the traceback goes to a file, or to the screen when debugging."""
    import tempfile
    import traceback

    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    _say(f"{click.style('error:', fg='red', bold=True)} {what}\nThis is a defect of Tunesmith.")
    if _debugging():
        traceback.print_exc()
    else:
        from tunesmith.runs.masking import masked_command

        with tempfile.NamedTemporaryFile("w", prefix="tunesmith-", suffix=".log", delete=False, encoding="utf-8") as log:
            log.write("$ " + " ".join(masked_command(sys.argv)) + "\n" + traceback.format_exc())
        _say(f"The traceback is in {log.name}; please report it. `tunesmith --debug …` shows it here.")
    return EXIT_ERROR


def _debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _say(text: str) -> None:
    # A closed standard error leaves nobody to tell, and is no reason for another error.
    with contextlib.suppress(OSError):
        click.echo(text, err=True, color=_colour())


def _colour() -> bool | None:
    """False where ``NO_COLOR`` asks for none; None leaves it to whether the output is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


if __name__ == "__main__":
    main()
