"""Files at any place: a local path, ``file://``, ``s3://``, ``gs://``, ``hdfs://``, and whatever fsspec knows (``memory://``).

A *place* is a local path or a URI. Reading goes through ``pyarrow.fs`` everywhere. Writing never leaves half a file behind: on
disks a temporary file in the same folder is flushed and renamed; object stores show an object only once it is whole; other
stores (HDFS) get a temporary file and a move. What the user can fix (permission, full disk) is raised as :class:`UserError`.
"""

from __future__ import annotations

from tunesmith.storage.files import (
    append_line,
    check_writable,
    delete,
    download,
    exists,
    file_hash,
    is_dir,
    json_line,
    list_dirs,
    list_files,
    make_dir,
    read_bytes,
    read_json,
    read_text,
    size,
    stamps,
    upload,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from tunesmith.storage.globs import expand
from tunesmith.storage.places import absolute, filesystem, is_local, join, local_path, name, parent, relative, scheme
from tunesmith.storage.problems import explain, explaining

__all__ = [
    "absolute",
    "append_line",
    "check_writable",
    "delete",
    "download",
    "exists",
    "expand",
    "explain",
    "explaining",
    "file_hash",
    "filesystem",
    "is_dir",
    "is_local",
    "join",
    "json_line",
    "list_dirs",
    "list_files",
    "local_path",
    "make_dir",
    "name",
    "parent",
    "read_bytes",
    "read_json",
    "read_text",
    "relative",
    "scheme",
    "size",
    "stamps",
    "upload",
    "write_bytes",
    "write_json",
    "write_text",
    "writing",
]
