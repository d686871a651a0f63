"""What a recipe says of its data (``reviews.csv``, ``s3://bucket/*.parquet``, a folder, ``hf://org/name``) as files."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tunesmith import storage
from tunesmith.data import hub, imagefolder
from tunesmith.data.readers import READERS, Chunk
from tunesmith.errors import DataError, nearest
from tunesmith.recipe.paths import AT_SITES

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

    from tunesmith.recipe.data import DataSection, DomainSection

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_COMPRESSED = re.compile(r"\.(gz|bz2|zst|lz4|xz)$")


@dataclass(frozen=True)
class File:
    """A file, with what tells cheaply whether it changed."""

    uri: str
    size: int
    """Bytes."""
    changed: int
    """Time of the last change, nanoseconds since 1970; -1 where the storage does not tell."""


@dataclass(frozen=True)
class Source:
    """Files of one format that were named together."""

    spec: str
    """As the recipe says it."""
    format: str
    """``csv``, ``json``, ``parquet``, ``arrow`` or ``imagefolder``."""
    files: tuple[File, ...]
    root: str
    """The folder that file names are relative to."""
    domain: str | None = None
    """The name of the data set that it is of; None where data sets have no names."""

    def chunks(self) -> Iterator[Chunk]:
        """The rows of all files, in order. Raises :class:`DataError` for a file that cannot be read at all."""
        if self.format == "imagefolder":
            yield from imagefolder.read(self.root, [file.uri for file in self.files])
            return
        for file in self.files:
            try:
                yield from READERS[self.format](file.uri)
            except (OSError, UnicodeError) as error:
                raise DataError(f"{file.uri} cannot be read: {error}\n    → Check the file and its permissions.") from error

    def fingerprint(self) -> str:
        """What changes whenever a file was written again, without reading it (but not on a storage that tells no times)."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(f"{file.uri}\0{file.size}\0{file.changed}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def content_hash(self) -> str:
        """BLAKE2b-128 over the contents; over the names too where they carry meaning (class folders)."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            name = f"/{storage.relative(file.uri, self.root)}" if self.format == "imagefolder" else ""
            digest.update(f"{self.format}\0{name}\0{storage.file_hash(file.uri)}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


Spec: TypeAlias = "str | Sequence[str | DomainSection] | Mapping[str, str | Sequence[str]]"


def resolve_splits(data: DataSection, base_dir: str) -> dict[str, tuple[Source, ...]]:
    """The sources of each split that is given. A folder or Hub id under ``data.train`` may bring validation and test too.

    Raises :class:`DataError` where the rows are those of a federation's sites.
    """
    if data.train == AT_SITES:
        raise DataError(
            "data.train: this recipe leaves the rows to the sites of a federation\n"
            "    → `tunesmith federate RECIPE --superlink FOLDER` asks them; or add data.train: the rows are here."
        )
    given = {"train": data.train, "validation": data.validation, "test": data.test}
    found: dict[str, tuple[Source, ...]] = {}
    for split, spec in given.items():
        if spec is None:
            continue
        together = resolve(spec, data.format, base_dir, split)
        found[split] = together.pop(split)
        if split == "train":
            found.update({other: sources for other, sources in together.items() if given[other] is None})
            _tell_partly(found)
    return {split: found[split] for split in SPLITS if split in found}


def resolve(spec: Spec, format: str, base_dir: str, split: str) -> dict[str, tuple[Source, ...]]:
    """The sources of a spec by split: always ``split``, and others where a folder or Hub id holds them too.

    A mapping from names to places, or a list of named data sets, gives sources that know their domain.

    Raises :class:`DataError` for what is not there (with the nearest name that is), empty, or of an unknown kind.
    """
    merged: dict[str, tuple[Source, ...]] = {}
    for domain, one in _places(spec):
        for name, sources in _resolve_one(one, format, base_dir, split).items():
            merged[name] = (*merged.get(name, ()), *(replace(source, domain=domain) for source in sources))
    return merged


def _places(spec: Spec) -> Iterator[tuple[str | None, str]]:
    """Each place with the name of its domain."""
    if isinstance(spec, str):
        yield None, spec
    elif isinstance(spec, Mapping):
        for name, one in spec.items():
            yield from ((name, place) for _, place in _places(one))
    else:
        for each in spec:
            yield from _places(each if isinstance(each, str) else {each.name: each.path})


def domain_names(sources: Sequence[Source]) -> tuple[str, ...]:
    """The domains of some sources, in their order; none where data sets have no names."""
    return tuple(dict.fromkeys(source.domain for source in sources if source.domain is not None))


def _tell_partly(found: Mapping[str, tuple[Source, ...]]) -> None:
    """Say where some domains bring a split of their own and others do not: the others have no row in it."""
    for split in [name for name in found if name != "train"]:
        brought = domain_names(found[split])
        lacking = [name for name in domain_names(found["train"]) if name not in brought]
        if brought and lacking:
            log.warning("the %s split is that of %s: %s brings none", split, " and ".join(brought), " and ".join(lacking))


def _resolve_one(spec: str, format: str, base_dir: str, split: str) -> dict[str, tuple[Source, ...]]:
    if hub.is_hub(spec, format):
        files = hub.fetch(spec, split)
        return {name: (Source(spec, "arrow", tuple(_file(uri) for uri in uris), ""),) for name, uris in files.items()}
    place = _absolute(spec, base_dir)
    if storage.is_dir(place):
        return _folder(spec, place, format, split)
    uris = storage.expand(place)
    if not uris:
        raise _missing(spec, place, split)
    by_format: dict[str, list[File]] = {}
    for uri in uris:
        by_format.setdefault(_format(uri, format), []).append(_file(uri))
    return {split: tuple(Source(spec, kind, tuple(files), storage.parent(files[0].uri)) for kind, files in by_format.items())}


def _folder(spec: str, place: str, format: str, split: str) -> dict[str, tuple[Source, ...]]:
    """A folder with a subfolder or file for each split, a folder of images, or one of data files."""
    files = [file for file in _files(place) if _is_data(file, format)]
    by_split: dict[str | None, list[File]] = {}
    for file in files:
        first, _, rest = storage.relative(file.uri, place).partition("/")
        by_split.setdefault(SPLIT_NAMES.get((first if rest else _stem(first)).lower()), []).append(file)
    strays = by_split.get(None, [])
    classes = any(_depth(place, file) or imagefolder.is_metadata(file.uri) for file in strays)
    if classes or (strays and "train" not in by_split) or not by_split:
        return {split: (_source(spec, place, files, format, split),)}
    if strays:
        raise DataError(
            f"data.{split}: in {spec} the file {storage.name(strays[0].uri)} belongs to no split, others do by their name"
            "\n    → Name the files one by one in data.train, data.validation and data.test."
        )
    named = {name: members for name, members in by_split.items() if name is not None}
    if split not in named:
        raise DataError(
            f"data.{split}: {spec} has no {split!r} in it, only {', '.join(named)}\n    → Name the file or subfolder itself."
        )
    return {name: (_source(spec, _split_root(place, m), m, format, name),) for name, m in named.items()}


def _source(spec: str, root: str, files: list[File], format: str, split: str) -> Source:
    """The files of one folder as one source."""
    images = [file for file in files if imagefolder.is_image(file.uri)]
    if format == "imagefolder" or (format == "auto" and images):
        kept = [file for file in files if imagefolder.is_image(file.uri) or imagefolder.is_metadata(file.uri)]
        if not images:
            raise DataError(f"data.{split}: {spec} has no images in it\n    → {imagefolder.HELP}")
        return Source(spec, "imagefolder", tuple(kept), root)
    kinds = sorted({_format(file.uri, format) for file in files})
    if not kinds:
        raise DataError(
            f"data.{split}: the folder {spec} has neither images nor data files in it"
            f"\n    → Give a folder with {', '.join(ENDINGS)} files, or a folder of images ({imagefolder.HELP})."
        )
    if len(kinds) > 1:
        raise DataError(
            f"data.{split}: the folder {spec} has files of several kinds in it ({', '.join(kinds)})"
            f"\n    → Name the files, such as {storage.join(spec, f'*.{kinds[-1]}')}."
        )
    return Source(spec, kinds[0], tuple(files), root)


_NOT_ROWS = ("dataset_info.json", "state.json", "dataset_dict.json")  # what datasets.save_to_disk puts beside the rows


def _is_data(file: File, format: str) -> bool:
    """Whether a file of a folder is one to read."""
    if storage.name(file.uri) in _NOT_ROWS:
        return False
    return _ending(file.uri) in ENDINGS or imagefolder.is_image(file.uri) or format in READERS


def _format(uri: str, format: str) -> str:
    if format in READERS:
        return format
    ending = _ending(uri)
    if ending not in ENDINGS:
        raise DataError(
            f"{uri}: its kind cannot be told from the ending {ending or '(none)'!r}"
            f"\n    → Set data.format to one of {', '.join(READERS)}, or use one of the endings {', '.join(ENDINGS)}."
        )
    return ENDINGS[ending]


def _ending(uri: str) -> str:
    return Path(_COMPRESSED.sub("", storage.name(uri))).suffix.lower()


def _stem(name: str) -> str:
    """A name without its endings, and without the shard number of the Hub's Parquet files (``train-00000-of-00002``)."""
    return re.sub(r"-\d+-of-\d+$", "", name.split(".")[0])


