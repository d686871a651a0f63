"""Starts the workers on a Ray cluster, hands on what they tell, and brings home the best checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.errors import TrainingFailed
from tunesmith.training.controlled import Controlled, introducing, what_failed
from tunesmith.training.mailbox import open_mailbox
from tunesmith.training.worker import WorkerConfig, train_worker

if TYPE_CHECKING:
    from tunesmith.data.old import OldPlaces
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.training.spec import Event

POLL = 0.2
"""Seconds between two looks into the mailbox."""


@dataclass(frozen=True)
class Trained:
    """What training left behind."""

    checkpoint: str
    """Path or URI of the checkpoint that was chosen."""
    step: int
    """The update after which it was saved."""
    metrics: dict[str, float]
    """Its validation metrics; empty without a validation split."""


def demand(recipe: Recipe, gpus: int) -> dict[str, float]:
    """What each worker demands of the cluster, by Ray's names.

    ``use_gpu: auto`` takes one GPU for each worker where the cluster has that many.
    """
    settings = recipe.training
    on_gpu = gpus >= settings.num_workers if settings.use_gpu == "auto" else settings.use_gpu
    return {"CPU": 1.0, **({"GPU": 1.0} if on_gpu else {}), **settings.resources_per_worker}


def launch(
    recipe: Recipe,
    data: str,
    run: Run,
    resources: dict[str, float],
    on_event: Callable[[Event], None],
    old: OldPlaces | None = None,
) -> Trained:
    """Train on the connected Ray cluster; blocks until done.

    Args:
        data: where the prepared data is.
        resources: of each worker, see :func:`demand`.
        on_event: called in this thread with everything the workers tell.
        old: where the data to replay and to watch is.

    Raises:
        UserError: as raised in a worker.
        TrainingFailed: a worker failed more often than ``training.max_failures`` allows, or not one update was made.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    settings = recipe.training
    name = f"mailbox-{secrets.token_hex(8)}"
    mailbox = open_mailbox(name)
    asked = settings.resources_per_worker.get("CPU")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"worker": WorkerConfig(recipe, data, run.path, name, asked, old)},
        torch_config=TorchConfig(backend="nccl" if "GPU" in resources else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.num_workers, use_gpu="GPU" in resources, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=storage.absolute(run.path),
            callbacks=[introducing(mailbox)],
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=settings.save_total_limit, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),
        ),
    )
    result = _follow(trainer, mailbox, on_event, run.file("train.log"))
    if result.checkpoint is None:
        raise TrainingFailed(f"training ended without one update. The workers' words are in {run.file('train.log')}")
    return _chosen(result, recipe, run)


def _follow(trainer: Any, mailbox: Any, on_event: Callable[[Event], None], log: str) -> Any:
    """Run the trainer beside this thread, which hands on events meanwhile and can be interrupted."""
    import ray

    training = Controlled(trainer, mailbox)
    ending = False
    try:
        while not ending:
            ending = not training.running(POLL)
            events, failure = ray.get(mailbox.take.remote())
            for event in events:
                on_event(event)
            if failure is not None:
                raise failure  # at once: Ray Train is about to restart the workers, which will find nothing to do
    except BaseException:
        training.end()
        raise
    ray.kill(mailbox)
    if training.error is not None:
        raise TrainingFailed(
            f"training failed: {what_failed(training.error)}\n"
            f"    → The workers' words are in {log}. The same command goes on from the last checkpoint"
        ) from training.error
    return training.result


def _chosen(result: Any, recipe: Recipe, run: Run) -> Trained:
    """The best checkpoint where one is wanted and there is a score, else the latest."""
    found = [(kept, metrics) for kept, metrics in result.best_checkpoints or [] if metrics and "score" in metrics]
    kept, metrics = result.checkpoint, result.metrics or {}
    if recipe.training.load_best_model_at_end and found:
        kept, metrics = max(found, key=lambda pair: pair[1]["score"])
    plain = {name: value for name, value in metrics.items() if isinstance(value, int | float) and name not in ("step", "score")}
    return Trained(_place(kept, run), int(metrics.get("step", 0)), plain)


def _place(kept: Any, run: Run) -> str:
    """A Ray checkpoint as a path or URI, which is the run's own with all that stands in it (host, ``?region=…``)."""
    if storage.is_local(run.path):
        return str(kept.path)
    root = storage.filesystem(run.path)[1]
    return storage.join(run.path, str(kept.path).removeprefix(root))
