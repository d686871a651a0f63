"""A site's workers: with ``resources.num_workers`` above 1 a Ray of its own, and in it a group that stays for all rounds.

The site's process decodes, checks and writes down what is asked; the ranks get what it has let in, and nothing of the line. The
group is started when the site joins, and again where it was lost.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tunesmith.errors import ClusterError, TrainingFailed
from tunesmith_federated.deployment.ledger import Ledger
from tunesmith_federated.work import Done, Here, Job, Order, Worker, perform

if TYPE_CHECKING:
    from tunesmith.training.standing import Standing
    from tunesmith_federated.deployment.site_config import SiteConfig
    from tunesmith_federated.holdings import Held

log = logging.getLogger("tunesmith.site")

TRIES = 2
"""How often a request is tried whose group was lost."""
LOG = "workers.log"
"""What Ray and the workers say, in the site's state folder."""
FOLDER = "ray"
"""A link in the state folder to Ray's own, which lies where paths are short enough for its sockets."""
OWN_PREFIX = "tunesmith-site-"


@dataclass(frozen=True)
class Request:
    """What every rank is handed."""

    recipe: str
    place: str
    """Where the site's prepared rows lie."""
    order: Order


@contextlib.contextmanager
def worker_of(config: SiteConfig) -> Iterator[Worker]:
    """Who computes for the site: this process, or a group that ends with the context.

    Raises:
        ClusterError: Ray cannot start here.
        TrainingFailed: the workers do not come.
    """
    if config.resources.num_workers == 1:
        yield alone(config)
        return
    with Group(config) as group:
        yield group


def alone(config: SiteConfig) -> Here:
    """This process, within what the owner's limit leaves each job."""
    ledger = Ledger(config.state_dir)
    return Here(left=lambda job: ledger.left(job, config.limits.seconds))


class Group:
    """Workers that share each update's examples. A context: they end with it."""

    def __init__(self, config: SiteConfig) -> None:
        self._config, self._resources = config, config.resources
        self._ledger = Ledger(config.state_dir)
        self._standing: Standing | None = None
        self._ending = contextlib.ExitStack()

    @property
    def size(self) -> int:
        """Processes."""
        return self._resources.num_workers

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def perform(self, job: Job, held: Held, order: Order) -> Done:
        """On all ranks together. Where some are lost, with new ones, once. All of it within what the job has left of the site.

        Raises:
            UserError: as raised on a rank.
            TrainingFailed: the group was lost each time, or the time is up.
        """
        assert held.place, "the ranks open the rows where they lie"
        request = Request(job.text, held.place, order)
        deadline = time.monotonic() + self._ledger.left(order.ask.job, self._config.limits.seconds)
        tries = 0
        while True:
            tries += 1
            try:
                return self._call(request, deadline)
            except (TrainingFailed, ClusterError) as error:  # the latter where Ray does not start: nothing that a server mends
                self._end()
                if tries == TRIES or time.monotonic() >= deadline:
                    raise TrainingFailed(
                        f"the site's {self.size} workers failed, in try {tries} of {TRIES}: {error}"
                    ) from error
                log.warning("the workers were lost: %s; new ones are started, and the request is tried once more", error)
            except BaseException:
                self._end()
                raise

    def _call(self, request: Request, deadline: float) -> Done:
        if self._standing is not None and not self._standing.usable:
            log.warning("the workers were lost while they waited: new ones are started")
            self._end()
        if self._standing is None:
            self._start()
        assert self._standing is not None
        done: Done = self._standing.call(request, within=max(0.0, deadline - time.monotonic()))
        return done

    def _start(self) -> None:
        """A Ray of our own and the workers in it."""
        from tunesmith.cluster.connect import Share, connect
        from tunesmith.training.standing import Standing

        begun = time.monotonic()
        log.info("starting %d workers, which stay for all rounds; what they say stands in %s", self.size, LOG)
        gpus, threads = self._resources.gpus, max(1, self._resources.cpus // self.size)
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # a key of its own, that the user's other clusters do not share
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # the site opens no port; `connect` sees to Gloo and to Ray itself
        try:
            folder = self._ending.enter_context(_folder(self._config.state_dir))
            share = Share(self.size, gpus, folder)
            self._ending.enter_context(connect("local", log_file=str(self._config.state_dir / LOG), share=share))
            make = functools.partial(rank, os.getcwd())
            self._standing = Standing(make, self.size, threads=threads, gpus=gpus > 0, folder=folder)
        except BaseException:
            self._end()
            raise
        log.info("%d workers are there after %.0f s", self.size, time.monotonic() - begun)

    def _end(self) -> None:
        standing, self._standing = self._standing, None
        try:
            if standing is not None:
                standing.close()
        finally:
            self._ending.close()


@contextlib.contextmanager
def _folder(state: Path) -> Iterator[str]:
    """A folder for Ray, readable to this user alone; one that a killed site has left is removed."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    link = state / FOLDER
    _remove(link)
    folder = tempfile.mkdtemp(prefix=OWN_PREFIX, dir=os.environ.get("RAY_TMPDIR") or None)
    link.symlink_to(folder)
    try:
        yield folder
    finally:
        _remove(link)


def _remove(link: Path) -> None:
    if link.is_symlink():
        folder = Path(os.readlink(link))
        if folder.name.startswith(OWN_PREFIX) and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
        link.unlink()


def rank(place: str, number: int, size: int) -> Callable[[Request], Done]:
    """What a rank does with requests; it keeps the base model and the rows' memory maps between them.

    ``place``: the site's working directory, which paths of base models may be relative to. Ray Train gives its workers another.
    """
    import transformers  # noqa: F401  # warm before the first request

    import tunesmith.training.fit  # noqa: F401
    from tunesmith.data import PreparedData
    from tunesmith_federated.holdings import Held

    os.chdir(place)
    jobs: dict[str, Job] = {}
    held: dict[str, Held] = {}

    def work(request: Request) -> Done:
        if request.recipe not in jobs:
            jobs.clear()
            jobs[request.recipe] = Job(request.recipe)
        if request.place not in held:
            held.clear()
            held[request.place] = Held.of(PreparedData.open(request.place))
        return perform(jobs[request.recipe], held[request.place], request.order, number, size)

    return work
