"""``tunesmith train`` without Ray: the loop runs here, keeps its checkpoints in the run's folder and goes on from them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import PreparedData
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Metrics, Preprocessing
from tunesmith.training.checkpoint import Start
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
from tunesmith.training.launch import Trained


def without_ray(patch: pytest.MonkeyPatch, on_event: Callable[[Any, dict[str, Any]], None] | None = None) -> None:
    """Puts :func:`launch` in the place of Ray; ``on_event`` is called with the run and each event, and may raise."""

    @contextlib.contextmanager
    def connect(*_: Any, **__: Any) -> Iterator[None]:
        yield

    def here(recipe: Any, data: str, run: Any, resources: Any, hear: Callable[[Any], None], old: Any = None) -> Trained:
        def tell(event: dict[str, Any]) -> None:
            hear(event)
            if on_event is not None:
                on_event(run, event)

        return launch(recipe, data, run, tell)

    patch.setattr("tunesmith.cluster.connect.connect", connect)
    patch.setattr("tunesmith.cluster.preflight.preflight", lambda *_, **__: None)
    patch.setattr("tunesmith.cluster.preflight.detect_gpus", lambda: 0)
    patch.setattr("tunesmith.training.launch.launch", here)


def launch(recipe: Any, data: str, run: Any, tell: Callable[[dict[str, Any]], None]) -> Trained:
    """As :func:`tunesmith.training.launch.launch`, on one worker."""
    place, task, prepared = Path(run.file("checkpoints")), load_task(recipe.task), PreparedData.open(data)
    spec = FitSpec(recipe, task, Preprocessing(prepared.state, task.load_processor(recipe)))

    def report(metrics: Metrics, folder: Path | None) -> None:
        kept = place / f"step-{int(metrics['step']):08d}"
        assert folder is not None
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        (place / f"{kept.name}.json").write_text(json.dumps(metrics))

    latest = max(place.glob("step-*.json"), default=None)
    start = Start(latest.with_suffix("")) if latest is not None else Start()
    fit(
        spec,
        FitData(prepared.splits["train"], prepared.splits["validation"]),
        FitContext(start=start, report=report, event=tell),
    )
    found = [(file.with_suffix(""), json.loads(file.read_text())) for file in sorted(place.glob("step-*.json"))]
    best, metrics = max(found, key=lambda pair: pair[1]["score"])
    plain = {name: value for name, value in metrics.items() if name not in ("step", "score")}
    return Trained(str(best), int(metrics["step"]), plain)
