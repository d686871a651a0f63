"""The name under which prepared data is kept: a hash of everything that would change it."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.data import media_files, rows
from tunesmith.data.care.known import read_list
from tunesmith.data.sources import Source
from tunesmith.recipe.paths import absolute

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import State, Task

log = logging.getLogger(__name__)

FORMAT = 3
"""Version of the files that :mod:`tunesmith.data.prepared` reads."""

REMEMBERED = 16 << 20
"""Sources of at least so many bytes, or :data:`MANY` files, are read for their hash once, and again only when changed."""
MANY = 64
_SETTLED = 2_000_000_000
"""Nanoseconds since the last change, after which a file's time is taken to tell of any later change."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json", ".md")


def data_hashes(sources: Mapping[str, tuple[Source, ...]], cache: Path) -> dict[str, str]:
    """The content hash of each split's sources; ``cache`` is a folder where hashes of large sources are remembered."""
    return {split: digest([_content_hash(source, cache) for source in members]) for split, members in sources.items()}


def prepared_key(
    recipe: Recipe,
    task: Task,
    hashes: Mapping[str, str],
    sources: Mapping[str, tuple[Source, ...]],
    state: State | None = None,
) -> str:
    """32 hexadecimal digits over the data, the part of the recipe that matters, the processor and the code that encodes.

    ``state`` is given where it is frozen already.
    """
    wanted = recipe.data.model_dump(
        mode="json", exclude={"train", "validation", "test", "format", "engine", "cache_dir", "augment", "unlabelled", "groups"}
    )
    wanted["few_shot"].pop("seeds")  # each repetition has a seed of its own
    if state is None and recipe.data.known_faults:
        wanted["known_faults"] = read_list(absolute(recipe.data.known_faults, recipe.base_dir))
    else:
        del wanted["known_faults"]
    limits = (recipe.data.max_train_samples, recipe.data.max_validation_samples)
    drawn = any(limit is not None for limit in limits) or recipe.data.label_errors != "off"
    if {"validation", "test"} <= set(sources) and not drawn:
        wanted["split"] = {way: wanted["split"][way] for way in ("group", "time")}  # nothing is drawn
    media = any(column.kind in rows.MEDIA for column in task.columns.values())
    places = {split: [f.uri for s in members for f in s.files[:1]] for split, members in sources.items()} if media else {}
    parts = {
        "format": FORMAT,
        "task": recipe.task,
        "data": dict(hashes),
        "places": places,  # rows of media hold the paths of their files
        "recipe": wanted,
        "model": model_key(recipe),
        "code": code_key(task),
        "state": state,
    }
    if named := media_files.stamps(sources, task, recipe.data.columns):
        parts["media"] = named
    domains = {split: [source.domain for source in members] for split, members in sources.items()}
    if any(any(names) for names in domains.values()):
        parts["domains"] = domains  # not the weights, which only training draws by
    return digest(parts)


def model_key(recipe: Recipe) -> dict[str, Any]:
    """What the processor and the base's config are: names and revision, and the contents where they are local files."""
    model = recipe.model
    names = {"model": model.model_name_or_path, "processor": model.processor_name_or_path}
    return {"revision": model.revision, **{k: _folder_key(name, recipe.base_dir) for k, name in names.items() if name}}


def code_key(task: Task) -> dict[str, str]:
    """The versions of what encodes: the task's source code, Tunesmith, transformers and tokenizers."""
    module = sys.modules[type(task).__module__]
    file = getattr(module, "__file__", None)
    files: list[Path] = []
    if file:
        ours = type(task).__module__.startswith("tunesmith.tasks.")
        files = sorted(Path(file).parent.glob("*.py")) if ours else [Path(file)]
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        digest.update(path.read_bytes())
    packages = ("tunesmith", "transformers", "tokenizers", "pillow")
    return {"task": digest.hexdigest(), **{name: _version(name) for name in packages}}


def _content_hash(source: Source, cache: Path) -> str:
    """The hash of a source's contents, remembered under its files' names, sizes and times where reading it takes long."""
    large = sum(file.size for file in source.files) >= REMEMBERED or len(source.files) >= MANY
    newest = max((file.changed for file in source.files), default=-1)
    if not large or min((file.changed for file in source.files), default=-1) < 0:
        return source.content_hash()
    memo = cache / "hashes" / source.fingerprint()
    try:
        return memo.read_text(encoding="ascii")
    except OSError:
        found = source.content_hash()
    if time.time_ns() - newest > _SETTLED:
        storage.write_text(memo, found)
    return found


def _folder_key(name: str, base_dir: str) -> Any:
    """A Hub id as it is; a folder as the hashes of its files, weights left out."""
    local = Path(name).expanduser()
    place = name if storage.scheme(name) else str(local) if local.is_absolute() else storage.join(base_dir, name)
    if not storage.is_dir(place):
        return name
    files = [file for file in storage.list_files(place) if not file.endswith(_WEIGHTS)]
    return {storage.name(file): storage.file_hash(file) for file in files}


def digest(value: Any) -> str:
    """32 hexadecimal digits over plain values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
