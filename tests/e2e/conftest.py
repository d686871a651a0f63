"""A copy of the repository as a newcomer has it, a shell in it, and the demo, run once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Shell = Callable[..., str]


@dataclass(frozen=True)
class Demo:
    """What `make demo` left."""

    folder: Path
    """The copy of the repository in which it ran."""
    output: str
    """What it wrote to the terminal."""
    seconds: float
    """How long it took, its environment being installed."""

    @property
    def run(self) -> Path:
        """The run folder."""
        (found,) = (self.folder / "runs").glob("digits-*")
        return found


def copy_of_the_repository(folder: Path) -> Path:
    """All that git knows or would take, without what commands have made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run_in(folder: Path, command: list[str], timeout: float) -> str:
    """Runs a command as a user of the installed environment would, and returns all that it wrote. Fails with it."""
    binaries = Path(sys.executable).parent
    venv = binaries.parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "VENV": str(venv),
        # This environment is taken as it is: installing the copy into it would point it at a folder that goes away.
        "MAKEFLAGS": f"--old-file={venv}/.installed --old-file={venv}/.demo-installed",
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{command} ran longer than {timeout} s and wrote:\n{output}")
    assert process.returncode == 0, f"{command} ended with {process.returncode} and wrote:\n{output}"
    return output


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository for the commands of the README, which follow upon one another."""
    return copy_of_the_repository(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="session")
def shell() -> Shell:
    """``shell(folder, script, timeout=...)``: what a bash script writes; the test fails where it does."""

    def run(folder: Path, script: str, timeout: float = 300) -> str:
        return run_in(folder, ["bash", "-euo", "pipefail", "-c", script], timeout)

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, shell: Shell) -> Demo:
    """`make demo`, run once for all tests that look at what it leaves."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("demo"))
    start = time.perf_counter()
    output = shell(folder, "make demo", timeout=600)
    return Demo(folder, output, time.perf_counter() - start)
