"""Ray Train at work beside the thread that has started it: followed, ended early, and its failures in words."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from tunesmith.training.mailbox import Stopped

STOP_TIMEOUT = 10.0
"""Seconds for each step of ending Ray Train early."""


class Controlled:
    """A trainer's ``fit`` in a thread of its own: in the main thread Ray would take over Ctrl-C."""

    def __init__(self, trainer: Any, mailbox: Any) -> None:
        """``mailbox``: the actor that :func:`introducing` was made with."""
        self._trainer, self._mailbox = trainer, mailbox
        self.result: Any = None
        """What ``fit`` has returned; None before, and where it failed."""
        self.error: BaseException | None = None
        """Why it failed."""
        self._thread = threading.Thread(target=self._work, name="ray-train", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self.result = self._trainer.fit()
        except BaseException as error:  # told to whoever follows, in a thread of theirs
            self.error = error

    def running(self, within: float = 0.0) -> bool:
        """Whether it still runs after so many seconds."""
        self._thread.join(within)
        return self._thread.is_alive()

    def end(self) -> None:
        """Stop the workers, as Ray Train does at Ctrl-C, and wait until its thread has noticed.

        The workers would live on where Ray was there before, and train on behind the user's back. And no thread may wait for
        Ray when the connection is closed.
        """
        import ray

        answers = True
        try:
            ray.get(self._mailbox.fail.remote(Stopped()), timeout=STOP_TIMEOUT)
            controller = ray.get(self._mailbox.controller.remote(), timeout=STOP_TIMEOUT)
            if controller is not None:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(controller.abort.remote(), timeout=STOP_TIMEOUT)
        except ray.exceptions.RayError:
            answers = False
        self._thread.join(STOP_TIMEOUT)
        if answers:  # else Ray has gone first (SIGTERM to the whole group), and what asks it waits for a minute
            ray.kill(self._mailbox)


def introducing(mailbox: Any) -> Any:
    """A callback by which Ray Train's controller leaves its handle in the mailbox: ``fit`` gives it to nobody."""
    from ray.train.v2._internal.execution.callback import ControllerCallback

    class Introducing(ControllerCallback):
        def after_controller_start(self, train_run_context: Any) -> None:
            import ray

            ray.get(mailbox.introduce.remote(ray.get_runtime_context().current_actor))

    return Introducing()


def what_failed(error: BaseException | None) -> str:
    """The innermost reason of a failed training, in a few lines."""
    failures = getattr(error, "worker_failures", None) or {}
    reasons = {str(rank): _last_line(reason) for rank, reason in failures.items()}
    # Ranks that only lost another one say so (gloo, NCCL); what happened to that one is what matters.
    reasons = {rank: reason for rank, reason in reasons.items() if "by peer" not in reason} or reasons
    if reasons:
        return "; ".join(f"worker {rank}: {reason}" for rank, reason in sorted(reasons.items()))
    return _last_line(error)


def _last_line(error: Any) -> str:
    if "worker process has died" in str(error):  # Ray tells at length of every way in which a process may end
        return "its process died: it was killed, ran out of memory, or crashed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
