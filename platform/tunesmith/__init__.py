"""Tunesmith: fine-tune a pre-trained model on your labelled data, prove that it is good, and put it to work.

>>> import tunesmith
>>> run = tunesmith.train("recipe.yaml")  # doctest: +SKIP
>>> run.metrics["accuracy"]  # doctest: +SKIP
0.97
>>> run.predict(["what a film"])  # doctest: +SKIP
[{'label': 'positive', 'probabilities': [0.02, 0.98]}]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.verbs.compare import compare
    from tunesmith.verbs.compare_recipes import compare_recipes
    from tunesmith.verbs.evaluate import evaluate
    from tunesmith.verbs.gate import gate
    from tunesmith.verbs.repeat import repeat
    from tunesmith.verbs.train import train
    from tunesmith.verbs.tune import tune
    from tunesmith_serving.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "Recipe", "Run", "compare", "compare_recipes", "evaluate", "gate", "repeat", "train", "tune"]

# A name of a wing stands here as text alone: the platform does not import it, it is loaded when a user asks for it.
_PLACES = {
    "Client": ("tunesmith_serving.client", "Client"),
    "Recipe": ("tunesmith.recipe", "Recipe"),
    "Run": ("tunesmith.runs", "Run"),
    "compare": ("tunesmith.verbs.compare", "compare"),
    "compare_recipes": ("tunesmith.verbs.compare_recipes", "compare_recipes"),
    "evaluate": ("tunesmith.verbs.evaluate", "evaluate"),
    "gate": ("tunesmith.verbs.gate", "gate"),
    "repeat": ("tunesmith.verbs.repeat", "repeat"),
    "train": ("tunesmith.verbs.train", "train"),
    "tune": ("tunesmith.verbs.tune", "tune"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import tunesmith`` stays instant."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
