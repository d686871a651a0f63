"""Whether a site does what it is asked: the owner's word against the request, rule by rule. Pure."""

from __future__ import annotations

import fnmatch
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.errors import UserError
from tunesmith.recipe import keys, loss_names
from tunesmith.recipe.paths import clearly_local, is_uri
from tunesmith_federated import asked_recipe
from tunesmith_federated.asked_recipe import MOST_CLASSES
from tunesmith_federated.deployment import signatures
from tunesmith_federated.deployment.site_config import SiteConfig
from tunesmith_federated.protocol import PROTOCOL, Ask

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""``module:attribute``: what a recipe loads by name."""
JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""Names a folder of the site's: it must not lead anywhere else."""
KINDS = ("describe", "train", "evaluate")
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision that stays what it is."""
ODD = re.compile(r"[?#@%]|::")
"""In a URI: says more than a place (another store's address, a revision, letters that are written otherwise)."""
LONGEST_REASON = 2000
"""Letters of a reason, some of which quote what was asked."""
WRITE = "the site's owner may allow it in site.yaml"


@dataclass(frozen=True)
class Used:
    """What a job has had of this site."""

    rounds: frozenset[int] = field(default_factory=frozenset)
    """Rounds in which it has trained."""
    seconds: float = 0.0
    trainings: int = 0
    """Updates that have left: a round that was made again counts again."""


def check(ask: Ask, config: SiteConfig, used: Used, remembered: bool = False) -> str:
    """Why the site will not do it, in a sentence that the server may read; empty where it will.

    Nothing that the server declares about its recipe is believed: the fingerprint is that of the recipe as it came.
    ``remembered``: the answer is there already, so that nothing is done for it.
    """
    return next(_objections(ask, config, used, remembered), "")[:LONGEST_REASON]


def _objections(ask: Ask, config: SiteConfig, used: Used, remembered: bool) -> Iterator[str]:
    if ask.protocol != PROTOCOL:
        yield (
            f"the server speaks protocol {ask.protocol} (Tunesmith {ask.tunesmith or 'unknown'}), this site {PROTOCOL}: "
            "install the same version on both"
        )
    if not JOB.fullmatch(ask.job):
        yield "the job's name is none: letters, digits, hyphens and underscores"
    if ask.kind not in KINDS:
        yield f"{ask.kind!r} is nothing that a site does"
    try:
        recipe, known = asked_recipe.read(ask.recipe), asked_recipe.fingerprint(ask.recipe)
    except UserError as error:
        yield f"the recipe cannot be read by this version: {error}"
        return
    yield from _recipe(ask, known, recipe, config)
    yield from _limits(ask, recipe, config, used)
    if ask.kind == "train" and not remembered:
        yield from _repeats(recipe, config, used)


def _recipe(ask: Ask, known: str, recipe: Recipe, config: SiteConfig) -> Iterator[str]:
    for key in asked_recipe.beyond(recipe):
        yield f"the recipe sets {key}, which is not the server's to say at a site"
    if known not in config.allow.recipes and signer(ask, config) is None:
        signed = _signed(ask, config)
        if not config.allow.any_recipe:
            keys = "(allow.recipes, allow.signers)"
            yield f"the recipe {known} is not among those that are allowed, and {signed}; {WRITE} {keys}"
        for key, code in _code(recipe):
            must = f"must be allowed by its fingerprint {known} or by a signer, and {signed}"
            yield f"the recipe loads code by name ({key}: {code}): such a one {must}"
    if len(recipe.data.labels or ()) > MOST_CLASSES:
        yield f"the recipe names {len(recipe.data.labels or ()):,} classes, and a site takes {MOST_CLASSES:,} at most"
    if not config.allow.any_model:
        approved = known in config.allow.recipes or signer(ask, config) is not None
        yield from _base_models(recipe, config.allow.base_models, approved)


def _base_models(recipe: Recipe, allowed: list[str], approved: bool) -> Iterator[str]:
    """What keeps the recipe's models from being loaded. ``approved``: somebody has read which revision it names."""
    for key, name, revision in _models(recipe):
        exact = f"{name}@{revision}" in allowed
        if not exact and not is_allowed(name, allowed):
            yield f"the base model {name!r} ({key}) is not among those that are allowed; {WRITE} (allow.base_models)"
        at_hub = not (is_uri(name) or clearly_local(name))
        if exact or not at_hub or revision == "main" or (approved and COMMIT.fullmatch(revision)):
            continue
        why = "a commit may be one that anybody has proposed" if COMMIT.fullmatch(revision) else "anybody may have put it there"
        yield (
            f"the base model {name!r} ({key}) is asked for at the revision {revision!r}, and {why}; "
            f"{WRITE} (allow.base_models: [{name}@{revision}])"
        )


def is_allowed(name: str, patterns: list[str]) -> bool:
    """Whether a model's name is one of these, or matches one of them by its ``*``.

    A name that leads out of what it begins with matches nothing. A URI that says more than a place must stand there as it is.

    >>> is_allowed("lab/base", ["lab/*"]), is_allowed("/models/./a", ["/models/*"]), is_allowed("/models/../b", ["/models/*"])
    (True, True, False)
    >>> is_allowed("s3://lab/a?endpoint_override=x", ["s3://lab/*"]), is_allowed("s3://lab/a?b=c", ["s3://lab/a?b=c"])
    (False, True)
    """
    if ".." in re.split(r"[/\\]", urllib.parse.unquote(name)):
        return False
    if is_uri(name):
        return name in patterns or (not ODD.search(name) and any(fnmatch.fnmatchcase(name, one) for one in patterns))
    return any(fnmatch.fnmatchcase(os.path.normpath(name), one) for one in patterns)


def signer(ask: Ask, config: SiteConfig) -> str | None:
    """Who has signed the recipe, by the name that the owner trusts him by; None where nobody has. Raises as reading it does."""
    trusted = config.allow.signers
    return signatures.signed_by(ask.recipe, ask.signatures, trusted) if trusted and ask.signatures else None


def _signed(ask: Ask, config: SiteConfig) -> str:
    """Why no signature allows it. The owner's names of signers are not told."""
    if not ask.signatures:
        return "it came without a signature"
    said = {signatures.signer(line) for line in ask.signatures[: signatures.MOST]}
    trusted = sorted(said & set(config.allow.signers.values()))
    if trusted:
        return f"the signature by {', '.join(trusted)} is not one of this recipe"
    return f"whoever signed it is not trusted here ({', '.join(sorted(said))[:200]})"


def _limits(ask: Ask, recipe: Recipe, config: SiteConfig, used: Used) -> Iterator[str]:
    limits = config.limits
    rounds = used.rounds | ({ask.round} if ask.kind == "train" else set())
    if max(ask.rounds, len(rounds)) > limits.rounds:
        yield f"the job has {max(ask.rounds, len(rounds))} rounds, this site allows {limits.rounds} (limits.rounds)"
    epochs = recipe.federation.local_epochs * max(ask.rounds, len(rounds))
    if epochs > limits.epochs:
        yield f"the job makes {epochs:g} passes over the data, and this site allows {limits.epochs:g} (limits.epochs)"
    if used.seconds >= limits.seconds:
        yield f"the job has had {used.seconds:.0f} s of this site, which allows {limits.seconds:g} (limits.seconds)"
    if limits.least_cohort > 1 and ask.sites < limits.least_cohort:
        declared = f"declares {ask.sites}" if ask.sites else "does not declare how many sites there are"
        yield f"the server {declared}, and this site takes part from {limits.least_cohort} on (limits.least_cohort)"


def _repeats(recipe: Recipe, config: SiteConfig, used: Used) -> Iterator[str]:
    """A round is made again where a server or a site was started anew: in all as often as the limits allow rounds at all."""
    trainings, limits = used.trainings + 1, config.limits
    if trainings > 2 * limits.rounds:
        yield f"the job has trained {used.trainings} times, repeats counted, twice what this site allows (limits.rounds)"
    if recipe.federation.local_epochs * trainings > 2 * limits.epochs:
        yield f"the job has trained {used.trainings} times, repeats counted: over twice what this site allows (limits.epochs)"


def _models(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Every model that the recipe would load: its own, its processor's, those that augmentation asks; key, name, revision."""
    revision = recipe.model.revision
    yield "model.model_name_or_path", recipe.model.model_name_or_path, revision
    if recipe.model.processor_name_or_path is not None:
        yield "model.processor_name_or_path", recipe.model.processor_name_or_path, revision
    for index, operation in enumerate(recipe.data.augment):
        name = getattr(operation, "model_name_or_path", None)
        if name is not None:
            key = f"data.augment.{index}.model_name_or_path"
            yield key, str(name), str(getattr(operation, "revision", "main"))


def _code(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What the recipe would load by name: a loss by its dotted path, everything else as ``module:attribute``."""
    if loss_names.is_own(recipe.training.loss):
        yield "training.loss", recipe.training.loss
    for key, value in keys.scalars(recipe.model_dump(exclude_defaults=True)):
        if isinstance(value, str) and CODE.fullmatch(value):
            yield key, value
