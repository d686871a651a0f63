"""``site.yaml``: the owner's word. Where a site's data lies, and what may be done with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from tunesmith.errors import Mistake, RecipeError, UserError
from tunesmith.recipe import yaml_tree
from tunesmith.recipe.base import Section
from tunesmith.recipe.data import SplitSection
from tunesmith.recipe.explain import dotted, explain
from tunesmith_federated.deployment import signatures

VARIABLE = "TUNESMITH_SITE_CONFIG"
"""Names the ``site.yaml`` of the site that this process answers for."""
ANY = "any"
PLACES = ("train", "test")
OWN = (*PLACES, "format", "columns")
"""Keys of a recipe's ``data:`` that only the site can say."""
FINGERPRINT = re.compile(r"[0-9a-f]{40}")


class SiteData(Section):
    """The site's rows. It stands in place of the recipe's own places; nothing of it is ever sent."""

    train: str | list[str]
    """A file, folder, glob or URI, relative to ``site.yaml``."""

    test: str | list[str] | None = None
    """Rows that the incoming model is judged by, never trained on. Null splits them off ``train``."""

    format: Literal["auto", "csv", "json", "parquet", "arrow", "imagefolder"] = "auto"
    """As in a recipe."""

    columns: dict[str, str] = Field(default_factory=dict)
    """The task's role → this data's column."""

    split: SplitSection | None = None
    """How rows to judge by are split off where ``test`` is null; what is not said here is the recipe's. A site chooses nothing
    by its rows, so there is no ``validation``."""


class Allow(Section):
    """What the owner allows."""

    recipes: list[str] = Field(default_factory=list)
    """Fingerprints (``tunesmith site fingerprint recipe.yaml``), or ``any`` alone. An empty list allows none."""

    signers: dict[str, str] = Field(default_factory=dict)
    """Name → public key (``ed25519:…``, as ``tunesmith federation signer`` prints it) of those whose signature allows a recipe.
    The names are for this file and the audit log."""

    base_models: list[str] = Field(default_factory=list)
    """Names of base models, ``*`` standing for anything, or ``any`` alone. ``name@revision`` allows a name at that revision;
    else it is ``main``, or the commit that an allowed fingerprint or a signer stands for."""

    @property
    def any_recipe(self) -> bool:
        """Whether the owner trusts the server with every recipe."""
        return self.recipes == [ANY]

    @property
    def any_model(self) -> bool:
        """Whether every base model may be loaded."""
        return self.base_models == [ANY]


class Limits(Section):
    """The most that a job gets, and the least that it must be."""

    rounds: int = Field(default=100, ge=1)
    """Rounds of a job. Those that are made again, since a server or a site was started anew, are as many more at most."""

    epochs: float = Field(default=100.0, gt=0)
    """Passes over the data in all rounds of a job together."""

    seconds: float = Field(default=86400.0, gt=0)
    """Time that all rounds of a job may take on this machine together."""

    least_cohort: int = Field(default=2, ge=1)
    """Sites that a job must be made of, as the server declares it: alone, a site's update tells more about its rows."""

    min_examples: int = Field(default=10, ge=1)
    """Rows that anything reported must rest on; the larger of this and the recipe's counts."""


class Resources(Section):
    """What of this machine a job gets."""

    num_workers: int = Field(default=1, ge=1)
    """Processes that train together on this machine: above 1 they share each update's examples, as a local Ray Train group."""

    cpus: int = Field(default=1, ge=1)
    """Threads that compute, of all workers together."""

    gpus: int = Field(default=0, ge=0)
    """Devices that are seen; of several workers each has one."""


