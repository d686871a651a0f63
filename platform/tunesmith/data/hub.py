"""Data sets of the Hugging Face Hub: ``hf://org/name[:config][@revision][/split]``, fetched once into Arrow files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import DataError

_SPEC = re.compile(
    r"^(?:hf://)?(?P<name>[\w.\-]+(?:/[\w.\-]+)?)(?::(?P<config>[\w.\-]+))?(?:@(?P<revision>[\w.\-]+))?(?:/(?P<split>[\w.\-]+))?$"
)
_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation", "testing": "test", "training": "train"}


@dataclass(frozen=True)
class HubId:
    """A data set on the Hub."""

    name: str
    config: str | None = None
    revision: str | None = None
    split: str | None = None


def is_hub(spec: str, format: str) -> bool:
    """Whether a spec names a data set of the Hub; ``hf://datasets/…`` names a file there, which is read like any other."""
    return format == "hub" or (spec.startswith("hf://") and not spec.startswith("hf://datasets/"))


def parse(spec: str) -> HubId:
    """The parts of a Hub id.

    >>> parse("hf://nyu-mll/glue:sst2@main/train")
    HubId(name='nyu-mll/glue', config='sst2', revision='main', split='train')
    >>> parse("hf://stanfordnlp/imdb")
    HubId(name='stanfordnlp/imdb', config=None, revision=None, split=None)
    """
    found = _SPEC.match(spec)
    if not found:
        raise DataError(f"{spec} is not a Hub id\n    → Write hf://org/name, hf://org/name:config@revision/split.")
    return HubId(**found.groupdict())


def fetch(spec: str, split: str) -> dict[str, list[str]]:
    """The Arrow files of each split, in ``datasets``' cache; one split only where the spec names it.

    Raises :class:`DataError` where the Hub cannot be reached, and for a data set, config or split that it does not have.
    """
    wanted = parse(spec)
    try:
        import datasets

        loaded = datasets.load_dataset(wanted.name, wanted.config, revision=wanted.revision)
    except Exception as error:  # datasets raises errors of requests, httpx, huggingface_hub and its own
        raise _explained(spec, wanted, error) from error
    if wanted.split is not None:
        return {split: _files(spec, _pick(spec, loaded, wanted.split))}
    found = {_ALIASES.get(name, name): part for name, part in loaded.items()}
    part = found.get(split) or (next(iter(found.values())) if len(found) == 1 else None)
    if part is None:
        raise DataError(
            f"{spec} has no split {split!r}, only {', '.join(loaded)}\n    → Name one: {spec}/{next(iter(loaded))}."
        )
    kept = {name: one for name, one in found.items() if name in ("train", "validation", "test")} if split == "train" else {}
    return {name: _files(spec, one) for name, one in {**kept, split: part}.items()}


def _pick(spec: str, loaded: Any, split: str) -> Any:
    if split not in loaded:
        raise DataError(f"{spec}: the data set has no split {split!r}\n    → It has {', '.join(loaded)}.")
    return loaded[split]


def _files(spec: str, part: Any) -> list[str]:
    files = [str(entry["filename"]) for entry in part.cache_files]
    if not files:
        raise DataError(f"{spec}: the split is empty")
    return files


def _explained(spec: str, wanted: HubId, error: Exception) -> DataError:
    kind, text = type(error).__name__, str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), kind)
    said = f"{kind} {text}"
    if re.search(r"DatasetNotFound|RepositoryNotFound|GatedRepo|doesn't exist on the Hub", said):
        return DataError(
            f"{spec}: the Hub has no such data set, or it is private"
            f"\n    → Check the name {wanted.name!r}, or log in (hf auth login, or HF_TOKEN)."
        )
    if re.search(r"connect|offline|reach|resolve|timed? ?out|proxy|name or service|max retries", said, re.IGNORECASE):
        return DataError(
            f"{spec}: cannot reach the Hugging Face Hub, and the data set is not in the local cache ({first})"
            "\n    → Check the network, set HF_ENDPOINT to a mirror, or name local files in data.train."
        )
    return DataError(
        f"{spec} cannot be loaded from the Hub: {first}\n    → Check the name {wanted.name!r}, its config and revision."
    )