def _split_root(place: str, members: list[File]) -> str:
    """The subfolder of a split, or the folder itself where the split is files beside each other."""
    below = [storage.relative(file.uri, place).split("/") for file in members]
    return storage.join(place, below[0][0]) if all(len(parts) > 1 for parts in below) else place


def _depth(place: str, file: File) -> int:
    """How many folders a file lies below ``place``."""
    return storage.relative(file.uri, place).count("/")


def _absolute(spec: str, base_dir: str) -> str:
    """A path of the recipe from where its file is; URIs as they are."""
    if storage.scheme(spec):
        return spec
    path = Path(spec).expanduser()
    if path.is_absolute():
        return str(path)
    return storage.join(base_dir, spec) if storage.scheme(base_dir) else str(Path(base_dir, path).absolute())


def _files(place: str) -> list[File]:
    """All files below a folder with sizes and times, sorted; hidden ones and those that begin with ``_`` are left out."""
    from pyarrow.fs import FileSelector, FileType

    found, path = storage.filesystem(place)
    head = path.rstrip("/") + "/"
    files = []
    for info in found.get_file_info(FileSelector(path, recursive=True)):
        below = info.path.removeprefix(head)
        if info.type == FileType.File and not any(part.startswith((".", "_")) for part in below.split("/")):
            files.append(_described(storage.join(place, below), info))
    return sorted(files, key=lambda file: file.uri)


