"""A search, apart from where it runs: which trial is next, whether one goes on, when it is over.

It is told what happens and asked what to do, by :mod:`tunesmith.tuning.engine` or by a test without Ray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.errors import TrainingFailed, TunesmithError, UserError
from tunesmith.recipe.search import MEASURED
from tunesmith.recipe.search_space import parse
from tunesmith.recipe.searched import own_values, trial_recipe
from tunesmith.tuning import asha, checkpoints, population, sampling
from tunesmith.tuning.front import costs, front
from tunesmith.tuning.job import Job
from tunesmith.tuning.trials import FINISHED, Ledger, Report, Trial, as_line, begun_anew, folder_of, reported

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

Prepare = Callable[["Recipe"], tuple[str, dict[str, Any]]]
"""A trial's recipe → where its prepared data and its old data are. Raises UserError."""


METRIC = "training.metric_for_best_model"


@dataclass(frozen=True)
class Surroundings:
    """Where a search runs."""

    run: str
    """The folder of its run."""
    prepare: Prepare
    told: Callable[[Sequence[Trial], Trial | None], None] = lambda trials, changed: None
    """Called with all trials, and the one that has changed."""
    sharers: int = 1
    """Trials that share a node's cores."""
    cost_rate: float = 1.0
    """Cores of a trial, or its GPUs where it has any."""
    clock: Callable[[], float] = time.monotonic


