"""A copy of the repository as a newcomer has it, a shell in it, and the demo in it, run once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Shell = Callable[..., str]
STAMPS = (".installed", ".demo-installed")
"""What the Makefile leaves in an environment that it has filled."""


@dataclass(frozen=True)
class Demo:
    """What `make demo` left."""

    folder: Path
    """The copy of the repository in which it ran."""
    output: str
    """What it wrote to the terminal."""
    run: Path
    """The run folder."""
    comparison: Path
    """The folder in which the variants were compared."""


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
    shadow_of_this_environment(folder.with_name(f"{folder.name}-venv"))
    return folder


def shadow_of_this_environment(folder: Path) -> Path:
    """A virtual environment that `make` takes for installed, made of links to this one.

    `make` in a copy of the repository would otherwise install the copy into this environment.
    """
    folder.mkdir(parents=True)
    for entry in Path(sys.prefix).iterdir():
        if entry.name not in STAMPS:
            (folder / entry.name).symlink_to(entry)
    for stamp in STAMPS:
        (folder / stamp).touch()
    return folder


def run_in(folder: Path, script: str, timeout: float) -> str:
    """Runs a bash script as a user of the installed environment would, and returns all that it wrote. Fails with it."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VENV": str(folder.with_name(f"{folder.name}-venv")),
        # The keys and services of whoever runs the tests are not theirs.
        "XDG_CONFIG_HOME": str(folder.with_name(f"{folder.name}-config")),
        "XDG_STATE_HOME": str(folder.with_name(f"{folder.name}-state")),
        # What has been checked here need not be checked again there: mypy looks at the hashes of the files.
        "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache"),
    }
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
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
        pytest.fail(f"{script}\nran longer than {timeout} s and wrote:\n{output}")
    assert process.returncode == 0, f"{script}\nended with {process.returncode} and wrote:\n{output}"
    assert "pip install" not in output, f"{script}\ninstalled something:\n{output}"
    return output


@pytest.fixture(scope="session")
def shell() -> Shell:
    """``shell(folder, script, timeout=...)``: what a bash script writes; the test fails where it does."""

    def run(folder: Path, script: str, timeout: float = 600) -> str:
        return run_in(folder, script, timeout)

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, shell: Shell) -> Demo:
    """`make demo` in a copy of the repository, run once for all: to look at what it leaves, and to go on by the README."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("house"))
    output = shell(folder, "make demo", timeout=1200)
    (run,), (comparison,) = (folder / "runs").glob("digits-*"), (folder / "runs").glob("compare-messy-*")
    return Demo(folder, output, run, comparison)
