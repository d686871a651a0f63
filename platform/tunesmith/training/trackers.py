"""Experiment trackers: MLflow, TensorBoard and Weights & Biases get every metric, and a resumed run goes on in the same place.

They are addressed directly and not through Accelerate's trackers, which begin a new run at every start. A tracker that fails
after it was opened is left out with a warning: training is worth more than its curve.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from tunesmith import storage
from tunesmith.errors import UserError, nearest

Outcome = Literal["done", "interrupted", "failed"]

PROJECT = "tunesmith"
"""MLflow's experiment and Weights & Biases' project, where ``MLFLOW_EXPERIMENT_NAME`` and ``WANDB_PROJECT`` do not say."""

log = logging.getLogger(__name__)


class Backend(Protocol):
    """One tracker, opened for one run."""

    def last_steps(self) -> Mapping[str, int]:
        """The latest step that it has of each metric, from before a resume."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take metrics, all of them finite."""

    def close(self, outcome: Outcome) -> None:
        """Write what waits, and say how the run ended."""


class Tracker:
    """All trackers of a run. A step that a restart makes again is told once."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = dict(backends)
        self._last = {name: dict(backend.last_steps()) for name, backend in backends.items()}

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Tell every tracker the metrics of a step; what is no finite number is left out."""
        plain = {key: float(value) for key, value in metrics.items() if _is_number(value)}
        for name, backend in list(self._backends.items()):
            last = self._last[name]
            new = {key: value for key, value in plain.items() if step > last.get(key, -1)}
            if new:
                with self._surviving(name):
                    backend.log(new, step)
                    last.update(dict.fromkeys(new, step))

    def close(self, outcome: Outcome = "done") -> None:
        """Finish the trackers' runs."""
        for name, backend in list(self._backends.items()):
            with self._surviving(name):
                backend.close(outcome)
        self._backends.clear()

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """Go on without a tracker that fails."""
        try:
            yield
        except Exception as error:  # whatever a client library raises when its server is gone
            self._backends.pop(name, None)
            log.warning("%s failed and gets no more metrics of this run: %s", name, error)


def open_trackers(names: Sequence[str], run_name: str, folder: str, params: Mapping[str, Any]) -> Tracker:
    """The trackers of ``training.report_to``, opened for a run; opened again for the same run, they go on where it stopped.

    Args:
        names: ``mlflow``, ``tensorboard``, ``wandb``.
        run_name: what the run is called in them.
        folder: the run's folder, a path or a URI.
        params: the recipe's dotted keys and values.

    Raises:
        UserError: there is no such tracker, its package is not installed, or it cannot be reached.
    """
    backends: dict[str, Backend] = {}
    for name in names:
        if name not in _BACKENDS:
            near = nearest(name, _BACKENDS)
            fix = f"did you mean {near}?" if near else f"there are {', '.join(_BACKENDS)}"
            raise UserError(f"training.report_to: there is no tracker {name!r}.\n    → {fix}")
        package, opened = _BACKENDS[name]
        if importlib.util.find_spec(package) is None:
            raise UserError(f"training.report_to: {name} needs the package {package}.\n    → pip install {package}")
        try:
            backends[name] = opened(run_name, folder, params)
        except UserError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"training.report_to: {name} cannot be opened: {reason}\n    → Check its address, or leave it out of report_to."
            ) from error
    return Tracker(backends)


class MLflow:
    """A run in the store of ``MLFLOW_TRACKING_URI``, or in MLflow's own default in the working directory."""

    def __init__(self, run_name: str, folder: str, params: Mapping[str, Any]) -> None:
        # Its own patience with a server that is gone is several minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient, get_tracking_uri

        self._client = MlflowClient()
        note = storage.join(folder, "mlflow.json")
        known = storage.read_json(note) if storage.exists(note) else {}
        self._resumed = known.get("tracking_uri") == get_tracking_uri() and self._reopened(known.get("run_id"))
        if self._resumed:
            self.run_id: str = known["run_id"]
            return
        self.run_id = self._client.create_run(self._experiment(), run_name=run_name).info.run_id
        self._log_params(params)
        storage.write_json(note, {"tracking_uri": get_tracking_uri(), "run_id": self.run_id})

    def last_steps(self) -> Mapping[str, int]:
        """From the store, one query for each metric, only on a resume."""
        if not self._resumed:
            return {}
        names = self._client.get_run(self.run_id).data.metrics
        return {name: max(point.step for point in self._client.get_metric_history(self.run_id, name)) for name in names}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """One request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(_mlflow_name(key), value, now, step) for key, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=points)

    def close(self, outcome: Outcome) -> None:
        """MLflow calls an interrupted run killed."""
        self._client.set_terminated(self.run_id, {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[outcome])

    def _reopened(self, run_id: str | None) -> bool:
        """Whether the run of an earlier start is still there; it is running again then."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return False
        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException:  # deleted meanwhile
            return False
        return True

    def _experiment(self) -> str:
        """The id of the experiment, which is made where it is not there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _log_params(self, params: Mapping[str, Any]) -> None:
        """All of them, in requests of 100, the most that MLflow takes."""
        from mlflow.entities import Param

        values = [Param(_mlflow_name(key), str(value)[:500]) for key, value in params.items()]
        for start in range(0, len(values), 100):
            self._client.log_batch(self.run_id, params=values[start : start + 100])


class TensorBoard:
    """Event files in ``tensorboard/`` of the run, also at a URI that TensorBoard's own file system reaches."""

    def __init__(self, run_name: str, folder: str, params: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = storage.join(folder, "tensorboard")
        self.place = str(storage.local_path(place)) if storage.is_local(place) else place
        self._known = _tensorboard_steps(self.place) if storage.exists(place) else {}
        self._writer: Any = SummaryWriter(self.place, flush_secs=10)
        if not self._known:
            table = "\n".join(f"|{key}|{value}|" for key, value in params.items())
            self._writer.add_text("recipe", f"**{run_name}**\n\n|key|value|\n|-|-|\n{table}")

    def last_steps(self) -> Mapping[str, int]:
        """From the event files that were there."""
        return self._known

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Into memory; on the disk within ten seconds."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def close(self, outcome: Outcome) -> None:
        """Event files do not know how a run ended."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases: online where this machine is logged in, else offline in the run's folder."""

    def __init__(self, run_name: str, folder: str, params: Mapping[str, Any]) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        here = str(storage.local_path(folder)) if storage.is_local(folder) else tempfile.gettempdir()
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        # The run's name is its id: the same run resumes, and W&B itself passes over steps that it has.
        self._run: Any = wandb.init(
            project=project, name=run_name, id=run_name, resume="allow", dir=here, mode=mode, config=dict(params)
        )

    def last_steps(self) -> Mapping[str, int]:
        """W&B knows them itself."""
        return {}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Handed to W&B's own process."""
        self._run.log(dict(metrics), step=step)

    def close(self, outcome: Outcome) -> None:
        """Anything but 0 is a failed run there."""
        self._run.finish(exit_code=0 if outcome == "done" else 1)


_BACKENDS: dict[str, tuple[str, Callable[[str, str, Mapping[str, Any]], Backend]]] = {
    "mlflow": ("mlflow", MLflow),
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WandB),
}
"""Name → the package it needs, and how it is opened."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mlflow_name(key: str) -> str:
    """A name without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-. /]", "_", key)


def _tensorboard_steps(place: str) -> dict[str, int]:
    """The latest step of each scalar in event files."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    found = EventAccumulator(place, size_guidance={SCALARS: 0}).Reload()
    return {tag: max(event.step for event in found.Scalars(tag)) for tag in found.Tags()["scalars"]}
