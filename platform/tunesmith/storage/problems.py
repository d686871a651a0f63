"""Why a place cannot be written, in words that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

from tunesmith.errors import UserError
from tunesmith.storage.places import is_local, local_path, remedy, scheme


@contextlib.contextmanager
def explaining(uri: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError that the user can fix (permission, full disk, bad bucket) into a :class:`UserError` that says so."""
    try:
        yield
    except FileExistsError:
        if not is_local(uri) or local_path(uri).is_dir():
            raise
        raise UserError(explain(NotADirectoryError(errno.ENOTDIR, "not a folder"), uri)) from None
    except OSError as error:
        raise UserError(explain(error, uri)) from error


def explain(error: OSError, uri: str | os.PathLike[str]) -> str:
    """What is wrong with writing to ``uri``, and what to do about it.

    >>> print(explain(OSError(errno.ENOSPC, "No space left on device"), "s3://bucket/runs"))
    s3://bucket/runs cannot be written: the disk is full
        → Free some space, or choose another place.
    """
    text = os.fspath(uri)
    code = error.errno
    if code in (errno.ENOSPC, errno.EDQUOT):
        quota = "the quota is used up" if code == errno.EDQUOT else f"the disk is full{_free(uri)}"
        return f"{text} cannot be written: {quota}\n    → Free some space, or choose another place."
    if code in (errno.EACCES, errno.EPERM):
        user = f" for user {_user()}" if is_local(uri) else ""
        return f"{text} cannot be written: permission denied{user}\n    → Change its owner or mode, or choose another place."
    if code == errno.EROFS:
        return f"{text} cannot be written: the file system is read-only\n    → Choose another place."
    if code in (errno.ENOTDIR, errno.EISDIR):
        return f"{text} cannot be written: {_in_the_way(uri)}\n    → Remove it, or choose another place."
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{text} cannot be written: {reason}\n    → {remedy(scheme(uri))}"


def _free(uri: str | os.PathLike[str]) -> str:
    """How much is free where a local place is, in MiB."""
    if not is_local(uri):
        return ""
    place = local_path(uri).absolute()
    there = next(p for p in [place, *place.parents] if p.exists())
    usage = shutil.disk_usage(there)
    return f" ({usage.free / 2**20:,.1f} MiB of {usage.total / 2**20:,.1f} MiB are free)"


def _in_the_way(uri: str | os.PathLike[str]) -> str:
    """Which part of a local place is a file where a folder is needed, or the other way round."""
    if not is_local(uri):
        return "a file is where a folder is needed"
    place = local_path(uri).absolute()
    file = next((p for p in [place, *place.parents] if p.exists() and not p.is_dir()), None)
    return f"{file} is a file, not a folder" if file else f"{place} is a folder, not a file"


def _user() -> str:
    """Who this process runs as."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError, AttributeError):
        return "this user"
