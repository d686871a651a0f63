"""Where prepared data is kept: a folder for each key, complete or not there, built by one process at a time."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith import storage
from tunesmith.data.lock import lock
from tunesmith.data.prepared import MANIFEST, PreparedData, node_cache


class Cache:
    """Prepared data under ``place``, a local path or a URI."""

    def __init__(self, place: str) -> None:
        self._place = storage.absolute(place)
        self.local = Path(self._place) if storage.is_local(place) else node_cache()
        """A folder on this machine for what need not be shared."""

    def get(self, key: str, build: Callable[[Path], None]) -> PreparedData:
        """What is kept under a key; ``build`` fills a folder where there is nothing yet."""
        place = storage.join(self._place, key)
        if _complete(place):
            return PreparedData.open(place)
        with lock(self.local / f"{key}.lock"):
            if not _complete(place):
                self._build(key, place, build)
        return PreparedData.open(place)

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A folder for the while."""
        with storage.explaining(self._place), _scratch(self.local, name) as folder:
            yield folder

    def _build(self, key: str, place: str, build: Callable[[Path], None]) -> None:
        for left in self.local.glob(f".{key}.*.tmp"):  # of a process that died: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        with storage.explaining(self._place), _scratch(self.local, key) as folder:
            build(folder)
            target = self.local / key
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
            if not storage.is_local(self._place):
                _publish(target, place)


def _complete(place: str) -> bool:
    return storage.exists(storage.join(place, MANIFEST))


@contextlib.contextmanager
def _scratch(cache: Path, key: str) -> Iterator[Path]:
    """A folder to build in, on the same file system as where it will be; removed if building fails."""
    folder = cache / f".{key}.{secrets.token_hex(4)}.tmp"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, place: str) -> None:
    """Copy finished data to where all nodes find it; the manifest comes last and says that all is there."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    for file in sorted(files, key=lambda p: p.name == MANIFEST):
        storage.upload(file, storage.join(place, *file.relative_to(folder).parts))
