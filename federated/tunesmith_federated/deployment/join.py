"""A site at work: one process that asks the fleet for messages and answers each with the installed client app.

What the server sends is data to that one app: the app that a run names is never fetched, and nothing that comes over the line
is run. The process opens no port. It imports PyTorch once, and keeps the base model and the prepared data between messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx

from tunesmith import storage
from tunesmith.errors import ServiceError, UserError
from tunesmith_federated.deployment import certificates
from tunesmith_federated.deployment.audit import DiskTrouble
from tunesmith_federated.deployment.checking import check_machine
from tunesmith_federated.deployment.kept import Kept
from tunesmith_federated.deployment.site_config import VARIABLE, SiteConfig
from tunesmith_federated.deployment.trouble import RUN_IS_OVER, Trouble, explain

if TYPE_CHECKING:
    from tunesmith_federated.deployment.fleet import Fleet
    from tunesmith_federated.flower import Message

log = logging.getLogger("tunesmith.site")

FASTEST_POLL, SLOWEST_POLL = 0.1, 2.0
"""Seconds between two questions for a message: soon after the last one, and when none comes for a while."""
SLOWER = 1.15
FIRST_RETRY, LAST_RETRY = 1.0, 15.0
"""Seconds between two tries to reach the server."""
TELL_EVERY = 60.0
"""Seconds between two words about a server that cannot be reached."""
NO_ROOM = "the site's disk is full, or cannot be written: it does nothing that it cannot write down"
App = Callable[[Any, Any], Any]


def join(config: SiteConfig, app: App | None = None) -> None:
    """Answer until Ctrl-C or SIGTERM. ``app`` None is the wing's own.

    Raises:
        UserError: what the owner can mend: files that do not fit, more workers than the machine has, a site that has joined
            already.
        ServiceError: the server does not let this site in.
    """
    certificates.check_site(config.certificates_dir)
    check_machine(config)
    with _alone(config), contextlib.ExitStack() as ending:
        _prepare_process(config)
        app = app or _installed_app(config, ending)
        line = _line(config)
        ending.callback(line.close)
        _Answering(config, line, app).run()


class _Answering:
    """The loop, and what it must remember of the line."""

    def __init__(self, config: SiteConfig, line: Fleet, app: App) -> None:
        self._config, self._line, self._app = config, line, app
        self._online = threading.Event()
        self._ending = threading.Event()
        self._told: float | None = None
        self._states: dict[int, Any] = {}
        self._kept = Kept(config.state_dir)

    def run(self) -> None:
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        try:
            pause = FASTEST_POLL
            while True:
                message = self._until_it_works(self._ask)
                if message is not None:
                    self._answer(message)
                    pause = FASTEST_POLL
                else:
                    time.sleep(pause)
                    pause = min(pause * SLOWER, SLOWEST_POLL)
        finally:
            self._ending.set()
            if self._online.is_set():
                with contextlib.suppress(httpx.HTTPError, OSError):
                    self._line.deactivate()
                    self._kept.offline()

    def _ask(self) -> Message | None:
        """The next message, if there is one. Goes online first where the site is not."""
        if not self._online.is_set():
            with self._telling():
                self._kept.leave_as_before(self._line)
            node_id = self._line.activate()
            self._online.set()
            with self._telling():
                self._kept.online(node_id)
            log.info("joined %s as %s; waiting for work", self._config.server, self._config.name)
        return self._line.receive()

    def _answer(self, message: Message) -> None:
        from tunesmith_federated.flower import Error, Message

        begun = time.monotonic()
        reply = Message(Error(code=1, reason=NO_ROOM), reply_to=message)
        with self._telling():
            self._kept.received(message)
            reply = self._reply(message)
        seconds = time.monotonic() - begun
        self._until_it_works(lambda: self._line.send(reply, seconds))
        with self._telling():
            self._kept.answered()

    def _reply(self, message: Message) -> Message:
        """What the app says; where it fails, that it has failed and nothing else, for the error may tell of rows.

        What an app raises of the disk has words that are meant for the server.
        """
        from tunesmith_federated.flower import Context, Error, Message, RecordDict

        run_id = message.metadata.run_id
        state = self._states.get(run_id) or RecordDict()
        self._states = {run_id: state}
        context = Context(run_id, self._line.node_id, node_config={}, state=state, run_config={})
        try:
            answer: Message = self._app(message, context)
            return answer
        except DiskTrouble as error:
            return Message(Error(code=1, reason=str(error)), reply_to=message)
        except Exception as error:
            log.exception("the request could not be answered")
            return Message(Error(code=1, reason=f"{type(error).__name__} at the site; its own log says more"), reply_to=message)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """The owner is told where the state folder cannot be written, and the site stays: there may be room again."""
        try:
            yield
        except OSError as error:
            log.error("%s", storage.explain(error, self._config.state_dir))  # noqa: TRY400  # the sentence is all there is

    def _until_it_works(self, request: Callable[[], Any]) -> Any:
        """The request's answer, tried again while the server is away; None where the run that asked is over."""
        pause = FIRST_RETRY
        while True:
            try:
                answer = request()
                if self._told is not None:
                    log.info("%s answers again", self._config.server)
                    self._told = None
                return answer
            except (httpx.HTTPError, ValueError) as error:
                if isinstance(error, ValueError):  # a message that came damaged, or is of another version
                    log.error("a message could not be read: %s", error)  # noqa: TRY400  # the sentence is all there is
                    return None
                trouble = explain(error, self._config.server)
                if trouble.what == RUN_IS_OVER:
                    log.warning("the answer came too late: %s", RUN_IS_OVER)
                    return None
                self._bear(trouble, error)
            time.sleep(pause)
            pause = min(2 * pause, LAST_RETRY)

    def _bear(self, trouble: Trouble, error: Exception) -> None:
        """Say what is amiss, not too often. Raises :class:`ServiceError` where trying again cannot help."""
        was_online = self._online.is_set()
        unknown = isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED
        if unknown and was_online:
            self._online.clear()  # SuperLink may have begun anew and given the key another number
            return
        if not trouble.passes:
            raise ServiceError(trouble.what) from error
        if self._told is None or time.monotonic() - self._told >= TELL_EVERY:
            log.warning("%s; trying on", trouble.what)
            self._told = time.monotonic()

    def _beat(self) -> None:
        """Heartbeats, so that SuperLink counts the site while it trains."""
        from tunesmith_federated.deployment.fleet import HEARTBEAT_SECONDS

        while not self._ending.wait(HEARTBEAT_SECONDS / 2):
            if self._online.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    self._line.heartbeat()


