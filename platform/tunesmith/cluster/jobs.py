"""Submits a command to a cluster through Ray's Jobs API, follows what it prints, and returns its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import socket
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cluster.connect import REACH_TIMEOUT, passed_on_variables, use_token
from tunesmith.cluster.packing import Package, pack
from tunesmith.cluster.quiet import quiet_ray
from tunesmith.cluster.wheel import build_wheel
from tunesmith.errors import EXIT_ERROR, EXIT_OK, ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

EXIT_INTERRUPTED = 130
LOST_AFTER = 120.0
"""Seconds without any contact after which the job is no longer followed. It goes on."""

RAYS_OWN_LINES = re.compile(r"^.*(Runtime env is setting up\.|Running entrypoint for job \S+: ).*\n", re.MULTILINE)
"""What Ray writes at the head of a job's log."""

SCRIPT = "tunesmith_job.py"
MAIN = """# The wheel is on the path of the job, but without its requirements, and its script is not on PATH.
import importlib.util
import sys

needed = "click pydantic yaml pyarrow datasets torch transformers accelerate".split()
lacking = [name for name in needed if importlib.util.find_spec(name) is None]
if lacking:
    print(f"error: {sys.executable} on the cluster lacks {', '.join(lacking)}", file=sys.stderr)
    print("    → install the requirements of Tunesmith on its nodes (constraints.txt pins them)", file=sys.stderr)
    sys.exit(2)
from tunesmith.cli import main

main(prog_name="tunesmith")
"""
"""What the job runs."""


def run(address: str, arguments: Sequence[str]) -> int:
    """Runs ``tunesmith ARGUMENTS`` on the cluster whose dashboard is at ``address`` and returns its exit code.

    Ctrl-C stops following, not the job.

    Raises:
        ClusterError: the cluster cannot be reached or refuses the token, or the command's files cannot travel.
    """
    with quiet_ray(None):
        return _run(address, arguments)


def _run(address: str, arguments: Sequence[str]) -> int:
    client = _client(address)
    with tempfile.TemporaryDirectory(prefix="tunesmith-job-") as folder:
        package = pack(arguments, Path(folder))
        job = _submit(client, package)
    _say(f"submitted to {address} as {job}")
    try:
        asyncio.run(_follow(client, job, _printer()))
    except KeyboardInterrupt:
        _say(f"\n{job} goes on.\n{_how_to(job, address)}")
        return EXIT_INTERRUPTED
    except ConnectionError as error:
        raise ClusterError(f"lost contact with {address}: {error}; {job} goes on\n{_how_to(job, address)}") from error
    return _exit_code(client, job)


def _client(address: str) -> JobSubmissionClient:
    """A client of Ray's Jobs API. Raises :class:`ClusterError` within seconds where there is none."""
    parts = urllib.parse.urlsplit(address)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname or "", port), timeout=REACH_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"nothing answers at {address}: {error}\n"
            f"    → the address of the Ray dashboard, http://HEAD:8265; from elsewhere forward it: "
            f"`ssh -L 8265:localhost:8265 HEAD`, then --on http://localhost:8265"
        ) from error
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    use_token()
    try:
        # Ray would let RAY_ADDRESS win over the address it is given.
        with _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterError(
            f"the cluster at {address} refused this user's token\n"
            f"    → set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the cluster's token "
            f"(on its head: `ray get-auth-token`, or ~/.ray/auth_token)"
        ) from error
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise ClusterError(
            f"{address} answers, but not as a Ray dashboard: {_first_line(error)}\n"
            f"    → http://HEAD:8265, or the port that `ray start --head` printed"
        ) from error


def _submit(client: JobSubmissionClient, package: Package) -> str:
    (package.folder / SCRIPT).write_text(MAIN, encoding="utf-8")
    script = os.path.relpath(SCRIPT, package.start_in)
    entrypoint = f"cd {shlex.quote(package.start_in)} && python {shlex.join([script, *package.arguments])}"
    environment: dict[str, Any] = {"py_modules": [str(build_wheel())], "working_dir": str(package.folder)}
    environment["env_vars"] = passed_on_variables() | {"PYTHONUNBUFFERED": "1"}
    try:
        return client.submit_job(entrypoint=entrypoint, runtime_env=environment)
    except (RuntimeError, ConnectionError, OSError) as error:
        raise ClusterError(f"the cluster did not take the job: {_first_line(error)}") from error


async def _follow(client: JobSubmissionClient, job: str, show: Callable[[str], None]) -> None:
    """Hands on what the job prints until it has ended.

    Raises:
        ConnectionError: there was no contact for :data:`LOST_AFTER` seconds.
    """
    shown = 0
    contact = time.monotonic()
    while True:
        seen = 0
        with contextlib.suppress(*_connection_errors()):
            # Every connection begins again at the first line.
            async for chunk in client.tail_job_logs(job):
                contact = time.monotonic()
                show(chunk[max(0, shown - seen) :])
                seen += len(chunk)
                shown = max(shown, seen)
        try:
            ended = client.get_job_info(job).status.is_terminal()
            if ended:
                show(client.get_job_logs(job)[shown:])
                return
            contact = time.monotonic()
        except _connection_errors() as error:
            if time.monotonic() - contact > LOST_AFTER:
                raise ConnectionError(_first_line(error)) from error
        await asyncio.sleep(1)


def _connection_errors() -> tuple[type[Exception], ...]:
    import aiohttp
    import requests

    return (RuntimeError, OSError, aiohttp.ClientError, requests.RequestException)


def _exit_code(client: JobSubmissionClient, job: str) -> int:
    """The job's own exit code. Raises :class:`ClusterError` where the command never started."""
    from ray.job_submission import JobStatus

    info = client.get_job_info(job)
    if info.status == JobStatus.SUCCEEDED:
        return EXIT_OK
    if info.status == JobStatus.STOPPED:
        _say(f"{job} was stopped")
        return EXIT_INTERRUPTED
    code = info.driver_exit_code
    if code is None:
        raise ClusterError(f"the cluster could not start {job}: {info.message}")
    return code if 0 < code < 256 else EXIT_ERROR


def _printer() -> Callable[[str], None]:
    """Prints a job's log without the lines that Ray writes at its head."""
    at_head = True

    def show(text: str) -> None:
        nonlocal at_head
        if at_head:
            text, count = RAYS_OWN_LINES.subn("", text)
            at_head = count > 0 or not text
        sys.stdout.write(text)
        sys.stdout.flush()

    return show


def _how_to(job: str, address: str) -> str:
    return (
        f"    → follow it again: ray job logs --follow {job} --address {address}\n"
        f"    → stop it: ray job stop {job} --address {address}"
    )


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
