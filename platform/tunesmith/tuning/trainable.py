"""What a trial runs in its process: its recipe's training, by the same ``fit`` as everywhere.

Ray Tune keeps the process for the next trial, so that Python, PyTorch and Transformers are started once. A trial of several
workers starts Ray Train from here instead.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunesmith import storage
from tunesmith.errors import UserError
from tunesmith.tuning.job import Job
from tunesmith.tuning.trials import EVENTS

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Metrics
    from tunesmith.training.spec import Event, FitData, FitResult, FitSpec

PLACE = ("step", "steps", "epoch", "best_step", "time", "seconds", "gap")
"""What an evaluation tells beside its metrics."""

ENDING = "30"
"""Seconds in which a stopped trial must have left its process: workers of Ray Train take some (Ray gives it 2)."""

TRACEBACK = "traceback.txt"
"""Of a trial that failed for something else than a mistake of the user's."""

_frozen = False


def train_trial(config: dict[str, Any]) -> None:
    """Ray Tune's function: train what the job in the folder ``config["folder"]`` says, and report its evaluations.

    What goes wrong is reported, not raised: Ray starts a trial that raises again, which would not help. Only where its process
    dies that is right, and then it goes on from its last checkpoint.
    """
    from ray import tune

    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", ENDING)
    begun = time.perf_counter()
    job = Job.read(config["folder"])
    try:
        recipe = job.recipe()
        end = _train_here(job, recipe) if recipe.training.num_workers == 1 else _train_there(job, recipe)
    except Exception as error:
        end = {"status": "failed", **_told(job, error)}
    finally:
        _free_memory()
    tune.report({"end": {**end, "seconds": time.perf_counter() - begun}})


def _told(job: Job, error: Exception) -> dict[str, Any]:
    """Why a trial failed; of what is no mistake of the user's, the traceback is kept in the trial's folder."""
    if isinstance(error, UserError):
        return {"error": str(error), "mistake": True}
    place, written = storage.join(job.folder, TRACEBACK), "".join(traceback.format_exception(error))
    try:
        storage.write_text(place, written)
    except Exception as second:  # of a full disk, say: the error itself matters more
        print(written, file=sys.stderr)
        where = "could not be kept (" + str(second).partition("\n")[0] + ")"
    else:
        where = f"is in {place}"
    return {"error": f"{type(error).__name__}: {error}\n    Its traceback {where}"}


def _train_here(job: Job, recipe: Recipe) -> dict[str, Any]:
    """Train in this process."""
    from tunesmith.data import PreparedData
    from tunesmith.tasks import load_task
    from tunesmith.training.acceleration import use_cores
    from tunesmith.training.fit import FitContext, fit
    from tunesmith.training.parts import open_parts

    use_cores(job.sharers, recipe.training.resources_per_worker.get("CPU"))
    task = load_task(recipe.task)
    spec, data = open_parts(recipe, task, PreparedData.open(job.prepared), job.old_places())
    _freeze_once()
    with _start(job) as start:
        reporter = Reporter(job, recipe)
        context = FitContext(start=start, report=reporter.report, event=reporter.hear)
        context.steps = _steps_left(job, spec, data, context)
        if context.steps == 0:
            return {"status": "done", "fit_seconds": reporter.spent_until(None)}
        begun = time.perf_counter()
        result = fit(spec, data, context)
        fitted = reporter.earlier + time.perf_counter() - begun
    return {"status": "done", "fit_seconds": fitted, "objectives": _measured(job, spec, data, result, fitted)}


@contextlib.contextmanager
def _start(job: Job) -> Iterator[Any]:
    """Where training begins: this trial's own last checkpoint, its parent's (under new values), or the base model."""
    from tunesmith.training.checkpoint import Start
    from tunesmith.tuning.checkpoints import latest

    own = latest(job.folder)
    place = own or job.start
    if place is None:
        yield Start()
    else:
        with _local(place) as folder:
            yield Start(folder, mode="perturbed" if own is None and job.changed else "exact")


@contextlib.contextmanager
def _local(place: str) -> Iterator[Path]:
    """A folder on this machine with what is at ``place``."""
    import tempfile

    if storage.is_local(place):
        yield storage.local_path(place)
        return
    with tempfile.TemporaryDirectory(prefix="tunesmith-trial-") as folder:
        yield storage.download(place, Path(folder, "checkpoint"))


def _steps_left(job: Job, spec: FitSpec, data: FitData, context: Any) -> int | None:
    """Updates until this generation ends; None where the whole training is one."""
    if job.parts == 1:
        return None
    from tunesmith.training.composition import compose
    from tunesmith.training.updates import count_updates

    total, _ = count_updates(spec, compose(spec, data).size, context)
    done = storage.read_json(context.start.checkpoint / "training.json")["step"] if context.start.checkpoint else 0
    return max(0, round(total * (job.part + 1) / job.parts) - int(done))


