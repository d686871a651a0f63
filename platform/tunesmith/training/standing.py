"""A standing group: workers that Ray Train starts once, and that then do one request after the other.

For whoever trains again and again on the same machine: starting the workers takes longer than many a training. Each rank makes
what it works with once, is handed every request, and works on it together with the others; rank 0 answers. A rank that
fails or dies ends the group, for the others may wait for it in the middle of an exchange.
"""

from __future__ import annotations

import contextlib
import gc
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import TrainingFailed, UserError
from tunesmith.training.controlled import Controlled, introducing, what_failed
from tunesmith.training.desk import Desk, Outcome
from tunesmith.training.mailbox import find_mailbox, open_mailbox

START_TIMEOUT = 300.0
"""Seconds in which all workers must be there."""
LOOK = 2.0
"""Seconds that the driver waits for an answer before it looks whether there is still somebody to give one."""
WAIT = 20.0
"""Seconds that a worker waits for a request before it asks again."""
GRACE = 60.0
"""Seconds beyond that in which the desk must say something: it is a process like any other, and the machine may be busy."""
NOTICED = 15.0
"""Seconds after which Ray Train has noticed that a worker is gone."""

Work = Callable[[Any], Any]
Make = Callable[[int, int], Work]
"""Rank and number of workers → what does the requests on this rank. Called once on each."""


@dataclass(frozen=True)
class Told:
    """What a worker is told when it starts."""

    desk: str
    make: Make
    threads: int


class Standing:
    """The driver's side, of workers on its own machine. Made when all are there; of no more use after an error."""

    def __init__(self, make: Make, workers: int, *, threads: int, gpus: bool, folder: str) -> None:
        """On the connected Ray.

        Args:
            make: see :data:`Make`.
            workers: processes, each with a CPU of Ray's.
            threads: of PyTorch, in each.
            gpus: whether each has a GPU.
            folder: where Ray Train may write, on this machine.

        Raises:
            TrainingFailed: they are not there within :data:`START_TIMEOUT` seconds.
        """
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from tunesmith.training.rendezvous import ByFile

        name = f"desk-{secrets.token_hex(8)}"
        self._desk = open_mailbox(name, Desk, workers)
        trainer = TorchTrainer(
            stand,
            train_loop_config={"told": Told(name, make, threads)},
            # Both, for a recipe may ask for the CPU where there is a GPU.
            torch_config=ByFile("cpu:gloo,cuda:nccl" if gpus else "gloo", file=f"{folder}/{name}.store"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpus, resources_per_worker={"CPU": 1.0, **({"GPU": 1.0} if gpus else {})}
            ),
            run_config=RunConfig(
                name=name,
                storage_path=folder,
                callbacks=[introducing(self._desk)],
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        self._training: Controlled | None = Controlled(trainer, self._desk)
        with self._or_closed():
            self._followed(self._desk.all_ready, START_TIMEOUT)

    @property
    def usable(self) -> bool:
        """Whether its workers are there, as far as Ray Train knows."""
        return self._training is not None and self._training.running()

    def call(self, request: Any, within: float) -> Any:
        """Rank 0's answer. Whatever is raised, the group is closed.

        Raises:
            UserError: as raised by a rank, in its words.
            TrainingFailed: a rank has failed or died, or there is no answer within so many seconds.
        """
        import ray

        with self._or_closed():
            self._ask(self._desk.ask, [ray.put(request)])
            outcome: Outcome = self._followed(self._desk.outcome, within)
            if outcome.user:
                raise UserError(outcome.failed)
            if outcome.failed:
                assert self._training is not None
                # A rank that lost another one says so first; what happened to that one is what matters.
                noticed = not self._training.running(NOTICED) and self._training.error is not None
                raise TrainingFailed(what_failed(self._training.error) if noticed else outcome.failed)
            return self._fetched(outcome.answer)

    def close(self) -> None:
        """End the workers."""
        if self._training is not None:
            training, self._training = self._training, None
            training.end()

    @contextlib.contextmanager
    def _or_closed(self) -> Any:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _followed(self, method: Any, within: float) -> Any:
        """What the desk says in the end, as long as there are workers."""
        deadline = time.monotonic() + within
        assert self._training is not None
        while (said := self._ask(method, LOOK)) is None:
            if not self._training.running():
                raise TrainingFailed(what_failed(self._training.error))
            if time.monotonic() > deadline:
                raise TrainingFailed(f"the workers have not answered within {within:.0f} s")
        return said

    def _ask(self, method: Any, argument: Any) -> Any:
        import ray

        try:
            return ray.get(method.remote(argument), timeout=LOOK + GRACE)
        except ray.exceptions.RayError as error:
            raise TrainingFailed(f"Ray no longer answers ({type(error).__name__})") from error

    def _fetched(self, answer: Any) -> Any:
        import ray

        try:
            return ray.get(answer[0], timeout=GRACE)
        except ray.exceptions.RayError as error:
            raise TrainingFailed(f"the answer was lost on its way ({type(error).__name__})") from error


def stand(config: dict[str, Any]) -> None:
    """The entry point on each worker: one request after the other, until there are no more."""
    import ray
    import ray.train
    import torch

    told: Told = config["told"]
    desk = find_mailbox(told.desk)
    where = ray.train.get_context()
    rank = where.get_world_rank()
    torch.set_num_threads(told.threads)
    work = told.make(rank, where.get_world_size())
    # What was imported so far never becomes garbage; without this every collection walks all of torch.
    gc.collect()
    gc.freeze()
    ray.get(desk.ready.remote(rank), timeout=GRACE)
    number = 0
    while True:
        request = ray.get(desk.take.remote(number, WAIT), timeout=WAIT + GRACE)
        if request is None:
            if ray.get(desk.ended.remote(), timeout=GRACE):
                return
            continue
        number = request.number
        try:
            answer = work(ray.get(request.what[0], timeout=GRACE))
            ray.get(desk.done.remote(rank, [ray.put(answer)] if rank == 0 else None), timeout=GRACE)
        except Exception as error:
            words = str(error) if isinstance(error, UserError) else f"worker {rank}: {type(error).__name__}: {error}"
            ray.get(desk.failed.remote(words, isinstance(error, UserError)), timeout=GRACE)
            raise
        del request, answer
