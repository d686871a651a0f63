"""Which parameters a recipe trains at all: all of them, the head (linear probe), biases (BitFit), or adapters (LoRA)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.errors import ModelError
from tunesmith.tasks import adapters, hub
from tunesmith.tasks.adapters import Adapters
from tunesmith.training.parameters import head_parameters, layer_groups, trunk_name

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.training.spec import Event
    from tunesmith.training.unfreeze import Freezing


def adapt(model: torch.nn.Module, recipe: Recipe, build: Callable[[], torch.nn.Module] | None = None) -> Adapters | None:
    """Leave gradients to what ``training.adaptation`` trains; returns the adapters that were put in.

    Args:
        model: as it was built from the base.
        build: builds it anew; None for an outline, which has no weights to compare.

    Raises:
        ModelError: the head cannot be told, there are no biases, or no module to adapt.
    """
    way = recipe.training.adaptation
    if way == "full":
        return None
    if way == "lora":
        return _add_adapters(model, recipe, build)
    head = set(head_parameters(model))
    biases = {name for name, _ in model.named_parameters() if way == "bitfit" and name.rpartition(".")[2].endswith("bias")}
    if way == "bitfit" and not biases - head:
        raise ModelError(
            f"{type(model).__name__} has no biases outside its head, so BitFit has nothing to train\n"
            "    → Set training.adaptation to lora or full"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in head | biases)
    return None


def described(model: torch.nn.Module, recipe: Recipe, freezing: Freezing, per_epoch: int) -> list[Event]:
    """What is trained, told before the first update; nothing where it is everything, from the start, at one rate."""
    training = recipe.training
    decay = training.layerwise_lr_decay
    if training.adaptation == "full" and not freezing.stages and decay == 1:
        return []
    total, trained = sum(p.numel() for p in model.parameters()), sum(freezing.trainable.values())
    said = f"Training {trained:,} of {total:,} parameters ({trained / total:.2%}): {training.adaptation}"
    if decay != 1:
        said += f", each layer group at {decay:g} of the learning rate above it"
    begins = {group.name: stage.step for stage in freezing.stages for group in stage.groups}
    groups = [
        {
            "name": group.name,
            "parameters": sum(freezing.trainable.get(name, 0) for name in group.parameters),
            "step": begins.get(group.name, 0),
            "learning_rate": training.learning_rate * decay**depth,
        }
        for depth, group in enumerate(layer_groups(model) if freezing.stages or decay != 1 else [])
    ]
    told = {"adaptation": training.adaptation, "parameters": total, "trained": trained, "groups": groups}
    events: list[Event] = [{"kind": "trained", "message": said, **told}]
    for stage in freezing.stages:
        joining = " and ".join(f"{group.name} ({len(group.parameters)} tensors)" for group in stage.groups)
        when = f"from update {stage.step:,} on (epoch {stage.step / per_epoch:.4g})" if stage.step else "from the start"
        events.append({"kind": "note", "message": f"Unfreezing {joining} {when}"})
    return events


def _add_adapters(model: Any, recipe: Recipe, build: Callable[[], torch.nn.Module] | None) -> Adapters:
    """Adapters in the model; where they are to be kept alone, their base must come out the same when it is loaded again."""
    settings, source = recipe.training.lora, hub.model_source(recipe)
    head, revision = _head_modules(model), recipe.model.revision
    if not settings.merge and build is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.training.seed + 1)
            if adapters.trunk_hash(build(), head) != adapters.trunk_hash(model, head):
                raise ModelError(
                    f"{source} lacks a part of the trunk (a pooler, say), which starts from random numbers each time it is "
                    "loaded: adapters alone would not bring it back\n    → Set training.lora.merge: true"
                )
    return adapters.inject(model, settings, head, source, None if source != recipe.model.model_name_or_path else revision)


def _head_modules(model: torch.nn.Module) -> tuple[str, ...]:
    """The modules of the head: the outermost ones outside the trunk."""
    trunk = trunk_name(model)
    outside = trunk is not None and not any(name.startswith(f"{trunk}.") for name in head_parameters(model))
    names = (name.partition(".")[0] if outside else name.rpartition(".")[0] for name in head_parameters(model))
    return tuple(dict.fromkeys(names))
