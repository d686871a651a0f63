"""Which prepared rows a site keeps: of a recipe those of the last lists of classes, so that lists without end fill no disk.

The classes are no part of what a recipe is allowed by, and each list of them makes another copy of the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith_federated.deployment.certificates import write_secret

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

LAST = 2
"""Copies of one recipe's rows: where a job ends and another begins, both are used for a while."""
BOOK = "copies.json"


def keep_last(folder: Path, recipe: Recipe, copy: Path) -> None:
    """``copy`` is what this recipe uses now; copies that no recipe has used lately are removed.

    Args:
        folder: where the site keeps prepared rows, and the book of who uses which.
        recipe: as it was asked; its classes and its name are not looked at.
        copy: the folder of prepared rows.

    Raises :class:`OSError` where the book cannot be written.
    """
    from tunesmith.data.prepared import MANIFEST

    values = recipe.model_dump_json(exclude={"name": True, "data": {"labels": True}})
    known, book = hashlib.blake2b(values.encode(), digest_size=16).hexdigest(), _read(folder / BOOK)
    before = book.get(known, [])
    if before[-1:] == [str(copy)]:
        return
    used = [one for one in before if one != str(copy)] + [str(copy)]
    book[known] = used[-LAST:]
    write_secret(folder / BOOK, json.dumps(book).encode())
    elsewhere = {one for copies in book.values() for one in copies}
    for old in used[:-LAST]:
        if old not in elsewhere:
            with contextlib.suppress(OSError):
                Path(old, MANIFEST).unlink(missing_ok=True)  # first: what is half removed must not look like a whole copy
                shutil.rmtree(old, ignore_errors=True)


def _read(place: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(place.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
