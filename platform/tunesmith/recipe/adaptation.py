"""Parts of ``training:`` that say which parameters are trained: gradual unfreezing, and the adapters of LoRA."""

from __future__ import annotations

from pydantic import Field

from tunesmith.recipe.base import Section


class UnfreezeSection(Section):
    """Gradual unfreezing (ULMFiT, Howard and Ruder 2018): the head trains alone, then the layers below it join, group by group.

    The groups are found in the model, from the head down to the embeddings, and printed before training starts. Off unless
    ``every_epochs`` or ``every_steps`` is set.
    """

    every_epochs: float | None = Field(default=None, gt=0)
    """Epochs after which the next groups join; fractions are allowed. None takes ``every_steps``."""

    every_steps: int | None = Field(default=None, ge=1)
    """The same as a number of updates."""

    groups_at_once: int = Field(default=1, ge=1)
    """Layer groups that join each time."""

    @property
    def on(self) -> bool:
        """Whether there is a schedule."""
        return self.every_epochs is not None or self.every_steps is not None


class LoraSection(Section):
    """Low-rank adapters (LoRA, Hu et al. 2021) where ``training.adaptation`` is ``lora``; the head is trained in full."""

    r: int = Field(default=8, ge=1)
    """Rank of the update of each weight."""

    lora_alpha: float = Field(default=16.0, gt=0)
    """The update is scaled by ``lora_alpha / r``."""

    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapters."""

    target_modules: list[str] = Field(default_factory=lambda: ["auto"], min_length=1)
    """Names, or ends of names, of the modules that get adapters. ``auto`` takes what peft has for the model's type, else the
    attention's queries and values, else ``all-linear``: every linear layer of the trunk."""

    merge: bool = True
    """Keep the whole model with the adapters merged into it, beside the adapters in ``model/adapter/``. False keeps the
    adapters alone: the model then needs its base wherever it is loaded."""
