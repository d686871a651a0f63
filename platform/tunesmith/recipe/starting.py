"""The learning rate and the number of epochs that ``tunesmith init`` begins a recipe with, and why, in words for people.

Rules of thumb by what kind of network the model is and how many rows there are; nothing here reads a weight or needs torch.

- Convolutional networks are fine-tuned with AdamW at about 1e-3 (the default of fastai's ``Learner``, whose optimizer is Adam
  with decoupled decay), transformers at 2e-5 to 5e-5 (Devlin et al. 2019, A.3; the default of ``TrainingArguments`` is 5e-5). A
  convolutional network at a transformer's rate hardly moves in the few hundred updates that a small data set gives.
- What counts is the number of updates: three epochs are many for a large set, and few for a small one, where fine-tuning fails
  for want of updates (Mosbach et al. 2021, arXiv:2006.04884; Zhang et al. 2021, arXiv:2006.05987).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["convolutional", "transformer"]

RATES: dict[Family, float] = {"convolutional": 1e-3, "transformer": 5e-5}
"""Peak learning rates of AdamW."""

UPDATES = 500
"""As many updates as a training has at least, where that takes no more than :data:`MOST_EPOCHS`."""

FEWEST_EPOCHS, MOST_EPOCHS = 3, 50

ENOUGH = 10_000
"""Rows beyond which more of them change nothing here: at 32 an update, 300 updates an epoch."""

CONVOLUTIONAL = (
    "bit",
    "convnext",
    "convnextv2",
    "dinov3_convnext",
    "efficientnet",
    "hgnet_v2",
    "mobilenet_v1",
    "mobilenet_v2",
    "pp_lcnet",
    "regnet",
    "resnet",
    "textnet",
)
"""Values of ``model_type`` in ``config.json``."""

_NAMED = re.compile(r"(resnet|resnext|convnext|efficientnet|regnet|mobilenet|densenet|inception|vgg)", re.IGNORECASE)
"""What the names of convolutional networks have in them; ``timm`` names hundreds so."""


@dataclass(frozen=True)
class Counted:
    """How many rows there are to train on."""

    rows: int
    """All rows of ``data.train``; :data:`ENOUGH` where there are at least as many."""
    share: float
    """Share of them that is left for training when the other splits are cut off."""

    def __str__(self) -> str:
        return f"more than {ENOUGH:,} rows" if self.rows >= ENOUGH else f"{self.rows:,} row{'s' * (self.rows != 1)}"


@dataclass(frozen=True)
class Start:
    """What a recipe begins with."""

    learning_rate: float
    num_train_epochs: int
    why: Mapping[str, str]
    """Key of the recipe → the reason for its value."""


def family_of(name: str, config: Mapping[str, Any] | None) -> tuple[Family | None, str]:
    """What kind of network a model is, and by what that was told: its ``config.json``, or else its name.

    >>> family_of("./base", {"model_type": "resnet"})
    ('convolutional', 'model_type resnet')
    >>> family_of("microsoft/resnet-18", None)
    ('convolutional', 'its name')
    >>> family_of("someone/model", None)
    (None, '')
    """
    kind = str((config or {}).get("model_type") or "")
    if kind.startswith("timm"):
        architecture = str((config or {}).get("architecture") or name)
        return ("convolutional" if _NAMED.search(architecture) else "transformer"), f"architecture {architecture}"
    if kind:
        return ("convolutional" if kind in CONVOLUTIONAL else "transformer"), f"model_type {kind}"
    if _NAMED.search(name):
        return "convolutional", "its name"
    return ("transformer", "its name") if re.search(r"(bert|vit|deit|swin|electra|dino)", name, re.IGNORECASE) else (None, "")


def start(name: str, config: Mapping[str, Any] | None, counted: Counted | None, examples_per_update: int) -> Start:
    """What to begin with for a model, by its name as the recipe has it, and as many rows.

    ``config`` is its ``config.json``, None where that is not at hand; ``counted`` is None where the rows were not counted.

    >>> begin = start("base", {"model_type": "resnet"}, Counted(539, 0.8), examples_per_update=16)
    >>> begin.learning_rate, begin.num_train_epochs
    (0.001, 19)
    """
    family, told_by = family_of(name, config)
    rate = RATES[family or "transformer"]
    why_rate = {
        "convolutional": f"A convolutional network (by {told_by}): with AdamW about 1e-3, as fastai has it. "
        "Transformers take 2e-5 to 5e-5 instead.",
        "transformer": f"A transformer (by {told_by}): 2e-5 to 5e-5 with AdamW, as Devlin et al. (2019) have it. "
        "Convolutional networks take about 1e-3 instead.",
        None: "What kind of network this is cannot be told from here: 5e-5 suits a transformer, a convolutional network takes "
        "about 1e-3.",
    }[family]
    epochs, why_epochs = _epochs(counted, examples_per_update)
    return Start(rate, epochs, {"training.learning_rate": why_rate, "training.num_train_epochs": why_epochs})


def _epochs(counted: Counted | None, examples_per_update: int) -> tuple[int, str]:
    """The number of epochs that gives :data:`UPDATES` updates, within bounds, and the reason."""
    if counted is None:
        return FEWEST_EPOCHS, (
            f"The rows were not counted: {FEWEST_EPOCHS} epochs suit ten thousand of them. A few hundred need 20 and more, "
            f"so that there are about {UPDATES} updates (Mosbach et al. 2021)."
        )
    each = max(1, math.ceil(counted.rows * counted.share / examples_per_update))
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(UPDATES / each)))
    if counted.rows >= ENOUGH:
        return epochs, f"{str(counted).capitalize()}: {epochs} epochs are updates enough."
    left = f"{round(counted.rows * counted.share):,} of them are" if counted.share < 1 else "all are"
    return epochs, (
        f"{str(counted).capitalize()}, and {left} to train on, {examples_per_update} an update: {epochs} epochs are "
        f"{each * epochs:,} updates. Small sets need more epochs than large ones (Mosbach et al. 2021)."
    )