def _file(uri: str) -> File:
    found, path = storage.filesystem(uri)
    return _described(uri, found.get_file_info(path))


def _described(uri: str, info: FileInfo) -> File:
    changed = info.mtime_ns
    return File(uri, int(info.size or 0), int(changed) if changed is not None else -1)


def _missing(spec: str, place: str, split: str) -> DataError:
    """That nothing is there, with the name that is most like it."""
    folder = storage.parent(place)
    there = storage.is_dir(folder)
    inside = [storage.name(p) for p in (*storage.list_files(folder), *storage.list_dirs(folder))] if there else []
    close = nearest(storage.name(place), inside)
    if close:
        hint = f"Did you mean {close!r}?"
    elif inside:
        hint = f"{folder} has {', '.join(sorted(inside)[:8])}{' …' if len(inside) > 8 else ''}."
    else:
        lack = "is empty" if there else "does not exist"
        hint = f"The folder {folder} {lack}; relative paths start at the recipe's folder."
    return DataError(f"data.{split}: {spec} does not exist (looked for {place})\n    → {hint}")


def describe(sources: Mapping[str, tuple[Source, ...]]) -> dict[str, list[str]]:
    """The specs of each split, for the manifest."""
    return {split: list(dict.fromkeys(source.spec for source in members)) for split, members in sources.items()}
