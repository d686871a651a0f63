"""The artefact: ``model/`` in Hugging Face layout, and ``tunesmith.json`` in it, which says what plain weights cannot."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import storage
from tunesmith.errors import ModelError
from tunesmith.runs.masking import masked_values

FILE = "tunesmith.json"
FORMAT = 1
_WEIGHTS = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class Artefact:
    """What ``model/tunesmith.json`` holds."""

    task: str
    """The task's name, as in a recipe."""
    state: Mapping[str, Any]
    """The frozen preprocessing state: labels, lengths, sizes."""
    base_model: Mapping[str, Any] = field(default_factory=dict)
    """``name_or_path``, ``revision`` (the commit of a Hub id) and ``hash`` (of a folder's weights)."""
    run: str = ""
    """Name of the run that made it."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Summary of the verdict on the test split."""
    tunesmith: str | None = None
    """The version that wrote it."""
    calibration: Mapping[str, Any] | None = None
    """How probabilities are corrected, or None."""
    format: int = FORMAT
    """Version of this file's layout."""

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Put ``tunesmith.json`` into the model's folder (a path or a URI). Raises :class:`UserError`."""
        storage.write_json(storage.join(folder, FILE), masked_values(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Artefact:
        """The artefact of a model's folder. Raises :class:`ModelError` where it has none that this version can read."""
        file = storage.join(folder, FILE)
        try:
            values = storage.read_json(file)
            if values["format"] > FORMAT:
                raise ModelError(
                    f"{file}: format {values['format']} is newer than {FORMAT}, the newest that this version knows.\n"
                    "    → Upgrade Tunesmith."
                )
            known = {f.name for f in dataclasses.fields(cls)}
            return cls(**{key: value for key, value in values.items() if key in known})
        except FileNotFoundError:
            raise ModelError(
                f"{os.fspath(folder)}: no {FILE} there, so this is not a model that Tunesmith made.\n"
                "    → Name a run, its model/ folder, or fine-tune the model first."
            ) from None
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise ModelError(f"{file} is damaged: {error}\n    → Restore it, or train again.") from error


def base_model_record(name_or_path: str, revision: str = "main", commit: str | None = None) -> dict[str, Any]:
    """What is recorded of a base model: a folder by the hash of its config and weights, a Hub id by its commit.

    ``commit`` is the loaded config's ``_commit_hash``; without it the Hub's cache on this machine is asked, never the network.
    """
    if storage.scheme(name_or_path) or storage.local_path(name_or_path).is_dir():
        return {"name_or_path": name_or_path, "revision": None, "hash": weights_hash(name_or_path)}
    return {
        "name_or_path": name_or_path,
        "revision": commit or _cached_commit(name_or_path, revision) or revision,
        "hash": None,
    }


def weights_hash(folder: str | os.PathLike[str]) -> str:
    """BLAKE2b-128 over the names and contents of a model folder's ``config.json`` and weight files, as hex."""
    digest = hashlib.blake2b(digest_size=16)
    for file in storage.list_files(folder):
        name = storage.name(file)
        if name == "config.json" or name.endswith(_WEIGHTS):
            digest.update(f"{name}\0{storage.file_hash(file)}\n".encode())
    return digest.hexdigest()


def _cached_commit(repository: str, revision: str) -> str | None:
    """The commit that a branch or tag had when this machine downloaded it, from the Hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    reference = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "refs" / revision
    return reference.read_text().strip() if reference.is_file() else None
