"""What a training tells while it runs: into the run's record, to its trackers, and to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from tunesmith.data import PreparedData
    from tunesmith.data.old import OldPlaces
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Task
    from tunesmith.training.progress import Progress
    from tunesmith.training.trackers import Tracker

COUNTED = 3
"""Epochs whose draws are counted by domain; each has the same composition where domains have weights."""


def outcome(kind: type[BaseException] | None) -> Literal["done", "interrupted", "failed"]:
    """How a run that ended with this exception stands."""
    if kind is None:
        return "done"
    return "interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed"


@contextmanager
def timed(run: Run, what: str) -> Iterator[None]:
    """Adds the seconds that the block took, however it ends, to those of earlier sessions in the record."""
    begun, before = time.perf_counter(), run.manifest.get("durations", {}).get(what, 0.0)
    try:
        yield
    finally:
        run.update(durations={what: round(before + time.perf_counter() - begun, 1)})


class Listener:
    """Writes what the workers tell into the run's history, the trackers, and the progress view."""

    def __init__(self, recipe: Recipe, run: Run, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.step = 0
        self._lost = self._started = False
        self._judged: list[dict[str, Any]] = []
        self._overfits = False
        self._restarts = 0
        self._recipe = recipe
        self._tracker: Tracker | None = None

    def __enter__(self) -> Self:
        from tunesmith.runs.compare import flattened
        from tunesmith.training.trackers import open_trackers

        params = dict(flattened(self._recipe.model_dump(mode="json")))
        self._tracker = open_trackers(self._recipe.training.report_to, self.run.name, self.run.path, params)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.run.flush()
        if self._tracker is not None:
            self._tracker.close(outcome(kind))

    def hear(self, event: dict[str, Any]) -> None:
        """Take one event."""
        kind = event["kind"]
        if kind == "died" or (kind == "start" and self._started):
            self._say_lost()
        if kind == "start":
            self._started, self._lost = True, False
            self.run.truncate_history(event["step"])  # what was logged beyond the checkpoint is done again
            self._judged = [line for line in self._judged if line["step"] <= event["step"]]
        if kind == "trained":
            self.run.update(trained={name: value for name, value in event.items() if name not in ("kind", "message")})
        if kind in ("start", "step", "eval"):
            self.step = max(self.step, event["step"])
        if kind == "done" and event.get("stopped_by"):
            self.run.update(stopped_by=event["stopped_by"])
        if kind in ("step", "eval", "retention"):
            line = {name: value for name, value in event.items() if name not in ("kind", "steps", "best_step")}
            self.run.log_metrics(line)
            if self._tracker is not None:
                split = line.pop("split")
                numbers = {f"{split}/{k}": v for k, v in line.items() if k != "step" and isinstance(v, int | float)}
                self._tracker.log(numbers, event["step"])
        self.progress.handle(event)
        if kind == "eval":
            self._say_overfitting(event)

    def _say_overfitting(self, event: dict[str, Any]) -> None:
        """Once, at the evaluation that shows it, and again where a better one took it back in between."""
        from tunesmith.training.overfitting import overfitting

        self._judged.append(event)
        found = overfitting(self._judged)
        if found is not None and not self._overfits:
            self.progress.handle({"kind": "note", "message": found.sentence(so_far=True)})
        self._overfits = found is not None

    def _say_lost(self) -> None:
        """Once for each restart, whoever notices first."""
        if self._lost:
            return
        self._lost, self._restarts = True, self._restarts + 1
        if 0 <= self._recipe.training.max_failures < self._restarts:
            self.progress.phase("A worker died")
        else:
            self.progress.handle({"kind": "restart", "message": "A worker died; training goes on from its last checkpoint"})


def record_data(run: Run, prepared: PreparedData, unlabelled: PreparedData | None = None) -> None:
    """What was prepared goes into the run's record: hashes, counts, problems, and the rows that were set aside."""
    from tunesmith import storage

    more = unlabelled.manifest["splits"] if unlabelled is not None else {}
    splits = {
        name: {key: split[key] for key in ("rows", "hash", "source", "source_hash", "labels", "domains") if key in split}
        for name, split in {**prepared.manifest["splits"], **more}.items()
    }
    run.update(data=splits, split_hash=prepared.manifest["split_hash"], prepared=prepared.path)
    storage.write_json(run.file("data/report.json"), {k: v for k, v in prepared.manifest.items() if k != "state"})
    if prepared.quarantine is not None:
        storage.write_bytes(run.file("data/quarantine.jsonl"), prepared.quarantine.read_bytes())
    if unlabelled is not None and unlabelled.quarantine is not None:
        storage.write_bytes(run.file("data/quarantine-unlabelled.jsonl"), unlabelled.quarantine.read_bytes())


def record_prepared(recipe: Recipe, task: Task, run: Run, prepared: PreparedData, old: OldPlaces) -> None:
    """What a training rests on goes into the run's record, and what of it is worth a line is said."""
    record_data(run, prepared)
    run.update(old_data=old.to_json())
    say_care(prepared)
    record_domains(recipe, task, run, prepared)
    record_groups(recipe, task, run, prepared)
    record_augmented(recipe, task, run, prepared)


def say_care(prepared: PreparedData) -> None:
    """What data care found, in a line or two."""
    from tunesmith.report.care import summary
    from tunesmith.verbs import console

    for line in summary(prepared.manifest.get("care", {})):
        console.err().print(line, markup=False)


def record_domains(recipe: Recipe, task: Task, run: Run, prepared: PreparedData) -> None:
    """What the domains' weights ask for and what an epoch draws of each, counted; in the record and in a line."""
    from tunesmith.recipe.data import weights_of
    from tunesmith.report.domains import composition_line
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.groups import groups_of
    from tunesmith.training.sampling import drawn_by_domain, make_sampler
    from tunesmith.training.spec import FitSpec
    from tunesmith.verbs import console

    train = prepared.splits["train"]
    if train.domains is None:
        return
    spec, groups = FitSpec(recipe, task, Preprocessing(prepared.state)), groups_of(recipe, train)
    sampler = make_sampler(spec, train, train.domains, groups)
    drawn = drawn_by_domain(sampler, train.domains, epochs=COUNTED)
    rows, weights = train.domains.counts(), weights_of(recipe.data.train)
    composition = {"rows": rows, "weights": weights, "drawn": drawn, "epoch": len(train)}
    run.update(domains=composition)
    console.err().print(composition_line(composition), markup=False)


def record_groups(recipe: Recipe, task: Task, run: Run, prepared: PreparedData) -> None:
    """The groups that training treats alike: their rows by class, and how often an epoch draws each; for the report."""
    import numpy as np

    from tunesmith.report.groups import RECORD, record
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.groups import classes_of, groups_of, has_one_class
    from tunesmith.training.sampling import make_sampler
    from tunesmith.training.spec import FitSpec

    train, section = prepared.splits["train"], recipe.data.groups
    groups = groups_of(recipe, train)
    if groups is None:
        return
    spec = FitSpec(recipe, task, Preprocessing(prepared.state))
    known = prepared.state["labels"] if has_one_class(task, prepared.state) else ["rows"]
    classes = classes_of(spec, train) if len(known) > 1 else np.zeros(len(train), dtype=np.int64)
    counts = np.zeros((len(groups.names), len(known)), dtype=np.int64)
    np.add.at(counts, (groups.codes, classes), 1)
    sampler = make_sampler(spec, train, train.domains, groups)
    draws = np.concatenate([groups.codes[sampler.draw(epoch)] for epoch in range(COUNTED)])
    drawn = np.bincount(draws, minlength=len(groups.names)) / COUNTED
    run.update(**{RECORD: record(section.columns, section.method, groups.names, known, counts, drawn.tolist())})


def record_augmented(recipe: Recipe, task: Task, run: Run, prepared: PreparedData) -> None:
    """What augmentation makes of a few training examples, for the report; what does not fit is told before Ray starts."""
    from tunesmith import storage
    from tunesmith.recipe.augment import MaskedLM
    from tunesmith.runs.artefact import base_model_record
    from tunesmith.tasks.augment import SAMPLES
    from tunesmith.tasks.base import Preprocessing
    from tunesmith.training.augmentation import samples
    from tunesmith.training.spec import FitSpec

    if recipe.data.augment:
        spec = FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe)))
        storage.write_json(run.file(SAMPLES), samples(spec, prepared.splits["train"]))
    models = [one for one in recipe.data.augment if isinstance(one, MaskedLM)]
    if models:
        from tunesmith.tasks.augment import masked_lm

        run.update(augment_models=[base_model_record(one.model_name_or_path, one.revision) for one in models])
        masked_lm.load.cache_clear()  # the workers have their own
