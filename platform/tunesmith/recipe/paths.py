"""Which values of a recipe are local paths, what they are relative to, and whether they exist."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunesmith.errors import nearest

INPUTS = (
    "data.train",
    "data.validation",
    "data.test",
    "data.known_faults",
    "data.unlabelled.data",
    "model.model_name_or_path",
    "model.processor_name_or_path",
    "training.replay.data",
    "evaluation.retention.data",
    "evaluation.behaviour",
    "evaluation.out_of_distribution",
)
"""Keys whose relative paths start at the recipe's folder (on the command line: at the working directory)."""


AT_SITES = "sites://"
"""Stands in ``data.train`` for rows that the sites of a federation have: a recipe with ``federation:`` may leave it out."""

PATH = "path"
"""The key of a named data set that holds where it is."""


def each_place(value: Any, place: Callable[[str], str]) -> Any:
    """An input with ``place`` applied to each of its paths; it is one path, a list, or a mapping from names to either.

    A mapping in a list is a named data set, whose ``path`` alone is one.

    >>> each_place({"old": ["a.csv", "b.csv"], "web": "c.csv"}, str.upper)
    {'old': ['A.CSV', 'B.CSV'], 'web': 'C.CSV'}
    >>> each_place([{"name": "lab", "path": "a.csv"}], str.upper)
    [{'name': 'lab', 'path': 'A.CSV'}]
    """
    if isinstance(value, dict):
        return {name: each_place(one, place) for name, one in value.items()}
    if isinstance(value, list):
        return [{**one, PATH: each_place(one.get(PATH), place)} if _named(one) else each_place(one, place) for one in value]
    return place(value) if isinstance(value, str) else value