class Reporter:
    """Hands a trial's evaluations and checkpoints on, and keeps its curves."""

    def __init__(self, job: Job, recipe: Recipe) -> None:
        from tunesmith.runs.history import History

        self._job, self._recipe, self._begun = job, recipe, time.perf_counter()
        self._history = History(storage.join(job.folder, EVENTS))
        self._scores: dict[int, float] = {}
        self._steps = 0
        self._epoch = 0.0
        self._heard = False
        self._judged: Event | None = None
        """The last evaluation, while its checkpoint is on its way."""
        self.earlier = 0.0
        """Seconds of earlier attempts in the training loop, up to the checkpoint that this one goes on from."""

    def hear(self, event: Event) -> None:
        """An event of the training loop: curves are kept as a run's are."""
        if event["kind"] == "start":
            self._steps = int(event["steps"])
            spent = self.spent_until(int(event["step"]))
            if not self._heard:  # workers of Ray Train may begin again meanwhile: that is this attempt's time
                self._heard, self.earlier = True, spent
            before = [line for line in self._history.read() if line["split"] == "validation"]
            self._scores = {line["step"]: _score(self._recipe, line) for line in before}
        if event["kind"] in ("step", "eval", "retention"):
            self._epoch = float(event["epoch"])
            line = {name: value for name, value in event.items() if name not in ("kind", "steps", "best_step")}
            self._history.append({"time": round(self.earlier + time.perf_counter() - self._begun, 3), **line})

    def follow(self, event: Event) -> None:
        """Of workers elsewhere: an evaluation counts once its checkpoint is there. Ends the thread like :meth:`report`."""
        from tunesmith.tuning.checkpoints import note_whole

        self.hear(event)
        if event["kind"] == "eval":
            self._judged = event
        if event["kind"] == "checkpoint":
            size = note_whole(self._job.folder, int(event["step"]))
            judged, self._judged = self._judged, None
            if judged is not None:
                self._history.flush()
                self._pass_on(judged, float(event["score"]), size)

    def spent_until(self, step: int | None) -> float:
        """Seconds that the trial had trained when it came to ``step`` (None is the last); curves beyond it are dropped."""
        if step is not None:
            self._history.truncate_after(step)
        return max((float(line["time"]) for line in self._history.read()), default=0.0)

    def report(self, metrics: Metrics, folder: Path | None) -> None:
        """A checkpoint, and where it was judged its metrics; ends the thread where the trial has lost."""
        from tunesmith.tuning.checkpoints import keep

        assert folder is not None
        told = dict(metrics)
        step, score = int(told.pop("step")), told.pop("score", None)
        if score is not None:
            self._scores[step] = score
        size = keep(folder, self._job.folder, step, self._scores)
        self._history.flush()
        if score is not None:
            self._pass_on({"step": step, **told}, score, size)

    def _pass_on(self, metrics: Mapping[str, Any], score: float, size: int) -> None:
        """An evaluation, to the search; ends the thread where the trial has lost."""
        from ray import tune

        told = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float) and name not in PLACE}
        report = {"step": int(metrics["step"]), "epoch": self._epoch, "score": score, "metrics": told}
        tune.report({"report": {**report, "seconds": time.perf_counter() - self._begun}, "steps": self._steps, "bytes": size})


@dataclass(frozen=True)
class _Place:
    """A trial's folder, as far as Ray Train is concerned a run's."""

    path: str

    def file(self, name: str) -> str:
        """The place of something in it."""
        return storage.join(self.path, name)


def _train_there(job: Job, recipe: Recipe) -> dict[str, Any]:
    """Train with Ray Train, on workers of its own; it keeps their checkpoints in the trial's folder itself."""
    from tunesmith.cluster.preflight import detect_gpus
    from tunesmith.training.launch import demand, launch

    reporter, begun = Reporter(job, recipe), time.perf_counter()
    place = cast("Run", _Place(job.folder))
    recipe = recipe.with_values({"training.save_total_limit": 1})  # as here: the best one, and the latest
    launch(recipe, job.prepared, place, demand(recipe, detect_gpus()), reporter.follow, job.old_places())
    return {"status": "done", "fit_seconds": reporter.earlier + time.perf_counter() - begun}


def _score(recipe: Recipe, event: Event) -> float:
    """The metric that trials are compared by, such that more is better; an undefined one is worse than any."""
    settings = recipe.training
    value = event.get(str(settings.metric_for_best_model))
    if value is None or math.isnan(value):  # None where it was read from a file: JSON has no NaN
        return -math.inf
    return float(value) * (1 if settings.greater_is_better else -1)


def _measured(job: Job, spec: FitSpec, data: FitData, result: FitResult, seconds: float) -> dict[str, float]:
    """The objectives that are no metrics."""
    from tunesmith.training.validation import predictor_for

    found: dict[str, float] = {}
    if "train_seconds" in job.objectives:
        found["train_seconds"] = seconds
    if "size_mb" in job.objectives:
        found["size_mb"] = sum(one.numel() * one.element_size() for one in result.model.parameters()) / 1e6
    if "latency_ms" in job.objectives and data.validation is not None:
        found["latency_ms"] = _latency(predictor_for(spec, result.model), data.validation)
    return found


ASKED = 40
"""Examples whose latency is measured, one by one."""


def _latency(predictor: Any, split: Any) -> float:
    """Milliseconds for one example by itself, the median; the first few are not counted."""
    import statistics

    examples, times = split.examples(range(min(ASKED, len(split)))), []
    for example in [*examples[:5], *examples]:
        begun = time.perf_counter()
        predictor.predict([example])
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times[5:])


def _freeze_once() -> None:
    """What was imported never becomes garbage: without this every collection walks all of torch."""
    global _frozen
    if not _frozen:
        gc.collect()
        gc.freeze()
        _frozen = True


def _free_memory() -> None:
    """Give back what the trial held: the next one in this process may need it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
