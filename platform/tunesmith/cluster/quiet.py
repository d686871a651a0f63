"""Keeps Ray off the screen: what it and its workers say is appended to a log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
"""Set where the user has not: no usage message, no progress bars of Ray's own beside ours."""

NOISE = "Failed to query Ray Train Controller actor state"
"""What Ray Train says every second where there is no dashboard to ask; harmless."""


class LogFile:
    """A text file to append to. What does not fit on the disk is forgotten: the log must not end, or speak over, the run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)  # what waited in a buffer would raise when the file is closed
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._file.closed

    def write(self, text: str) -> None:
        """Append text, whole."""
        with self._lock, contextlib.suppress(OSError):
            self._file.write(text.encode(errors="replace"))

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Said:
    """What was written to the two standard streams' descriptors while they were redirected."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._text = ""

    def text(self) -> str:
        """All of it so far; stays after the redirection has ended."""
        if not self._file.closed:
            self._file.seek(0)
            self._text = self._file.read().decode(errors="replace")
        return self._text


class Capture:
    """Redirects descriptors 1 and 2 while it is called as a context: Ray's C++ part writes there, past ``sys.stderr``."""

    def __init__(self, log: LogFile | None) -> None:
        self._log = log
        self.handler: logging.Handler = logging.NullHandler() if log is None else logging.StreamHandler(log)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def take_logger(self) -> None:
        """Give Ray's logger its handler again: ``ray.init(configure_logging=False)`` takes all away, and Python then shows
        warnings on the screen.
        """
        logging.getLogger("ray").handlers = [self.handler]

    @property
    def follows_workers(self) -> bool:
        """Whether the workers' output is wanted here at all."""
        return self._log is not None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Said]:
        """Redirects until the context ends, then appends what was said to the log."""
        with tempfile.TemporaryFile() as file:
            said = Said(file)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            with contextlib.ExitStack() as undo:
                for descriptor in (1, 2):
                    kept = os.dup(descriptor)
                    undo.callback(os.close, kept)
                    undo.callback(os.dup2, kept, descriptor)
                    os.dup2(file.fileno(), descriptor)
                # Python's own for loggers without a handler, as `ray.init` leaves Ray's: it writes to whatever `sys.stderr` is,
                # which a progress bar has led back to the screen.
                undo.callback(setattr, logging, "lastResort", logging.lastResort)
                logging.lastResort = self.handler
                try:
                    yield said
                finally:
                    text = said.text()
                    if self._log is not None:
                        self._log.write(text)


@contextlib.contextmanager
def quiet_ray(log_file: str | None) -> Iterator[Capture]:
    """Routes Ray's loggers and its workers' output into ``log_file`` (dropped where None) while the context lasts."""
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack:
        log: LogFile | None = None
        if log_file is not None:
            log = stack.enter_context(contextlib.closing(LogFile(Path(log_file))))
        capture = Capture(log)
        stack.enter_context(_loggers(capture.handler))
        stack.enter_context(_workers(log))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray(\.|$)")
            yield capture


@contextlib.contextmanager
def _loggers(handler: logging.Handler) -> Iterator[None]:
    """Replaces the handlers of Ray's loggers by this one."""
    import ray  # noqa: F401  (importing it gives the loggers their own handlers)

    names = [name for name in logging.root.manager.loggerDict if name == "ray" or name.startswith("ray.")]
    before = []
    for name in names:
        logger = logging.getLogger(name)
        before.append((logger, logger.handlers[:], logger.propagate))
        logger.handlers = [handler] if name == "ray" else []
        logger.propagate = name != "ray"
    try:
        yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate


@contextlib.contextmanager
def _workers(log: LogFile | None) -> Iterator[None]:
    """Writes the workers' prints, which Ray brings to the driver, to ``log`` instead of the screen."""
    # Ray has no public way to say where worker output goes. `emit` is the one door through which all of it passes, and
    # `print_to_stdstream` what the raylet's errors (a worker died) are printed with.
    from ray._private import worker as driver
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    def write(data: Mapping[str, Any]) -> None:
        if log is None or log.closed or data.get("pid") == "autoscaler":  # its status table comes every five seconds
            return
        who = data.get("actor_name") or data.get("task_name") or "ray"
        lines = [line for line in data.get("lines", ()) if NOISE not in line]
        log.write("".join(f"({who} pid={data.get('pid')}, {data.get('ip')}) {line}\n" for line in lines))

    def write_error(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
        write(data)

    before = dispatcher.emit, driver.print_to_stdstream
    dispatcher.emit = write  # type: ignore[method-assign]
    driver.print_to_stdstream = write_error
    try:
        yield
    finally:
        dispatcher.emit, driver.print_to_stdstream = before  # type: ignore[method-assign]
