"""A run: the folder, on a disk or at a URI, that holds everything a training did."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tunesmith import storage
from tunesmith.errors import RunError, UserError
from tunesmith.runs import manifest as manifests
from tunesmith.runs import notebook, own_code
from tunesmith.runs.artefact import FILE as ARTEFACT_FILE
from tunesmith.runs.compare import differences
from tunesmith.runs.history import History
from tunesmith.runs.lock import RunLock
from tunesmith.runs.masking import masked_values
from tunesmith.runs.verdict import Estimates, estimates

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Answer

Status = Literal["running", "interrupted", "failed", "done"]
RECIPE, MANIFEST, HISTORY, VERDICT = "recipe.yaml", "manifest.json", "metrics.jsonl", "metrics.json"
TEACHER = "teacher"
"""The folder in a run of self-training that holds the teacher, a run itself."""
CREATE_ATTEMPTS = 5


class Run:
    """One run. Opening it reads nothing but the manifest; the rest is read when it is asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.manifest: dict[str, Any] = _read_manifest(self.path)
        self._history = History(self.file(HISTORY))
        self._lock = RunLock(self.path)

    @classmethod
    def create(cls, recipe: Recipe, command: Sequence[str], path: str | None = None) -> Run:
        """A new run folder for the recipe: ``NAME-YYYYMMDD-HHMMSS-xxxx`` in ``training.output_dir``, or at ``path``.

        The run is locked from its first moment: go on with ``with run.lock(): …``. Raises :class:`RunError` where it cannot be
        written, or ``path`` has something in it already.
        """
        resolved = recipe.resolved()
        parent = resolved.training.output_dir if path is None else path
        try:
            storage.check_writable(parent)
        except UserError as error:
            raise RunError(str(error)) from error
        if path is None:
            path = _new_folder(parent, resolved.name)
        elif not _is_free(path, resolved):
            raise RunError(f"{path} is not empty, and not a run.\n    → Name a new folder, or a run of this recipe.")
        lock = RunLock(path)
        lock.acquire()
        try:
            _write_start(path, resolved, command, own_code.collect(resolved))
        except BaseException:  # also Ctrl-C: the same command must find the folder free
            for name in (RECIPE, *own_code.tops(resolved)):
                storage.delete(storage.join(path, name))
            lock.release()
            raise
        run = cls(path)
        run._lock = lock
        return run

    @classmethod
    def open(cls, path_or_name: str | os.PathLike[str], output_dir: str = "runs") -> Run:
        """The run at a path or URI, or by its name, a unique beginning of it, or ``latest`` in ``output_dir``.

        Raises :class:`RunError`, which names the nearest run.
        """
        from tunesmith.runs.find import open_run

        return open_run(os.fspath(path_or_name), output_dir)

    def __reduce__(self) -> tuple[type[Run], tuple[str]]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"Run({self.path!r}, status={self.status!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: name, status, the headline metrics with their intervals, the place of the report."""
        verdict = self.verdict
        found = estimates(verdict)
        names = notebook.first(verdict.get("headline"), found)
        rows = [(name, notebook.with_interval(*(found[name][key] for key in ("value", "low", "high")))) for name in names]
        place = f"Report: {self.file('report.html')}" if found else f"Folder: {self.path}"
        return notebook.table(f"{self.name}: {self.status}", ("Metric", "Value"), rows, place)

    @property
    def name(self) -> str:
        """The folder's name."""
        return storage.name(self.path if not storage.is_local(self.path) else storage.local_path(self.path).resolve())

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe that this run follows."""
        from tunesmith.recipe import Recipe

        return Recipe.load(self.file(RECIPE), check_paths=False)

    @functools.cached_property
    def recipe_values(self) -> dict[str, Any]:
        """The recipe's plain values, unchecked, so that the record of an older version can still be read."""
        from tunesmith.recipe.yaml_tree import parse

        try:
            return parse(storage.read_text(self.file(RECIPE))).values
        except (FileNotFoundError, UnicodeDecodeError):
            return {}

    @property
    def status(self) -> Status:
        """``running``, ``interrupted``, ``failed`` or ``done``; a run whose process died without a word is ``interrupted``."""
        said: Status = self.manifest.get("status", "interrupted")
        return "interrupted" if said == "running" and self.lock().holder() is None else said

    @property
    def metrics(self) -> dict[str, float | None]:
        """The verdict on the test split: each metric's value by name; empty before evaluation."""
        return {name: estimate["value"] for name, estimate in self.estimates.items()}

    @property
    def estimates(self) -> Estimates:
        """The verdict on the test split with intervals: ``{metric: {value, low, high, n}}``."""
        return estimates(self.verdict)

    @property
    def verdict(self) -> dict[str, Any]:
        """The whole of ``metrics.json``; empty before evaluation."""
        try:
            found = storage.read_json(self.file(VERDICT))
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as error:
            raise RunError(f"{self.file(VERDICT)} is damaged: {error}\n    → Run `tunesmith evaluate {self.path}`.") from error
        return found if isinstance(found, dict) else {}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``, in the order they were written."""
        return self._history.read()

    def file(self, name: str) -> str:
        """The path or URI of something in the run: ``run.file("report.html")``."""
        return storage.join(self.path, name)

    def lock(self) -> RunLock:
        """The run's lock: ``with run.lock(): …`` keeps every other process from writing it."""
        return self._lock

    def update(self, **fields: Any) -> None:
        """Change fields of the manifest, in one piece; a mapping is merged into the one that is there."""
        current = _read_manifest(self.path)
        self.manifest = _merged(current, masked_values(fields))
        storage.write_json(self.file(MANIFEST), self.manifest)

    def set_status(self, status: Status) -> None:
        """Say how the run stands, and when; lines of the history that still wait are written."""
        if status not in get_args(Status):
            raise ValueError(f"no such status: {status!r}")
        self._history.flush()
        self.update(status=status, **({} if status == "running" else {"finished": _now()}))

    def log_metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to the history: ``step``, ``split``, losses, metrics; ``time`` counts seconds from the run's start."""
        started = dt.datetime.fromisoformat(self.manifest["created"]).timestamp()
        self._history.append({"time": round(time.time() - started, 3), **record})

    def flush(self) -> None:
        """Write the lines of the history that still wait (only at a remote place some do)."""
        self._history.flush()

    def truncate_history(self, step: int) -> int:
        """Drop the lines beyond the checkpoint's step that training resumes from; returns how many were dropped."""
        return self._history.truncate_after(step)

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises :class:`RunError` that lists the keys in which the run's recipe differs from this one."""
        if self.manifest.get("recipe_fingerprint") == recipe.fingerprint():
            return
        mine = recipe.resolved().model_dump(mode="json")
        lines = [f"  {key}: {theirs!r} in the run, {ours!r} now" for key, theirs, ours in differences(self.recipe_values, mine)]
        raise RunError(
            "\n".join(
                [f"{self.path} is a run of another recipe:", *(lines or ["  it was made by another version of Tunesmith"])]
            )
            + "\n    → Name another folder, use the run's own recipe.yaml, or add --force to start this run over."
        )

    def adopt(self, recipe: Recipe) -> None:
        """Take over another recipe: the one that won a search, which this run is from now on a run of."""
        resolved = recipe.resolved()
        storage.write_text(self.file(RECIPE), resolved.to_yaml())
        own_code.keep(own_code.collect(resolved), self.path)
        seeds = {"training": resolved.training.seed}
        self.update(recipe_fingerprint=resolved.fingerprint(), seeds=seeds, workers=resolved.training.num_workers)
        self.__dict__.pop("recipe", None)
        self.__dict__.pop("recipe_values", None)

    def start_over(self, recipe: Recipe, command: Sequence[str]) -> None:
        """Empty the folder and begin in it with another recipe (``--force``); the run stays locked, as after :meth:`create`.

        Raises :class:`RunError` where a living process writes the run.
        """
        if not self._lock.held:
            self._lock.acquire()
        keep, code = {"lock.json"}, own_code.collect(recipe)  # which may stand in this very folder
        for place in [*storage.list_files(self.path), *storage.list_dirs(self.path)]:
            if storage.name(place) not in keep:
                storage.delete(place)
        self.__dict__.pop("recipe", None)
        self.__dict__.pop("recipe_values", None)
        _write_start(self.path, recipe.resolved(), command, code)
        self.manifest = _read_manifest(self.path)
        self._history = History(self.file(HISTORY))

    def remove(self) -> None:
        """Delete the folder and all in it, and give the lock back. Raises :class:`RunError` where another process writes it."""
        if not self._lock.held:
            self._lock.acquire()
        self._lock.release()
        storage.delete(self.path)

    def local_model(self) -> Path:
        """The ``model/`` folder on this machine; a remote one is downloaded once and kept. Raises :class:`RunError`."""
        place = self.file("model")
        if not storage.exists(storage.join(place, ARTEFACT_FILE)):
            raise RunError(
                f"{self.path} has no model yet: the run is {self.status}.\n    → Run `tunesmith train` again to finish it."
            )
        if storage.is_local(place):
            return storage.local_path(place)
        mark = storage.read_bytes(storage.join(place, ARTEFACT_FILE)) + str(self.manifest.get("finished")).encode()
        key = hashlib.blake2b(place.encode() + b"\0" + mark, digest_size=8).hexdigest()
        kept = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tunesmith" / "models" / f"{self.name}-{key}"
        return kept if kept.is_dir() else storage.download(place, kept)

    def predict(self, examples: Sequence[Mapping[str, Any] | str]) -> list[Answer]:
        """What the run's model says of each example, in order. Raises :class:`RunError` where there is no model yet."""
        return list(self._predictor.predict(examples))

    @functools.cached_property
    def _predictor(self) -> Any:
        """The model, loaded at the first prediction. The predictor stands a floor above, so it is imported only here."""
        from tunesmith.evaluation.predictor import Predictor

        return Predictor.load(str(self.local_model()))


