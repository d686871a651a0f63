"""Whether a site does what it is asked: the owner's word against the request, rule by rule. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.errors import UserError
from tunesmith.recipe import keys, loss_names
from tunesmith_federated import asked_recipe
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
WRITE = "the site's owner may allow it in site.yaml"


@dataclass(frozen=True)
class Used:
    """What a job has had of this site."""

    rounds: frozenset[int] = field(default_factory=frozenset)
    """Rounds in which it has trained."""
    seconds: float = 0.0


def check(ask: Ask, config: SiteConfig, used: Used) -> str:
    """Why the site will not do it, in a sentence that the server may read; empty where it will.

    Nothing that the server declares about its recipe is believed: the fingerprint is that of the recipe as it came.
    """
    return next(_objections(ask, config, used), "")


def _objections(ask: Ask, config: SiteConfig, used: Used) -> Iterator[str]:
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
    for key, name in _models(recipe):
        if not config.allow.any_model and not any(fnmatch.fnmatchcase(name, one) for one in config.allow.base_models):
            yield f"the base model {name!r} ({key}) is not among those that are allowed; {WRITE} (allow.base_models)"


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
    if ask.rounds > limits.rounds or len(used.rounds | ({ask.round} if ask.kind == "train" else set())) > limits.rounds:
        yield f"the job has {max(ask.rounds, len(used.rounds) + 1)} rounds, this site allows {limits.rounds} (limits.rounds)"
    epochs = recipe.federation.local_epochs * max(ask.rounds, len(used.rounds))
    if epochs > limits.epochs:
        yield f"the job makes {epochs:g} passes over the data, and this site allows {limits.epochs:g} (limits.epochs)"
    if used.seconds >= limits.seconds:
        yield f"the job has had {used.seconds:.0f} s of this site, which allows {limits.seconds:g} (limits.seconds)"
    if limits.least_cohort > 1 and ask.sites < limits.least_cohort:
        declared = f"declares {ask.sites}" if ask.sites else "does not declare how many sites there are"
        yield f"the server {declared}, and this site takes part from {limits.least_cohort} on (limits.least_cohort)"


def _models(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Every model that the recipe would load: its own, its processor's, and those that augmentation asks."""
    yield "model.model_name_or_path", recipe.model.model_name_or_path
    if recipe.model.processor_name_or_path is not None:
        yield "model.processor_name_or_path", recipe.model.processor_name_or_path
    for index, operation in enumerate(recipe.data.augment):
        name = getattr(operation, "model_name_or_path", None)
        if name is not None:
            yield f"data.augment.{index}.model_name_or_path", str(name)


def _code(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What the recipe would load by name: a loss by its dotted path, everything else as ``module:attribute``."""
    if loss_names.is_own(recipe.training.loss):
        yield "training.loss", recipe.training.loss
    for key, value in keys.scalars(recipe.model_dump(exclude_defaults=True)):
        if isinstance(value, str) and CODE.fullmatch(value):
            yield key, value
