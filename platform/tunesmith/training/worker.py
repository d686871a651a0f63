"""What a Ray Train worker runs: open the prepared data, go on from the last checkpoint if there is one, call ``fit``."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.errors import UserError

if TYPE_CHECKING:
    from tunesmith.data.old import OldPlaces
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Metrics

UNMENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Why a checkpoint cannot be written, where trying again would not help."""


@dataclass(frozen=True)
class WorkerConfig:
    """All that a worker is told: plain values, no tensors, no models."""

    recipe: Recipe
    data: str
    """Where the prepared data is: a path or URI that every node reaches."""
    run: str
    """The run's folder or URI."""
    mailbox: str
    """The name of the driver's mailbox."""
    cpus: float | None
    """CPUs demanded for this worker, or None to share the machine's among the workers on it."""
    old: OldPlaces | None = None
    """Where the data to replay and to watch is."""


def train_worker(config: dict[str, Any]) -> None:
    """The entry point on each worker. An error that no restart can mend goes to the mailbox first."""
    import ray

    from tunesmith.training.mailbox import Stopped, find_mailbox

    told: WorkerConfig = config["worker"]
    mailbox = find_mailbox(told.mailbox)
    if ray.get(mailbox.ended.remote()):
        return  # Ray Train restarts workers after every error, also where the driver has long given up
    try:
        _train(told, mailbox)
    except UserError as error:
        ray.get(mailbox.fail.remote(error))
        raise
    except Stopped:
        raise
    except Exception:  # this worker's own, or that it lost another one: it takes Ray Train a while to notice
        mailbox.put.remote({"kind": "died"})
        raise


def _train(told: WorkerConfig, mailbox: Any) -> None:
    import ray.train

    from tunesmith.data import PreparedData
    from tunesmith.tasks import load_task
    from tunesmith.training.acceleration import use_cores
    from tunesmith.training.checkpoint import Start
    from tunesmith.training.fit import FitContext, fit
    from tunesmith.training.mailbox import Sender
    from tunesmith.training.parts import open_parts

    send = Sender(mailbox)
    where = ray.train.get_context()
    use_cores(where.get_local_world_size(), told.cpus)
    task = load_task(told.recipe.task)
    spec, data = open_parts(told.recipe, task, PreparedData.open(told.data), told.old)
    # What was imported so far never becomes garbage; without this every collection walks all of torch.
    gc.collect()
    gc.freeze()
    with contextlib.ExitStack() as stack:
        latest = ray.train.get_checkpoint()
        start = Start(Path(stack.enter_context(latest.as_directory()))) if latest is not None else Start()
        fit(
            spec,
            data,
            FitContext(
                rank=where.get_world_rank(),
                world_size=where.get_world_size(),
                start=start,
                report=functools.partial(_report, told.run),
                event=send,
            ),
        )
    send.flush()


def _report(run: str, metrics: Metrics, folder: Path | None) -> None:
    """Every rank calls it equally often; the folder is rank 0's alone. Raises :class:`UserError` where the disk is full."""
    import ray.train

    name = f"step-{int(metrics['step']):08d}"
    kept = ray.train.Checkpoint.from_directory(str(folder)) if folder is not None else None
    try:
        ray.train.report(dict(metrics), checkpoint=kept, checkpoint_dir_name=name)
    except OSError as error:
        if error.errno not in UNMENDABLE:
            raise
        raise UserError(storage.explain(error, run)) from error
