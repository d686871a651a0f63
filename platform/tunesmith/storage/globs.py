"""Files by a pattern, at any place."""

from __future__ import annotations

import os
import re

from tunesmith.storage.files import exists, list_files
from tunesmith.storage.places import join, split_query

_GLOB = re.compile(r"[*?\[]")


def expand(pattern: str | os.PathLike[str]) -> list[str]:
    """The files that a glob names, sorted: ``*`` and ``?`` within a name, ``**`` across folders, ``[0-9]``.

    A place without wildcards, or a file whose name has one literally, is itself; what is not there gives an empty list.
    """
    text = os.fspath(pattern)
    base, query = split_query(text)
    if not _GLOB.search(base):
        return [text] if exists(text) else []
    if _literally_there(text):
        return [text]
    parts = base.split("/")
    first = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    folder = "/".join(parts[:first]) or ("/" if base.startswith("/") else ".")
    below = re.compile(_glob_regex("/".join(parts[first:])))
    recursive = len(parts) - first > 1 or "**" in parts[first]
    prefix = "" if folder == "." and not base.startswith("./") else f"{folder.rstrip('/')}/"
    start = len(join(folder, "x")) - 1  # the length of the listed places' common head
    names = [split_query(place)[0][start:] for place in list_files(folder + query, recursive)]
    return [f"{prefix}{name}{query}" for name in names if below.fullmatch(name)]


def _literally_there(text: str) -> bool:
    """Whether a file is really called what looks like a pattern (``data[1].csv``)."""
    try:
        return exists(text)
    except (OSError, ValueError):  # some stores refuse a wildcard in a name
        return False


def _glob_regex(pattern: str) -> str:
    """A regular expression for a glob below a folder; names that start with a dot are only matched by a dot."""
    out, i, start = [], 0, True
    while i < len(pattern):
        if pattern.startswith("**/", i) and start:
            out.append(r"(?:[^./][^/]*/)*")
            i += 3
            continue
        char = pattern[i]
        hidden = r"(?!\.)" if start else ""
        if pattern.startswith("**", i):
            out.append(hidden + r".*")
            i += 1
        elif char == "*":
            out.append(hidden + r"[^/]*")
        elif char == "?":
            out.append(hidden + r"[^/]")
        elif char == "[" and (end := pattern.find("]", i + 2)) > 0:
            inside = pattern[i + 1 : end].replace("\\", r"\\")
            out.append(f"[^{inside[1:]}]" if inside[0] in "!^" else f"[{inside}]")
            i = end
        else:
            out.append(re.escape(char))
        start = char == "/"
        i += 1
    return "".join(out)