class Search:
    """The trials of one search. Its methods may be called from several threads."""

    def __init__(self, recipe: Recipe, around: Surroundings, earlier: Sequence[Trial] = ()) -> None:
        self._recipe, self._around, self.run = recipe, around, around.run
        self.settings = recipe.search
        self.space, _ = parse(self.settings.space)
        self.ledger = Ledger(around.run)
        self.failure: TunesmithError | None = None
        """Why the search has to end without a result."""
        self.ended_by = ""
        """Which budget ended it; empty where it tried all that it should."""
        self._earlier = tuple(earlier)
        self._lock = threading.RLock()
        lines = self.ledger.lines()
        self._trials = {trial.number: trial for trial in self.ledger.read()}
        self._again = [trial.number for trial in self._trials.values() if trial.status not in FINISHED]
        if not self._again and not self._promising():
            self._again = list(self._trials)  # an earlier session gave up: what was in its way may be gone
        self._before = max((line.get("at", 0.0) for line in lines), default=0.0)
        self._attempts: dict[int, float] = {trial.number: trial.seconds for trial in self._trials.values()}
        self._begun = around.clock()
        self._interrupted = False

    @property
    def trials(self) -> list[Trial]:
        """All of them, by number."""
        with self._lock:
            return [self._trials[number] for number in sorted(self._trials)]

    @property
    def elapsed(self) -> float:
        """Seconds of this search, those of earlier sessions among them."""
        return self._before + self._around.clock() - self._begun

    @property
    def cost(self) -> float:
        """Core-seconds of all trials so far, or GPU-seconds."""
        return sum(trial.cost for trial in self.trials)

    def interrupt(self) -> None:
        """Begin no further trial, and let none go on; nothing is noted of them: they go on another time."""
        self._interrupted = True

    def must_end(self) -> bool:
        """Whether all trials are to be stopped now."""
        with self._lock:
            if self._interrupted or self.failure is not None:
                return True
            settings = self.settings
            if settings.time_budget_s is not None and self.elapsed >= settings.time_budget_s:
                self.ended_by = self.ended_by or f"its {settings.time_budget_s:g} seconds were over"
            if settings.cost_budget_s is not None and self.cost >= settings.cost_budget_s:
                self.ended_by = self.ended_by or f"its {settings.cost_budget_s:g} core-seconds were spent"
            if self.ended_by:
                self._end_what_was_left()
            return bool(self.ended_by)

    def _end_what_was_left(self) -> None:
        """Trials of an earlier session that were not taken up again before the budget was spent are stopped as they are."""
        left, self._again = self._again, []
        for number in left:
            self.end(number, {"status": "stopped", "error": self.ended_by})

    def close(self) -> None:
        """Trials that still ran when a budget was spent are stopped as they are: Ray ends them, and does not say so.

        Where trials went to their end and none can be compared with others, that is the search's failure.
        """
        with self._lock:
            for trial in self.trials if self.ended_by else ():
                self.end(trial.number, {"status": "stopped", "error": self.ended_by})
            self._check_objectives()

    def next(self) -> Trial | None:
        """The trial to begin now, its job written; None where one has to end first, or :meth:`is_over`."""
        with self._lock:
            while not self.must_end():
                trial = self._waiting() or self._repeated()
                if trial is None or (ready := self._made_ready(trial)) is not None:
                    return ready if trial is not None else None
            return None

    def is_over(self) -> bool:
        """Whether no trial will begin any more."""
        with self._lock:
            if self.must_end():
                return True
            if self._again or self._proposed() is not None:
                return False
            if self.settings.scheduler == "pbt" and not population.is_over(self.settings, self.trials):
                return False
            running = any(trial.status not in FINISHED for trial in self._trials.values())
            return not self._seeds_left() if not running else self.settings.seeds == 1

    def started(self, number: int) -> None:
        """A trial has its process."""
        with self._lock:
            self._set(replace(self._trials[number], status="running"), status="running")

    def report(self, number: int, told: Mapping[str, Any]) -> bool:
        """A trial was judged; returns whether it goes on."""
        with self._lock:
            seconds = self._attempts[number] + float(told["report"]["seconds"])
            report = Report(**{**told["report"], "seconds": seconds})
            trial = reported(self._trials[number], report)
            trial = replace(trial, steps=int(told["steps"]), seconds=seconds, cost=seconds * self._around.cost_rate)
            self._set(trial, report=as_line(report), steps=trial.steps, seconds=trial.seconds, cost=trial.cost)
            self._check_disk(int(told.get("bytes", 0)))
            at_end = 0 < trial.steps <= trial.done_steps
            if self.settings.scheduler != "asha" or trial.origin == "seed" or at_end:
                return True
            rungs = {"grace_period": self.settings.grace_period, "reduction_factor": self.settings.reduction_factor}
            return asha.goes_on(trial, self._trials.values(), **rungs)

    def end(self, number: int, told: Mapping[str, Any]) -> None:
        """A trial has ended: ``status`` says how, ``error`` why where it failed."""
        with self._lock:
            trial = self._trials[number]
            if self._interrupted or trial.status in FINISHED:
                return
            seconds = self._attempts[number] + float(told.get("seconds", trial.seconds - self._attempts[number]))
            kept = ("status", "error", "mistake", "fit_seconds", "objectives")
            fields = {name: told[name] for name in kept if name in told}
            if "error" in fields:
                fields["error"] = self._as_searched(fields["error"])
            fields |= {"seconds": seconds, "cost": seconds * self._around.cost_rate}
            if fields["status"] == "done":
                fields |= self._lacking(replace(trial, **fields))
            self._set(replace(trial, **fields), **fields)
            self._give_up()
            self._drop_losers()

    def _as_searched(self, error: str) -> str:
        """A trial's reason, with the key of the search that set the metric in place of the key that the trial had it from."""
        search = self.settings
        key = "search.metric" if search.metric else "search.objectives" if search.objectives else METRIC
        return key + error.removeprefix(METRIC) if error.startswith(f"{METRIC}:") else error

    def _lacking(self, trial: Trial) -> dict[str, Any]:
        """Why a trial that went to its end has failed all the same; nothing where it has all that trials are compared by."""
        if trial.best is None:
            return {"status": "failed", "error": "it ended before its first evaluation"}
        missing = next((name for name in self.settings.objectives[1:] if name not in trial.told), None)
        if missing is None:  # what is undefined may be defined in other trials
            return {}
        there = (*(name for name in trial.best.metrics if "/" not in name), *MEASURED)
        fix = f"Write one of {', '.join(there)}"
        return {"status": "failed", "error": f"search.objectives: no trial reports {missing!r}\n    → {fix}", "mistake": True}

    def _check_objectives(self) -> None:
        """End the search where each trial that went to its end has an undefined objective, so that none can be chosen."""
        done = [trial for trial in self.trials if trial.status == "done" and trial.origin != "seed"]
        if len(self.settings.objectives) < 2 or not done or self.candidates() or self._interrupted or self.failure is not None:
            return
        trials, names = f"{len(done)} trial{'s' * (len(done) > 1)}", ", ".join(self.settings.objectives)
        self.failure = UserError(
            f"search.objectives: none of {trials} has a number for each of {names}: a metric may be undefined, such as the "
            "precision of a class that is never predicted\n"
            "    → Train longer, or name metrics that are always defined, such as accuracy"
        )

    def lost(self, number: int) -> None:
        """A trial's process died, and it is begun again; its seconds count."""
        with self._lock:
            self._attempts[number] = self._trials[number].seconds

    def _waiting(self) -> Trial | None:
        """What an earlier session left or gave up, else what is proposed."""
        if self._again:
            return self._trials[self._again.pop(0)]
        return self._proposed()

    def _proposed(self) -> Trial | None:
        """A new trial of the search itself."""
        mine = [trial for trial in self.trials if trial.origin in ("recipe", "sampled")]
        number = max(self._trials, default=-1) + 1
        if any(trial.origin == "seed" for trial in self._trials.values()):
            return None
        if not mine and self.settings.start_with_recipe and self.settings.algorithm != "grid":
            return Trial(number, own_values(self._recipe, self.space), "recipe")
        if self.settings.scheduler == "pbt":
            stretch = population.next_stretch(self.settings, self.space, mine)
            if stretch is None:
                return None
            return Trial(number, stretch.values, parent=stretch.parent, generation=stretch.generation, member=stretch.member)
        if self.settings.algorithm != "grid" and len(mine) >= self.settings.num_samples:
            return None
        values = sampling.suggest(self.settings, self.space, [*self._earlier, *mine], number)
        return Trial(number, values) if values is not None else None

    def _seeds_left(self) -> int:
        """How many trainings of the winning values with other seeds are still to be begun."""
        if self.settings.seeds == 1 or not self.candidates():
            return 0
        return self.settings.seeds - 1 - sum(trial.origin == "seed" for trial in self._trials.values())

    def _repeated(self) -> Trial | None:
        """The winning values with another seed, once all else has ended."""
        waiting = [trial for trial in self._trials.values() if trial.status not in FINISHED and trial.origin != "seed"]
        left = self._seeds_left() if not waiting else 0
        if left <= 0:
            return None
        best = max(self.candidates(), key=lambda trial: (trial.score, -trial.number))
        seed = int(best.values.get("training.seed", self._recipe.training.seed)) + self.settings.seeds - left
        return Trial(max(self._trials) + 1, {**best.values, "training.seed": seed}, "seed")

    def candidates(self) -> list[Trial]:
        """Trials that can win, whether or not they were stopped: those with a score, of several objectives with all of them."""
        scored = [
            trial
            for trial in self.trials
            if trial.origin in ("recipe", "sampled") and trial.status in ("done", "stopped") and trial.score is not None
        ]
        several = len(self.settings.objectives) > 1
        return [trial for trial in scored if costs(self.settings, trial) is not None] if several else scored

    def repeated(self) -> list[float]:
        """The scores of the winning values with other seeds, as far as they were trained to their end."""
        again = [trial for trial in self.trials if trial.origin == "seed" and trial.status == "done"]
        return [trial.score for trial in again if trial.score is not None]

    def _made_ready(self, trial: Trial) -> Trial | None:
        """The trial with its job written; None where its recipe or its data are refused, which ends it."""
        fields: dict[str, Any] = {"values": dict(trial.values), "origin": trial.origin, "parent": trial.parent}
        if trial.status in FINISHED:
            trial = begun_anew(trial)
            fields |= {"again": True}
        trial = replace(trial, status="waiting")
        self._set(trial, **fields, generation=trial.generation, member=trial.member, status="waiting")
        self._attempts.setdefault(trial.number, trial.seconds)
        try:
            recipe = trial_recipe(self._recipe, self.space, trial.values)
            prepared, old = self._around.prepare(recipe)
            self._job(trial, prepared, old).write(recipe)
        except TunesmithError as error:
            told = {"status": "failed", "error": str(error), "mistake": isinstance(error, UserError)}
            self.end(trial.number, {**told, "seconds": trial.seconds})
            return None
        return trial

    def _job(self, trial: Trial, prepared: str, old: dict[str, Any]) -> Job:
        start, changed = None, False
        if trial.parent is not None:
            start = checkpoints.latest(folder_of(self._around.run, trial.parent))
            changed = trial.values != self._trials[trial.parent].values
        parts = self.settings.generations if self.settings.scheduler == "pbt" else 1
        return Job(
            number=trial.number,
            folder=folder_of(self._around.run, trial.number),
            prepared=prepared,
            base_dir=self._recipe.base_dir,
            old=old,
            start=start,
            changed=changed,
            part=trial.generation,
            parts=parts,
            objectives=tuple(self.settings.objectives),
            sharers=self._around.sharers,
        )

    def _set(self, trial: Trial, **fields: Any) -> None:
        """Keep a trial as it is now, and note what has changed."""
        self._trials[trial.number] = trial
        self.ledger.write(trial.number, **fields, at=round(self.elapsed, 3))
        self._around.told(self.trials, trial)

    def _give_up(self) -> None:
        """End the search where nothing but failures has come of it."""
        failed = [trial for trial in self.failed() if trial.number not in self._again]
        if len(failed) >= self.settings.give_up_after and not self._promising():
            self.failure = self.why_failed()

    def _promising(self) -> bool:
        """Whether a trial was judged that has not failed."""
        return any(trial.score is not None and trial.status != "failed" for trial in self._trials.values())

    def failed(self) -> list[Trial]:
        """The trials that failed."""
        return [trial for trial in self.trials if trial.status == "failed"]

    def why_failed(self) -> TunesmithError:
        """The first trial's reason, as the reason of all that failed: the user's mistake, or something else."""
        failed = self.failed()
        first, count = failed[0], len(failed)
        reason = f", trial {first.number} for this reason" if count > 1 else ""
        if count > 1 and len({trial.error.partition("\n")[0] for trial in failed}) == 1:  # each has its own traceback below
            reason = ", all for the same reason"
        said = f"{count} trial{'s' * (count > 1)} failed and none succeeded{reason}:\n    {first.error}"
        said += f"\n    ({self.ended_by}: --new begins another search)" if self.ended_by else ""
        return UserError(said) if first.mistake else TrainingFailed(said)

    def _drop_losers(self) -> None:
        """Delete the checkpoints of trials that have lost."""
        parts = self.settings.generations if self.settings.scheduler == "pbt" else 1
        for trial in checkpoints.losers(self.trials, {trial.number for trial in self._leading()}, parts):
            checkpoints.drop(self._around.run, trial)

    def _leading(self) -> list[Trial]:
        """The trials that would win if no other came: the best one, or the front."""
        candidates = self.candidates()
        if len(self.settings.objectives) > 1:
            return front(self.settings, candidates)
        return sorted(candidates, key=lambda trial: (trial.score, -trial.number))[-1:]

    def _check_disk(self, size: int) -> None:
        """End the search before its checkpoints take more than they may."""
        most, settings = self.settings.max_checkpoint_gb, self.settings
        running = sum(trial.status == "running" for trial in self._trials.values())
        held = sum(checkpoints.held(trial) for trial in self._leading())
        if settings.scheduler == "pbt":
            ended = sum(trial.status in FINISHED and trial.score is not None for trial in self._trials.values())
            held = max(held, min(ended, settings.num_samples))
        needed = size * (2 * running + held)
        if most is not None and needed > most * 1e9:
            several = len(settings.objectives) > 1
            kept = f"of the front ({len(self._leading())})" if several else "of the best one"
            fix = "Raise it, " + ("name fewer search.objectives, " if several else "") + "or lower search.max_concurrent_trials"
            self.failure = UserError(
                f"the checkpoints of {running} trial{'s' * (running != 1)} at once and {kept} take {needed / 1e9:.2g} GB, more "
                f"than search.max_checkpoint_gb: {most:g}\n    → {fix}"
            )