def places_of(value: Any, below: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each path of an input, with the keys and indices that lead to it."""
    value = value.model_dump(include={PATH}) if isinstance(value, BaseModel) else value
    if isinstance(value, str):
        yield below, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_of(one, (*below, key))


def each_augment_model(operations: Any, place: Callable[[str], str]) -> Any:
    """The operations of ``data.augment``, plain, with ``place`` applied to the models that they name.

    >>> each_augment_model([{"name": "mlm", "model_name_or_path": "a"}, {"name": "typos"}], str.upper)
    [{'name': 'mlm', 'model_name_or_path': 'A'}, {'name': 'typos'}]
    """
    key = "model_name_or_path"
    if not isinstance(operations, list):
        return operations
    return [
        {**one, key: place(one[key])} if isinstance(one, dict) and isinstance(one.get(key), str) else one for one in operations
    ]


def _named(element: Any) -> bool:
    """Whether an element of a list is a data set with a name."""
    return isinstance(element, dict) and PATH in element


def at_hub(key: str, format: str | None) -> bool:
    """Whether an input is no path because ``data.format`` says that it stands on the Hub."""
    return key in ("data.train", "data.validation", "data.test", "data.unlabelled.data") and format == "hub"


def is_uri(name: str) -> bool:
    """Whether a name has a scheme: ``s3://…``, ``hf://…``, ``file:///…``."""
    return "://" in name


def clearly_local(name: str) -> bool:
    """Whether a name can be no Hub id, which is ``name`` or ``owner/name``.

    >>> clearly_local("google-bert/bert-base-uncased"), clearly_local("./model"), clearly_local("a/b/c")
    (False, True, True)
    """
    return not is_uri(name) and (name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1)


def absolute(name: str, base: str) -> str:
    """A path or glob made absolute from ``base``, which is a local folder or a URI. URIs stay.

    >>> absolute("../a/*.csv", "/home/me/project"), absolute("s3://b/c.csv", "/home"), absolute("x.csv", "s3://b/d?region=eu")
    ('/home/me/a/*.csv', 's3://b/c.csv', 's3://b/d/x.csv?region=eu')
    """
    if is_uri(name):
        return name
    path = os.path.expanduser(name)
    if os.path.isabs(path):
        return os.path.normpath(path)
    if is_uri(base):
        scheme, _, rest = base.partition("://")
        folder, mark, query = rest.partition("?")
        return f"{scheme}://{os.path.normpath(os.path.join(folder, path))}{mark}{query}"
    return os.path.normpath(os.path.join(base, path))


def absolute_model(name: str, base: str) -> str:
    """A model's folder made absolute; a Hub id or URI stays. A folder that exists wins over a Hub id of the same name."""
    local = absolute(name, base)
    return local if clearly_local(name) or (not is_uri(local) and os.path.isdir(local)) else name


def data_problem(name: str, base: str) -> tuple[str, str] | None:
    """What is wrong with a local data path, and the fix; None where it exists or is no local path."""
    path = absolute(name, base)
    if is_uri(path) or _exists(path):
        return None
    if glob.has_magic(path):
        return f"{name!r} matches no file under {_existing_parent(path)}", _fix(name, path)
    if not is_uri(name) and not clearly_local(name) and "." not in Path(name).name and name.count("/") == 1:
        return f"{path} does not exist", f"write hf://{name} if it is a data set on the Hub"
    return f"{path} does not exist", _fix(name, path)


def model_problem(name: str, base: str) -> tuple[str, str] | None:
    """What is wrong with a local model folder, and the fix; None where it is sound, a Hub id or a URI."""
    path = absolute_model(name, base)
    if is_uri(path) or not os.path.isabs(path):
        return None
    if not os.path.exists(path):
        return f"the folder {path} does not exist", _fix(name, path)
    if not os.path.isdir(path):
        return f"{path} is a file, not a folder", "name the folder that holds config.json"
    if os.path.isfile(os.path.join(path, "config.json")):
        return None
    inside = sorted(found.parent.name for found in Path(path).glob("*/config.json"))
    if inside:
        return f"{path} holds no config.json", f"write {os.path.join(name, inside[0])}, which does"
    if os.path.isfile(os.path.join(path, "adapter_config.json")):
        return f"{path} holds an adapter, not a model", "merge it into its base model first, or name the base model"
    return f"{path} holds no config.json, so it is no Hugging Face model", "name a folder that `save_pretrained` wrote"


def masked_lm_problem(name: str, base: str) -> tuple[str, str] | None:
    """The same for a model that fills masks: by what its ``config.json`` says, it has the head for that."""
    if problem := model_problem(name, base):
        return problem
    config = os.path.join(absolute_model(name, base), "config.json")
    if not os.path.isfile(config):
        return None
    try:
        said = json.loads(Path(config).read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return None  # loading it tells what is wrong
    if not said or any("MaskedLM" in one or one.endswith("BertForPreTraining") for one in said):
        return None
    return f"{name} is a {said[0]}, without a head that fills masks", "name a masked language model (…ForMaskedLM)"


def neighbours(path: str, limit: int = 4) -> list[str]:
    """Names in the folder where ``path`` should be, the nearest first."""
    folder = Path(path).parent
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []
    near = nearest(Path(path).name, names)
    return ([near] if near else []) + [name for name in names if name != near][: limit - bool(near)]


def _fix(name: str, path: str) -> str:
    elsewhere = os.path.abspath(os.path.expanduser(name))
    if elsewhere != path and _exists(elsewhere):
        return f"paths are relative to the recipe's file; {elsewhere} exists, if that is meant"
    names = [] if glob.has_magic(path) else neighbours(path)
    folder = os.path.dirname(path)
    if names:
        return f"correct the path; {folder} has {', '.join(names)}"
    return (
        f"correct the path; {folder} exists but is empty"
        if os.path.isdir(folder)
        else f"correct the path; there is no {folder}"
    )


def _exists(path: str) -> bool:
    if os.path.exists(path):
        return True
    return glob.has_magic(path) and any(True for _ in glob.iglob(path, recursive=True))


def _existing_parent(path: str) -> str:
    parents: Iterable[Path] = Path(path).parents
    return str(next((parent for parent in parents if not glob.has_magic(str(parent)) and parent.exists()), Path("/")))
