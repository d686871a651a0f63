"""Reading, writing, listing and copying files at any place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tunesmith.errors import UserError
from tunesmith.storage.places import filesystem, is_local, join, local_path, name, scheme
from tunesmith.storage.problems import explaining

_WHOLE_OBJECTS = frozenset(
    {"s3", "gs", "gcs", "abfs", "abfss", "az", "hf", "memory"}
)  # an object appears only when it is whole
_CHUNK = 1 << 20  # bytes


def exists(uri: str | os.PathLike[str]) -> bool:
    """Whether a file or folder is there."""
    from pyarrow.fs import FileType

    return bool(_info(uri).type != FileType.NotFound)


def is_dir(uri: str | os.PathLike[str]) -> bool:
    """Whether a folder is there."""
    from pyarrow.fs import FileType

    return bool(_info(uri).type == FileType.Directory)


def size(uri: str | os.PathLike[str]) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    from pyarrow.fs import FileType

    info = _info(uri)
    if info.type != FileType.File:
        raise FileNotFoundError(errno.ENOENT, "no such file", os.fspath(uri))
    return int(info.size)


def read_bytes(uri: str | os.PathLike[str]) -> bytes:
    """The whole file. Raises FileNotFoundError."""
    found, path = filesystem(uri)
    with found.open_input_file(path) as stream:
        return bytes(stream.readall())


def read_text(uri: str | os.PathLike[str]) -> str:
    """The whole file, UTF-8. Raises FileNotFoundError, UnicodeDecodeError."""
    return read_bytes(uri).decode("utf-8")


def read_json(uri: str | os.PathLike[str]) -> Any:
    """The JSON value of a file. Raises FileNotFoundError, json.JSONDecodeError."""
    return json.loads(read_bytes(uri))


def file_hash(uri: str | os.PathLike[str]) -> str:
    """BLAKE2b-128 of a file's bytes as hex, read in chunks of 1 MiB."""
    digest = hashlib.blake2b(digest_size=16)
    found, path = filesystem(uri)
    with found.open_input_stream(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def list_files(uri: str | os.PathLike[str], recursive: bool = False) -> list[str]:
    """The files of a folder as places, sorted; none where there is no such folder."""
    return [place for place, is_file in _list(uri, recursive) if is_file]


def stamps(uri: str | os.PathLike[str]) -> list[tuple[str, int, int]]:
    """Of each file below a folder its path, bytes and time of change (ns; -1 where the store tells none), sorted."""
    from pyarrow.fs import FileSelector, FileType

    found, path = filesystem(uri)
    infos = found.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    files = [one for one in infos if one.type == FileType.File]
    return sorted((one.path, int(one.size or 0), -1 if one.mtime_ns is None else int(one.mtime_ns)) for one in files)


def list_dirs(uri: str | os.PathLike[str]) -> list[str]:
    """The folders directly in a folder as places, sorted; none where there is no such folder."""
    return [place for place, is_file in _list(uri, recursive=False) if not is_file]


@contextlib.contextmanager
def writing(uri: str | os.PathLike[str], flush: bool = True) -> Iterator[IO[bytes]]:
    """A binary file to write to; it appears at ``uri`` when the block ends well, and not at all when it raises.

    Without ``flush`` it survives the death of this process, and perhaps not a power cut.
    """
    with explaining(uri):
        if is_local(uri):
            target = local_path(uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            with _renamed(target, flush) as stream:
                yield stream
            return
        with tempfile.TemporaryFile() as spool:
            yield spool
            spool.seek(0)
            _send(uri, spool)


def write_bytes(uri: str | os.PathLike[str], data: bytes, flush: bool = True) -> None:
    """Put a file in place, whole or not at all; folders are made. Raises :class:`UserError` where that is not allowed.

    ``flush`` as in :func:`writing`.
    """
    with writing(uri, flush) as stream:
        stream.write(data)


def write_text(uri: str | os.PathLike[str], text: str) -> None:
    """Like :func:`write_bytes`, UTF-8."""
    write_bytes(uri, text.encode("utf-8"))


def write_json(uri: str | os.PathLike[str], value: Any) -> None:
    """Like :func:`write_bytes`: indented JSON. NumPy numbers become plain ones, NaN and infinities become null."""
    write_text(uri, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """One line of JSON Lines, without its newline.

    >>> json_line({"step": 1, "loss": float("nan")})
    '{"step": 1, "loss": null}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def append_line(uri: str | os.PathLike[str], text: str) -> None:
    """Add one line at the end of a file; the rest of a line that a crash cut short is closed first.

    On a disk this is one write. Object stores cannot append: the file is read and written again, so write there in big steps.
    """
    line = text.rstrip("\n").encode("utf-8") + b"\n"
    with explaining(uri):
        if not is_local(uri):
            before = read_bytes(uri) if exists(uri) else b""
            write_bytes(uri, before + (b"\n" if before and not before.endswith(b"\n") else b"") + line)
            return
        target = local_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            stream.write(line)


def make_dir(uri: str | os.PathLike[str], exist_ok: bool = True) -> None:
    """Make a folder and those above it. Raises FileExistsError where it is there and ``exist_ok`` is False."""
    with explaining(uri):
        if is_local(uri):
            local_path(uri).mkdir(parents=True, exist_ok=exist_ok)
            return
        if not exist_ok and exists(uri):
            raise FileExistsError(errno.EEXIST, "the folder exists", os.fspath(uri))
        found, path = filesystem(uri)
        found.create_dir(path, recursive=True)


def delete(uri: str | os.PathLike[str]) -> None:
    """Remove a file, or a folder with everything in it; nothing happens where there is none."""
    if not exists(uri):
        return
    found, path = filesystem(uri)
    if is_dir(uri):
        found.delete_dir(path)
    else:
        found.delete_file(path)


def download(uri: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Copy a file into ``folder``, or a folder's content to ``folder``; returns the local path of what was copied.

    A folder that was not there before appears only when it is complete. Raises FileNotFoundError.
    """
    target = local_path(folder)
    if not exists(uri):
        raise FileNotFoundError(errno.ENOENT, "nothing there to download", os.fspath(uri))
    if not is_dir(uri):
        target = target / name(uri)
        with writing(target) as stream:
            _copy_to(uri, stream)
        return target
    _copy_folder(os.fspath(uri), target)
    return target


def upload(folder: str | os.PathLike[str], uri: str | os.PathLike[str]) -> None:
    """Copy a local file to ``uri``, or a local folder's content below it. Raises FileNotFoundError."""
    source = local_path(folder)
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, "nothing there to upload", str(source))
    if source.is_file():
        with source.open("rb") as data, writing(uri) as stream:
            shutil.copyfileobj(data, stream, _CHUNK)
    elif is_local(uri):
        _copy_folder(str(source), local_path(uri))
    else:
        for place in list_files(source, recursive=True):
            upload(place, join(uri, Path(place).relative_to(source).as_posix()))


def check_writable(uri: str | os.PathLike[str], need: int = 1 << 16) -> None:
    """Make the folder, write ``need`` bytes into it, read them back, remove them.

    Raises :class:`UserError` that names why it cannot be written: permission, full disk, a file in the way, no such bucket.
    """
    make_dir(uri)
    probe = join(uri, f".tunesmith-{secrets.token_hex(4)}.tmp")
    data = os.urandom(need)
    try:
        write_bytes(probe, data)
        with explaining(uri):
            if read_bytes(probe) != data:
                raise OSError(errno.EIO, "what was written reads back differently")
    finally:
        with contextlib.suppress(OSError, UserError):
            delete(probe)


def _info(uri: str | os.PathLike[str]) -> Any:
    """Arrow's FileInfo of a place."""
    found, path = filesystem(uri)
    return found.get_file_info(path)


def _list(uri: str | os.PathLike[str], recursive: bool) -> list[tuple[str, bool]]:
    """What is in a folder: each place, and whether it is a file; sorted."""
    from pyarrow.fs import FileSelector, FileType

    found, path = filesystem(uri)
    head = path.rstrip("/") + "/"
    infos = found.get_file_info(FileSelector(path, recursive=recursive, allow_not_found=True))
    entries = ((i.path, i.type == FileType.File) for i in infos if i.path.rstrip("/") != path.rstrip("/"))
    quote = urllib.parse.quote if scheme(uri) == "file" else str  # only there is a place percent-encoded
    return sorted((join(uri, quote(p.removeprefix(head))), is_file) for p, is_file in entries)


@contextlib.contextmanager
def _renamed(target: Path, flush: bool = True) -> Iterator[IO[bytes]]:
    """A temporary file beside ``target`` that is flushed to the disk and takes its name at the end."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if flush:
        _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut; some file systems do not offer it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _send(uri: str | os.PathLike[str], data: IO[bytes]) -> None:
    """Put a stream at a remote place; where the store would show half a file, under another name first."""
    found, path = filesystem(uri)
    whole = scheme(uri) in _WHOLE_OBJECTS
    first = path if whole else f"{path}.{secrets.token_hex(4)}.tmp"
    if not whole:
        found.create_dir(path.rsplit("/", 1)[0], recursive=True)
    with found.open_output_stream(first) as stream:
        shutil.copyfileobj(data, stream, _CHUNK)
    if not whole:
        if exists(uri):  # HDFS does not rename over a file
            found.delete_file(path)
        found.move(first, path)


def _copy_to(uri: str | os.PathLike[str], stream: IO[bytes]) -> None:
    """Stream a file's bytes into ``stream``."""
    found, path = filesystem(uri)
    with found.open_input_stream(path) as source:
        while chunk := source.read(_CHUNK):
            stream.write(chunk)


def _copy_folder(uri: str, target: Path) -> None:
    """Copy a folder to a local one beside it first, then rename it, or its files where the target has some already."""
    from pyarrow import fs

    found, path = filesystem(uri)
    with explaining(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        inner = temporary / "content"  # mkdtemp's own folder is private to the user
        try:
            inner.mkdir()
            fs.copy_files(path, str(inner), source_filesystem=found, destination_filesystem=fs.LocalFileSystem())
            if not target.exists() or (target.is_dir() and not any(target.iterdir())):
                inner.replace(target)
            else:
                for file in sorted(p for p in inner.rglob("*") if p.is_file()):
                    place = target / file.relative_to(inner)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _plain(value: Any) -> Any:
    """A value that JSON has: NumPy scalars and arrays by ``tolist``, paths as text, NaN and infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
