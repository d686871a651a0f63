"""Where something is: local paths and URIs, their parts, and the file systems behind them."""

from __future__ import annotations

import functools
import os
import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*)://")
_QUERY = re.compile(r"\?(?=[\w.\-]+=)")  # ``?region=…``, but not the ``?`` of a glob
_ARROW_SCHEMES = frozenset({"s3", "gs", "gcs", "hdfs", "viewfs"})


def scheme(uri: str | os.PathLike[str]) -> str:
    """The scheme of a URI in lower case, ``""`` for a local path.

    >>> scheme("s3://bucket/a.csv"), scheme("data/a.csv")
    ('s3', '')
    """
    found = _SCHEME.match(os.fspath(uri))
    return found.group(1).lower() if found else ""


def is_local(uri: str | os.PathLike[str]) -> bool:
    """Whether the place is on a disk of this machine: a path, or a ``file://`` URI."""
    return scheme(uri) in ("", "file")


def local_path(uri: str | os.PathLike[str]) -> Path:
    """The path of a local place; ``~`` is the home folder. Raises :class:`UserError` for a remote one."""
    text = os.fspath(uri)
    if not is_local(text):
        raise UserError(
            f"{text} is not on this machine, but a local path is needed here.\n    → Copy it to a local folder first."
        )
    if scheme(text):
        return Path(urllib.parse.unquote(_host_and_path(text)[1]))
    return Path(text).expanduser()


def absolute(uri: str | os.PathLike[str]) -> str:
    """The place as any process names it: a local path made absolute; a remote URI stays.

    >>> absolute("s3://bucket/runs"), absolute("/tmp/runs")
    ('s3://bucket/runs', '/tmp/runs')
    """
    return str(local_path(uri).absolute()) if is_local(uri) else os.fspath(uri)


def join(uri: str | os.PathLike[str], *parts: str) -> str:
    """The place below ``uri``; a query (``?region=…``) stays at the end.

    >>> join("s3://bucket/runs?region=eu-west-1", "a", "model")
    's3://bucket/runs/a/model?region=eu-west-1'
    >>> join("s3://bucket/runs/?region=eu-west-1", "")
    's3://bucket/runs?region=eu-west-1'
    """
    base, query = split_query(os.fspath(uri))
    if not scheme(base):
        return str(Path(base, *parts))
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts if part)]) + query


def name(uri: str | os.PathLike[str]) -> str:
    """The last part of the place.

    >>> name("s3://bucket/runs/digits/?region=eu-west-1"), name("runs/digits/")
    ('digits', 'digits')
    """
    return split_query(os.fspath(uri))[0].rstrip("/").rsplit("/", 1)[-1]


def parent(uri: str | os.PathLike[str]) -> str:
    """The folder that the place is in.

    >>> parent("s3://bucket/runs/digits/?region=eu-west-1"), parent("runs/digits"), parent("runs")
    ('s3://bucket/runs?region=eu-west-1', 'runs', '.')
    """
    base, query = split_query(os.fspath(uri))
    return base.rstrip("/").rsplit("/", 1)[0] + query if scheme(base) else str(Path(base).parent)


def relative(uri: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """The way from a folder to a place below it, without the query that both may have.

    >>> relative("s3://bucket/runs/digits/model?region=eu-west-1", "s3://bucket/runs/?region=eu-west-1")
    'digits/model'
    """
    head, base = (split_query(os.fspath(one))[0] for one in (folder, uri))
    return base.removeprefix(head).strip("/")


def filesystem(uri: str | os.PathLike[str]) -> tuple[FileSystem, str]:
    """The file system of a place, and the path in it. Raises :class:`UserError` for a scheme that nothing installed knows."""
    from pyarrow import fs

    text = os.fspath(uri)
    if is_local(text):
        return fs.LocalFileSystem(), str(local_path(text).absolute())
    kind = scheme(text)
    base, query = split_query(text)
    try:
        if kind not in _ARROW_SCHEMES:
            return _through_fsspec(base)
        host, path = _host_and_path(base)
        found, root = _connect(kind, host, query)
        return found, f"{root.rstrip('/')}/{path.lstrip('/')}".rstrip("/") or "/"
    except (ValueError, ImportError, OSError) as error:
        # Arrow lists every folder in which it looked for libhdfs; the first line says it all.
        raise UserError(f"{text}: the storage cannot be opened: {str(error).splitlines()[0]}\n    → {remedy(kind)}") from error


def split_query(uri: str) -> tuple[str, str]:
    """A URI without its query, and the query with its ``?``; a local path has none."""
    found = _QUERY.search(uri) if scheme(uri) else None
    return (uri[: found.start()], uri[found.start() :]) if found else (uri, "")


def _host_and_path(uri: str) -> tuple[str, str]:
    """Bucket or host, and the path with its slash; a ``#`` or ``?`` in a key is part of it, unlike in a web address."""
    host, _, path = uri.partition("://")[2].partition("/")
    return host, f"/{path}"


@functools.lru_cache(maxsize=32)
def _connect(kind: str, netloc: str, query: str) -> tuple[FileSystem, str]:
    """One connection for each bucket or name node, kept; and the path of its root."""
    from pyarrow import fs

    found, root = fs.FileSystem.from_uri(f"{kind}://{netloc}/{query}")
    return found, str(root)


def _through_fsspec(uri: str) -> tuple[FileSystem, str]:
    """A file system that Arrow does not know itself."""
    import fsspec
    from pyarrow import fs

    found, path = fsspec.core.url_to_fs(uri)
    return fs.PyFileSystem(fs.FSSpecHandler(found)), str(path).rstrip("/") or "/"


def remedy(kind: str) -> str:
    """What to look at when a kind of storage fails."""
    return {
        "s3": "Check the bucket's name, the region (?region=…) and the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE).",
        "gs": "Check the bucket's name and the credentials (GOOGLE_APPLICATION_CREDENTIALS).",
        "gcs": "Check the bucket's name and the credentials (GOOGLE_APPLICATION_CREDENTIALS).",
        "hdfs": "Hadoop's client must be installed: JAVA_HOME, HADOOP_HOME and CLASSPATH=$(hadoop classpath --glob).",
        "viewfs": "Hadoop's client must be installed: JAVA_HOME, HADOOP_HOME and CLASSPATH=$(hadoop classpath --glob).",
        "abfs": "Install adlfs (pip install adlfs) and check the credentials.",
        "az": "Install adlfs (pip install adlfs) and check the credentials.",
        "": "Check the path.",
        "file": "Check the path.",
    }.get(kind, "Use a local path, s3://, gs://, hdfs://, or a scheme of fsspec whose package is installed.")