def is_run(place: str) -> bool:
    """Whether a folder holds a run."""
    return storage.exists(storage.join(place, MANIFEST))


def _new_folder(output_dir: str, name: str) -> str:
    """A folder that no other process has: its making fails where the name is taken."""
    for _ in range(CREATE_ATTEMPTS):
        stamp = dt.datetime.now(dt.UTC).astimezone().strftime("%Y%m%d-%H%M%S")
        path = storage.join(output_dir, f"{name}-{stamp}-{secrets.token_hex(2)}")
        try:
            storage.make_dir(path, exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{output_dir}: no free name for a new run was found.\n    → Try again.")


def _is_free(path: str, recipe: Recipe) -> bool:
    """Whether a run may begin in a folder: nothing is there, or what a start that was interrupted has left."""
    left = {"lock.json", RECIPE, *own_code.tops(recipe)}
    there = {storage.name(place) for place in (*storage.list_files(path), *storage.list_dirs(path))}
    return not there or ("lock.json" in there and there <= left)


def _write_start(path: str, recipe: Recipe, command: Sequence[str], code: Mapping[str, bytes]) -> None:
    """The recipe first and the manifest last: a folder is a run once it has a manifest."""
    storage.write_text(storage.join(path, RECIPE), recipe.to_yaml())
    own_code.keep(code, path)
    storage.write_json(storage.join(path, MANIFEST), masked_values(manifests.collect(recipe, command)))


def _read_manifest(path: str) -> dict[str, Any]:
    """The manifest of a run folder. Raises :class:`RunError`."""
    try:
        found = storage.read_json(storage.join(path, MANIFEST))
    except FileNotFoundError:
        what = "is not a run: it has no manifest.json" if storage.exists(path) else "does not exist"
        raise RunError(f"{path} {what}.\n    → `tunesmith runs` lists the runs there are.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{storage.join(path, MANIFEST)} is damaged: {error}\n    → Restore it, or train again.") from error
    if not isinstance(found, dict):
        raise RunError(f"{storage.join(path, MANIFEST)} is damaged: it is no JSON object.\n    → Restore it, or train again.")
    return found


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with the values of ``new``; mappings are merged all the way down."""
    out = dict(old)
    for key, value in new.items():
        before = out.get(key)
        out[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return out


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