def _line(config: SiteConfig) -> Fleet:
    from tunesmith_federated.deployment.fleet import Fleet

    folder = config.certificates_dir
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(folder / "ca.crt")
    context.load_cert_chain(folder / "site.crt", folder / "site.key")
    return Fleet(config.server, context, certificates.load_node_key(folder / "node.key"))


def _prepare_process(config: SiteConfig) -> None:
    """What the site's computing may use, and its imports: once, before the first message."""
    os.environ[VARIABLE] = str(config.path)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not config.resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif "CUDA_VISIBLE_DEVICES" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in range(config.resources.gpus))
    import torch

    torch.set_num_threads(config.resources.cpus)


def _installed_app(config: SiteConfig, ending: contextlib.ExitStack) -> App:
    """The wing's, with what computes for it, which ends with ``ending``."""
    import transformers  # noqa: F401  # warm before the first message

    import tunesmith.training.fit  # noqa: F401
    from tunesmith_federated import client_app
    from tunesmith_federated.deployment.group import worker_of
    from tunesmith_federated.deployment.here import make_site

    made = make_site(ending.enter_context(worker_of(config)))
    client_app.find = lambda context: made
    gc.collect()
    gc.freeze()
    return client_app.app


@contextlib.contextmanager
def _alone(config: SiteConfig) -> Iterator[None]:
    """One process for each site; the system gives the lock back however this one ends."""
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (config.state_dir / "site.lock").open("a+")
    except OSError as error:
        raise UserError(f"the state folder {storage.explain(error, config.state_dir)}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(
                f"the site {config.name} has joined already: process {file.read().strip() or '?'} has {config.state_dir}\n"
                "    → Stop that one first."
            ) from None
        file.truncate(0)
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, and does not say whose it is
            os.write(file.fileno(), str(os.getpid()).encode())
        yield


def log_to_terminal() -> None:
    """The site's log, with times, on standard output; it is a service."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
