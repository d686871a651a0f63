"""Runs a search on Ray Tune: Ray starts and keeps the processes, restarts dead trials, and asks the search what to do.

Ray Tune is asked for no memory of its own: what is tried and what came of it is in the search's ledger, checkpoints are in the
trials' folders. So nothing hangs on Ray's files when a search is gone on with, or its versions change.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from tunesmith.errors import TrainingFailed
from tunesmith.tuning.search import Search
from tunesmith.tuning.trainable import train_trial
from tunesmith.tuning.trials import folder_of

POLL = 0.2
"""Seconds between two looks at the thread in which Ray Tune runs."""

STOP_TIMEOUT = 20.0
"""Seconds in which Ray Tune must have ended after it was asked to."""

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""No files of Ray's own for each trial, no change of folder, a decision after each evaluation, and no tables beside ours."""

DIED = "its process died, and again whenever it was begun anew: it was killed, ran out of memory, or crashed"


def run_search(
    search: Search,
    resources: Mapping[str, float],
    *,
    workers: int = 1,
    concurrent: int | None = None,
    on_recover: Callable[[int], None] = lambda number: None,
) -> None:
    """Run the search's trials on the connected cluster until it is over; blocks.

    Args:
        resources: of each worker of a trial.
        workers: of each trial; several are started by the trial itself.
        concurrent: trials at the same time; None leaves it to the cluster's room.
        on_recover: called with a trial's number when its process died and it is begun again.

    Raises:
        TrainingFailed: Ray Tune itself failed.
    """
    outcome: dict[str, BaseException] = {}

    def work() -> None:
        try:
            _tune(search, resources, workers, concurrent, on_recover)
        except BaseException as error:  # raised again below, in the caller's thread
            outcome["error"] = error

    # Not in the main thread: there Ray takes over Ctrl-C.
    thread = threading.Thread(target=work, name="ray-tune", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL)
    except BaseException:
        search.interrupt()
        thread.join(STOP_TIMEOUT)
        raise
    finally:
        search.ledger.flush()
    if "error" in outcome:
        raise TrainingFailed(f"the search failed: {outcome['error']}") from outcome["error"]


def _tune(
    search: Search,
    resources: Mapping[str, float],
    workers: int,
    concurrent: int | None,
    on_recover: Callable[[int], None],
) -> None:
    bridge = _Bridge(search)
    # Workers that a trial starts hold their resources themselves; Ray wants something, so it gets a megabyte.
    held = dict(resources) if workers == 1 else {"memory": 1e6}
    with _environment(), tempfile.TemporaryDirectory(prefix="tunesmith-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(train_trial, tune.PlacementGroupFactory([held])),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=_Suggest(bridge),
                reuse_actors=True,
                max_concurrent_trials=concurrent,
                trial_name_creator=bridge.name_of,
                trial_dirname_creator=bridge.name_of,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                stop=_Stop(bridge),
                callbacks=[_Watch(bridge, on_recover)],
                failure_config=tune.FailureConfig(max_failures=search.settings.max_failures),
                verbose=0,
            ),
        )
        tuner.fit()
        search.close()


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Sets what Ray Tune reads from the environment, where the user has not."""
    added = [name for name in ENVIRONMENT if name not in os.environ]
    os.environ.update({name: ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class _Unpickled:
    """Ray writes down all that it is given, and here nobody reads it: of these objects it writes nothing."""

    def __reduce__(self) -> tuple[type[str], tuple[()]]:
        return str, ()

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _Bridge(_Unpickled):
    """Between Ray Tune's trials, which have ids of its own, and the search's, which have numbers."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.numbers: dict[str, int] = {}
        self._ends: dict[int, Mapping[str, Any]] = {}

    def name_of(self, trial: Any) -> str:
        """What Ray calls a trial, and its folder."""
        return f"trial-{self.numbers[trial.trial_id]:04d}-{trial.trial_id}"

    def began(self, trial_id: str) -> str | None:
        """The trial to begin under this id: its folder; None where there is none."""
        trial = self.search.next()
        if trial is None:
            return None
        self.numbers[trial_id] = trial.number
        return folder_of(self.search.run, trial.number)

    def stops(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Takes what a trial reports; returns whether it is to stop."""
        number = self.numbers[trial_id]
        if number in self._ends:  # Ray tells the last report again when the trial's function has returned
            return True
        if "end" in result:
            self._ends[number] = result["end"]
            return False
        return not self.search.report(number, result)

    def ended(self, trial_id: str, *, died: bool) -> None:
        """A trial is over: it said how itself, its process died, or it was stopped."""
        number = self.numbers[trial_id]
        if died:
            self.search.end(number, {"status": "failed", "error": DIED})
        else:
            self.search.end(number, self._ends.get(number) or {"status": "stopped", "error": self.search.ended_by})


class _Suggest(_Unpickled, Searcher):
    """Ray's view of what is tried next."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        """The next trial's folder; None where one has to end first."""
        folder = self.bridge.began(trial_id)
        if folder is not None:
            return {"folder": folder}
        return Searcher.FINISHED if self.bridge.search.is_over() else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over."""
        self.bridge.ended(trial_id, died=error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see :meth:`save`."""


class _Stop(_Unpickled, Stopper):
    """Ray's view of when a trial, or all, must stop."""

    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.bridge.stops(trial_id, result)

    def stop_all(self) -> bool:
        """Whether all trials are to be stopped."""
        return self.bridge.search.must_end()


class _Watch(_Unpickled, Callback):
    """What Ray calls when a trial has its process, and when that died and the trial is begun again."""

    def __init__(self, bridge: _Bridge, on_recover: Callable[[int], None]) -> None:
        self.bridge = bridge
        self._on_recover = on_recover

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """The trial has its process."""
        self.bridge.search.started(self.bridge.numbers[trial.trial_id])

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """The trial's seconds so far count, and it goes on from its last checkpoint."""
        number = self.bridge.numbers[trial.trial_id]
        self.bridge.search.lost(number)
        self._on_recover(number)
