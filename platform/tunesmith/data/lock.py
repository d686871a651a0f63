"""One process at a time: an advisory lock on a file, which the operating system frees when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tunesmith import storage

log = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between two tries."""

PATIENCE = 24 * 3600.0
"""Seconds after which a holder is taken for hung and no longer waited for; what is built is put in place by one rename, so
that two builders harm nobody."""


@contextlib.contextmanager
def lock(path: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock at ``path`` (a file that is made and stays). File systems without locks are used without."""
    with storage.explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait(descriptor, path, patience)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, patience: float) -> None:
    start, told = time.monotonic(), False
    while time.monotonic() - start < patience:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
                return
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if not told and time.monotonic() - start > 2:
            log.info("another process prepares the same data; waiting for it (%s)", path)
            told = True
        time.sleep(POLL)
    log.warning("no longer waiting for the process that holds %s", path)
