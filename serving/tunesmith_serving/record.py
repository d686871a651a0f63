"""The records of running services, by which ``status``, ``stop`` and the verbs of a rollout find them."""

from __future__ import annotations

import fcntl
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tunesmith.errors import UserError
from tunesmith_serving.plan import Planned


@dataclass(frozen=True)
class Record:
    """A running service, as it is found again."""

    url: str
    pid: int
    """Its process; 0 for one that a cluster runs."""
    on: str | None
    models: tuple[str, ...]
    log: str
    started: float
    born: int = 0
    """When the process began, as :func:`born` has it: another one may have its number after a crash; 0 is not known."""
    ray: str = ""
    """Where its own Ray is joined, ``HOST:PORT``; nothing for one that a cluster runs."""
    rollouts: tuple[str, ...] = ()
    """Models of which a new version comes in."""
    gates: dict[str, str] = field(default_factory=dict)
    """``NAME@VERSION`` → what let it in: its gate, when, and how it came through."""
    gate_files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Model → the gate by which a version of it was ``let in`` last, and the one by which it was ``promoted``."""
    drain_s: float = 15.0
    """Seconds that accepted requests may take when it stops: the longest of its models'."""

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rsplit(":", 1)[1])

    def alive(self) -> bool:
        """Whether its process is there, and is that process still."""
        if not self.pid:
            return True
        if self.born and born(self.pid) not in (0, self.born):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def ready(self) -> bool:
        """Whether it would answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def file(self) -> Path:
        """Where it is written down."""
        return state_folder() / f"{self.port}.json"


def state_folder() -> Path:
    """``$XDG_STATE_HOME/tunesmith/serve``, by default in ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tunesmith" / "serve"


def records() -> list[Record]:
    """The services that run, the oldest first; what is left of dead ones is removed."""
    found = []
    for file in sorted(state_folder().glob("*.json")):
        record = _read(file)
        if record is None:
            continue
        if record.alive():
            found.append(record)
        else:
            file.unlink(missing_ok=True)
    return sorted(found, key=lambda one: one.started)


def chosen(port: int | None) -> Record:
    """The service at the port, or the only one. Raises :class:`UserError`."""
    running = {one.port: one for one in records()}
    there = ", ".join(map(str, running)) or "none"
    if not running or (port is not None and port not in running):
        where = "here" if port is None else f"at port {port}"
        raise UserError(f"no service of yours runs {where}; those there are: {there}")
    if port is None and len(running) > 1:
        raise UserError(f"{len(running)} services run.\n    → Name a port: {there}")
    return running[port] if port is not None else next(iter(running.values()))


def write(record: Record) -> None:
    """Write a record down, whole."""
    record.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    passing = record.file.with_suffix(f".{os.getpid()}")
    passing.write_text(json.dumps(asdict(record)), encoding="utf-8")
    passing.replace(record.file)


def rewrite(record: Record, made: Callable[[Record], Record]) -> Record:
    """Write down what is made of a record as it stands by now, so that nothing is lost that another command has written.

    Gives what stands there; a record that is gone stays gone.
    """
    if not record.file.exists():
        return record
    with record.file.with_suffix(".writing").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for as long as a small file takes
        there = _read(record.file)
        if there is not None:
            record = made(there)
            write(record)
    return record


def _read(file: Path) -> Record | None:
    """The record in a file; None where there is none."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        lists = {key: tuple(values.get(key, ())) for key in ("models", "rollouts")}
        return Record(**{**values, **lists})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def names(models: Sequence[Planned]) -> tuple[str, ...]:
    """Each model as a record names it."""
    return tuple(called(one.name, one.version, one.settings.backend) for one in models)


def called(name: str, version: str, backend: str) -> str:
    """``NAME@VERSION``, and what computes it where that is not PyTorch."""
    return f"{name}@{version}" + (f" ({backend})" if backend != "torch" else "")


def born(pid: int) -> int:
    """Clock ticks from the machine's start to the process's (proc(5)); 0 where there is no ``/proc``, or no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
