"""A model's parameters in groups, from the head down, found from its own module tree.

Three things are told apart, without a table of architectures:

- the *head*: what stands outside ``base_model_prefix`` in a model of Transformers; in any other, the modules whose shape
  depends on the number of classes (:func:`tunesmith.tasks.hub.head_modules`);
- the *blocks* of the trunk: the children of its outermost lists of like modules (``bert.encoder.layer``,
  ``resnet.encoder.stages``; an encoder and a decoder are two). Lists of one length in one parent are one stack, block by block;
- whatever else the trunk has goes with the block that is registered before it (a pooler, a last norm), or with the embeddings
  where there is none yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tunesmith.errors import ModelError
from tunesmith.tasks import hub

Blocks = dict[str, tuple[str, int]]
"""The path of each block → the stack that it belongs to, and its place in it."""


@dataclass(frozen=True)
class LayerGroup:
    """Parameters that are unfrozen together and share a learning rate."""

    name: str
    """The largest modules that lie wholly in the group: ``bert.encoder.layer.11, bert.pooler``; ``head`` for the head."""
    parameters: tuple[str, ...]
    """Names of its parameters, as ``named_parameters`` has them."""
    modules: tuple[str, ...]
    """Names of the modules that hold parameters or buffers of their own."""


def layer_groups(model: torch.nn.Module) -> list[LayerGroup]:
    """All parameters in groups: the head first, then block by block down to the embeddings.

    Raises:
        ModelError: the trunk has no list of like blocks, or there is no head; says which modules were found.
    """
    head = set(head_parameters(model))
    blocks = _blocks(model, head)
    if not blocks:
        raise ModelError(
            f"the layers of {type(model).__name__} cannot be grouped: it has no ModuleList or Sequential of like blocks "
            f"outside its head. It has {_found(model)}\n"
            "    → Leave out training.unfreeze and training.layerwise_lr_decay for this model"
        )
    order = list(dict.fromkeys(stack for stack, _ in blocks.values()))
    depth = {
        place: index for index, place in enumerate(sorted(set(blocks.values()), key=lambda at: (order.index(at[0]), at[1])))
    }
    parameters: dict[int, list[str]] = {}
    modules: dict[int, list[str]] = {}
    seen: set[int] = set()
    current = below = -1  # the embeddings
    for path, module in model.named_modules():
        block = _block_of(path, blocks)
        current = depth[blocks[block]] if block is not None else below
        below = current
        own = [(f"{path}.{name}" if path else name, p) for name, p in module.named_parameters(recurse=False)]
        fresh = [(name, p) for name, p in own if id(p) not in seen]  # tied parameters belong where they come first
        seen |= {id(p) for _, p in fresh}
        for name, _ in fresh:
            parameters.setdefault(len(depth) if name in head else current, []).append(name)
        if own or next(module.buffers(recurse=False), None) is not None:
            in_head = any(name in head for name, _ in own)
            modules.setdefault(len(depth) if in_head else current, []).append(path)
    return [
        LayerGroup(
            "head" if at == len(depth) else ", ".join(_cover(model, set(parameters[at]))),
            tuple(parameters[at]),
            tuple(modules.get(at, ())),
        )
        for at in sorted(parameters, reverse=True)
    ]


def head_parameters(model: torch.nn.Module) -> list[str]:
    """Names of the head's parameters. Raises :class:`ModelError` where no head can be told from the trunk."""
    names = [name for name, _ in model.named_parameters()]
    trunk = trunk_name(model)
    head = [name for name in names if trunk is not None and not name.startswith(f"{trunk}.")]
    if not head and hasattr(model, "config"):
        found = hub.head_modules(model)
        head = [name for name in names if name.rpartition(".")[0] in found]
    if not head or len(head) == len(names):
        raise ModelError(
            f"the head of {type(model).__name__} cannot be told from its trunk: it has {_found(model)}\n"
            "    → Use training.adaptation: full, without training.unfreeze and training.layerwise_lr_decay"
        )
    return head


def trunk_name(model: torch.nn.Module) -> str | None:
    """The attribute that holds the pre-trained part, as models of Transformers name it; None where there is none."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if prefix and isinstance(getattr(model, prefix, None), torch.nn.Module) else None


def with_running_statistics(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The normalisation layers that change by being run, frozen or not: batch norm and its kind."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._NormBase) and module.track_running_stats:
            yield name, module


def _blocks(model: torch.nn.Module, head: set[str]) -> Blocks:
    """The blocks of the outermost stacks, in the order of the model's modules."""
    stacks: dict[str, torch.nn.Module] = {}
    for path, module in model.named_modules():
        in_head = all(f"{path}.{name}" in head for name, _ in module.named_parameters())
        if _alike(module) and not in_head and not any(path.startswith(f"{outer}.") for outer in stacks):
            stacks[path] = module
    blocks: Blocks = {}
    for path, module in stacks.items():
        parent = path.rpartition(".")[0]
        stack = f"{parent}:{len(list(module.children()))}"
        for other, sibling in model.get_submodule(parent).named_children():
            beside = f"{parent}.{other}" if parent else other
            together = isinstance(module, torch.nn.ModuleList) and isinstance(sibling, torch.nn.ModuleList)
            if beside == path or (together and len(sibling) == len(module)):  # type: ignore[arg-type]
                blocks |= {f"{beside}.{name}": (stack, index) for index, (name, _) in enumerate(sibling.named_children())}
    return blocks


def _alike(module: torch.nn.Module) -> bool:
    """Whether it lists blocks of one class, each made of modules and with parameters of its own."""
    if not isinstance(module, torch.nn.ModuleList | torch.nn.Sequential):
        return False
    children = list(module.children())
    enough = 1 if isinstance(module, torch.nn.ModuleList) else 2
    return (
        len(children) >= enough
        and len({type(child) for child in children}) == 1
        and all(any(child.children()) and any(True for _ in child.parameters()) for child in children)
    )


def _block_of(path: str, blocks: Blocks) -> str | None:
    """The block that the module is, or is in."""
    while path:
        if path in blocks:
            return path
        path = path.rpartition(".")[0]
    return None


def _cover(module: torch.nn.Module, names: set[str], path: str = "") -> list[str]:
    """The fewest modules and parameters that make up these parameters."""
    under = {f"{path}.{name}" if path else name for name, _ in module.named_parameters()}
    if path and under and under <= names:
        return [path]
    if not under & names:
        return []
    own = [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)]
    covered = [name for name in own if name in names]
    for name, child in module.named_children():
        covered += _cover(child, names, f"{path}.{name}" if path else name)
    return covered


def _found(model: torch.nn.Module) -> str:
    """The modules of the two uppermost levels, with their classes and sizes."""
    shown = [
        f"{path} ({type(module).__name__}, {sum(p.numel() for p in module.parameters()):,} parameters)"
        for path, module in model.named_modules()
        if path and path.count(".") < 2
    ]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more modules" if len(shown) > 12 else "") or "no modules"