class SiteConfig(Section):
    """What a ``site.yaml`` says."""

    name: str
    """The site's, as in its certificate."""

    server: str
    """``HOST:PORT`` of the federation's front door."""

    certificates: str = "."
    """The folder with ``ca.crt``, ``site.crt``, ``site.key`` and ``node.key``, relative to ``site.yaml``."""

    data: SiteData
    """Where the rows lie."""

    allow: Allow = Field(default_factory=Allow)
    """Recipes, those who sign recipes, and base models."""

    limits: Limits = Field(default_factory=Limits)
    """The most that a job gets."""

    resources: Resources = Field(default_factory=Resources)
    """What of this machine a job gets."""

    state: str = "state"
    """The folder of what the site keeps: its audit log, what jobs have used, what a method keeps between rounds."""

    _path: Path = PrivateAttr(default_factory=lambda: Path("site.yaml"))

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return self._path

    @property
    def certificates_dir(self) -> Path:
        """Absolute."""
        return self._beside(self.certificates)

    @property
    def state_dir(self) -> Path:
        """Absolute."""
        return self._beside(self.state)

    def data_section(self, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The recipe's ``data:`` (``asked``) at this site: places, format and columns are the site's, paths absolute."""
        kept = {key: value for key, value in (asked or {}).items() if key not in (*OWN, "validation", "known_faults")}
        values = self.data.model_dump(exclude_none=True, include=set(OWN))
        for key in PLACES:
            if key in values:
                places = values[key]
                values[key] = [self._place(one) for one in places] if isinstance(places, list) else self._place(places)
        if self.data.split is not None:
            values["split"] = {**kept.get("split", {}), **self.data.split.model_dump(exclude_unset=True), "validation": 0.0}
        return {**kept, **values}

    def _place(self, place: str) -> str:
        return place if "://" in place else str(self._beside(place))

    def _beside(self, place: str) -> Path:
        return self._path.parent / Path(place).expanduser()


class SiteConfigError(RecipeError):
    """One or more mistakes in a ``site.yaml``."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__(mistakes, of="site's file")


def read(path: str | os.PathLike[str]) -> SiteConfig:
    """The file at ``path``. Raises :class:`SiteConfigError` with all its mistakes and their lines."""
    file = Path(path).expanduser().absolute()
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the site's file {path} cannot be read: {getattr(error, 'strerror', None) or error}\n"
            "    → --config names the site.yaml of the folder that `tunesmith federation init` made for this site."
        ) from error
    tree = yaml_tree.parse(text)
    mistakes = [Mistake(dotted(flaw.keys) or "site", flaw.what, flaw.fix, str(path), flaw.line) for flaw in tree.flaws]
    config = None
    try:
        config = SiteConfig.model_validate(tree.values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        mistakes += [one.mistake for one in explain(SiteConfig, details, tree, str(path))]
    if config is not None:
        mistakes += [
            Mistake(key, what, fix, str(path), tree.mark(tuple(key.split("."))).line) for key, what, fix in _unfit(config)
        ]
    if mistakes or config is None:
        raise SiteConfigError(mistakes)
    config._path = file
    return config


def _unfit(config: SiteConfig) -> Iterator[tuple[str, str, str]]:
    """Key, what is wrong with its value, and the fix."""
    host, _, port = config.server.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        yield "server", f"{config.server!r} is no HOST:PORT", "write such as federation.example.org:8443"
    if config.data.split is not None and config.data.split.validation and "validation" in config.data.split.model_fields_set:
        what = "a site chooses nothing by its rows, so these would be neither trained on nor judged"
        yield "data.split.validation", what, "remove it; data.split.test is the share that the model is judged by"
    for one in () if config.allow.any_recipe else config.allow.recipes:
        if not FINGERPRINT.fullmatch(one):
            what = f"{one!r} is no fingerprint, which has 40 hexadecimal digits"
            yield (
                "allow.recipes",
                what,
                "`tunesmith site fingerprint recipe.yaml` prints it; `recipes: any` allows every recipe",
            )
    for name, key in config.allow.signers.items():
        if not signatures.is_signer(key):
            what = f"{key!r} is no public key of a signer, such as ed25519:…"
            yield f"allow.signers.{name}", what, "write what `tunesmith federation signer FILE` prints where the key is"
    yield from _unfit_resources(config.resources)


def _unfit_resources(resources: Resources) -> Iterator[tuple[str, str, str]]:
    workers = resources.num_workers
    if resources.cpus < workers:
        yield (
            "resources.cpus",
            f"{workers} workers (resources.num_workers) need a thread each, and may have {resources.cpus} together",
            f"write {workers} or more, or lower resources.num_workers",
        )
    if workers > 1 and resources.gpus not in (0, workers):
        yield (
            "resources.gpus",
            f"each of {workers} workers (resources.num_workers) has one GPU, which makes {workers} and not {resources.gpus}",
            f"write {workers}, or 0 to train on CPUs, or resources.num_workers: {resources.gpus}",
        )
