"""The ways in which sites learn together; one small file each. Importing this imports none of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tunesmith.errors import UserError, nearest

if TYPE_CHECKING:
    from tunesmith.recipe.federation import FederationSection
    from tunesmith_federated.methods.base import Method

__all__ = ["PATHS", "make_method"]

PATHS: dict[str, str] = {
    "fedavg": "tunesmith_federated.methods.fedavg:FedAvg",
    "fedavgm": "tunesmith_federated.methods.fedavgm:FedAvgM",
    "fedprox": "tunesmith_federated.methods.fedprox:FedProx",
    "fedadam": "tunesmith_federated.methods.fedadam:FedAdam",
    "scaffold": "tunesmith_federated.methods.scaffold:Scaffold",
    "fedbn": "tunesmith_federated.methods.fedbn:FedBN",
    "median": "tunesmith_federated.methods.median:Median",
}
"""Method name → ``module:Class``, made from the recipe's section."""

_PARTS = ("name", "combine", "keeps", "stays", "begin", "broadcast", "local", "step")


def make_method(section: FederationSection) -> Method:
    """The section's method. Raises :class:`UserError` with the nearest name where there is none.

    >>> from tunesmith.recipe.federation import FederationSection
    >>> make_method(FederationSection(method="fedprox")).name
    'fedprox'
    >>> make_method(FederationSection(method="fedprx"))
    Traceback (most recent call last):
    tunesmith.errors.UserError: federation.method: there is no method fedprx
        → did you mean fedprox?
    """
    name = section.method
    if name not in PATHS and ":" not in name:
        near = nearest(name.lower().replace("-", "").replace("_", ""), PATHS)
        fix = f"did you mean {near}?" if near else f"write one of {', '.join(PATHS)}, or the module:Class of your own"
        raise UserError(f"federation.method: there is no method {name}\n    → {fix}")
    module, _, attribute = PATHS.get(name, name).partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise UserError(
            f"federation.method: {name} cannot be imported: {error}\n    → Install what it needs, here and at every site"
        ) from error
    except AttributeError:
        raise UserError(
            f"federation.method: module {module} has no {attribute}\n    → Write the path as package.module:Class"
        ) from None
    try:
        method: Method = kind(section)
    except TypeError as error:
        raise UserError(
            f"federation.method: {name} is made of the federation: section alone, and cannot be: {error}"
        ) from error
    lacking = [part for part in _PARTS if not hasattr(method, part)]
    if lacking or method.combine not in ("mean", "median"):
        found = f"it has no {', '.join(lacking)}" if lacking else f"its combine is {method.combine!r}, not mean or median"
        raise UserError(
            f"federation.method: {name} is no method: {found}\n"
            "    → See tunesmith_federated.methods.base.Method for what one has"
        )
    return method
