"""What cannot be seen in one field of ``federation:``: names that do not exist, numbers that contradict each other or training.

Nothing is said where the section is as it is by default: then nobody asked for a federation.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from tunesmith.errors import nearest
from tunesmith.recipe import task_names
from tunesmith.recipe.checks import Finding
from tunesmith.recipe.federation import METHODS, FederationSection, PartitionSection
from tunesmith.recipe.recipe import Recipe

OWN_KEYS = {
    "proximal_mu": ("fedprox",),
    "server_momentum": ("fedavgm",),
    "server_beta1": ("fedadam",),
    "server_beta2": ("fedadam",),
    "server_tau": ("fedadam",),
}
"""Keys that one method reads; a method of one's own may read any."""

OWN_PARTITION_KEYS = {"alpha": ("dirichlet", "quantity"), "shards_per_site": ("shards",), "column": ("column",)}
"""Keys of ``partition:`` that some ways of dealing out read."""


def method(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The method exists, has no other method's settings, and can do what training asks of it."""
    section, training = recipe.federation, recipe.training
    if not _asked(recipe):
        return
    name, at = section.method, _at("federation.method")
    if ":" not in name and name not in METHODS:
        near = nearest(name.lower().replace("-", "").replace("_", ""), METHODS)
        fix = f"did you mean {near}?" if near else f"write one of {', '.join(METHODS)}, or the module:Class of your own"
        yield Finding(at, f"there is no method {name}", fix)
        return
    if name in METHODS:
        for key, readers in OWN_KEYS.items():
            if name not in readers and getattr(section, key) != _default(FederationSection, key):
                what = f"it is a setting of {' and '.join(readers)}, and the method is {name}"
                yield Finding(
                    _at(f"federation.{key}"), what, f"remove it, or set federation.method: {readers[0]}", (".".join(at),)
                )
    if training.fsdp:
        what = "sites and server exchange whole parameters, and fsdp shards them"
        yield Finding(_at("training.fsdp"), what, "leave out training.fsdp, or federation")
    if training.fp16 and name == "scaffold":
        what = "scaffold corrects gradients, and fp16 scales them by a factor of its own"
        yield Finding(at, what, "set training.bf16: true in place of fp16", ("training.fp16",))


def partition(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The way of dealing out has what it needs, and nothing that it does not read."""
    section = recipe.federation.partition
    if section.by == "column" and section.column is None:
        fix = "add federation.partition.column: NAME, of the column that says whose a row is"
        yield Finding(_at("federation.partition.by"), "no column says which site a row is of", fix)
    for key, readers in OWN_PARTITION_KEYS.items():
        if section.by not in readers and getattr(section, key) != _default(PartitionSection, key):
            what = f"it goes with partition.by: {' or '.join(readers)}, and by is {section.by}"
            fix = f"remove it, or set federation.partition.by: {readers[0]}"
            yield Finding(_at(f"federation.partition.{key}"), what, fix, ("federation.partition.by",))
    facts = task_names.KNOWN.get(recipe.task)
    if section.by in ("dirichlet", "shards") and facts is not None and not facts.one_label:
        what = f"{section.by} deals out by class, and an example of {recipe.task} has more than one"
        yield Finding(_at("federation.partition.by"), what, "write iid, quantity or column", ("task",))


def rounds(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Rounds and passes add up, and a round can have as many sites as it needs."""
    section, training = recipe.federation, recipe.training
    if not _asked(recipe):
        return
    if training.max_steps > 0:
        what = "rounds are passes over each site's own rows, and max_steps would cut them short"
        yield Finding(_at("training.max_steps"), what, "set training.num_train_epochs in its place")
        return
    epochs, local = training.num_train_epochs, section.local_epochs
    if local > epochs:
        what = f"a round makes {local:g} passes, and training makes {epochs:g} in all"
        fix = "raise training.num_train_epochs, which counts the passes of all rounds together"
        yield Finding(_at("federation.local_epochs"), what, fix, ("training.num_train_epochs",))
    elif section.rounds is not None and section.rounds != (fits := math.ceil(round(epochs / local, 9))):
        passes = section.rounds * local
        what = f"{section.rounds} rounds of {local:g} are {passes:g} passes, and training.num_train_epochs is {epochs:g}"
        fix = f"set training.num_train_epochs: {passes:g}, or leave rounds out, which makes {fits}"
        involved = ("training.num_train_epochs", "federation.local_epochs")
        yield Finding(_at("federation.rounds"), what, fix, involved)
    asked = math.ceil(round(section.sites * section.fraction_train, 9))
    if section.sites != _default(FederationSection, "sites") and section.partition.by != "column" and section.min_sites > asked:
        part = f"a round asks {asked} of {section.sites}" if section.fraction_train < 1 else f"there are {section.sites}"
        fix = f"set federation.min_sites to {asked} or fewer" + (", or ask more" if section.fraction_train < 1 else "")
        involved = ("federation.sites", "federation.fraction_train")
        yield Finding(_at("federation.min_sites"), f"a round needs {section.min_sites} sites, and {part}", fix, involved)


def _asked(recipe: Recipe) -> bool:
    return recipe.federation != FederationSection()


def _default(section: type[FederationSection | PartitionSection], key: str) -> object:
    return section.model_fields[key].get_default(call_default_factory=True)


def _at(key: str) -> tuple[str, ...]:
    return tuple(key.split("."))


CHECKS = (method, partition, rounds)
