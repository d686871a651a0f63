"""Low-rank adapters (LoRA, Hu et al. 2021) in a model, by peft: put in, saved, loaded, merged.

The adapters stand in the model itself, so that it stays what its task knows. Their folder is peft's own layout
(``PeftModel.from_pretrained(base, folder)`` loads it), the head in it as a module to save, and ``base.json``: which base they
belong to, with a hash of its weights.
"""

from __future__ import annotations

import copy
import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunesmith import storage
from tunesmith.errors import ModelError, nearest

if TYPE_CHECKING:
    from tunesmith.recipe.adaptation import LoraSection

FOLDER = "adapter"
"""Where the adapters are, in a model's folder."""

BASE = "base.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER = "default"
"""What peft calls the one adapter."""

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, between a layer with its adapter and the same layer merged (float32)."""

ATTENTION = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"))
"""Queries and values of attention as models of Transformers name them, for types that peft does not know."""


@dataclass(frozen=True)
class Adapters:
    """The adapters that stand in a model."""

    config: Any
    """peft's ``LoraConfig``."""
    head: tuple[str, ...]
    """The modules that are trained in full beside them."""
    base: Mapping[str, Any]
    """``name_or_path``, ``revision``, and ``hash`` (:func:`trunk_hash`)."""
    merge: bool
    """Whether the whole model is kept too."""

    def write(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """The adapter's folder, from the state of the model that it stands in."""
        from safetensors.torch import save_file

        kept = {
            _saved_name(name): tensor.detach().cpu().contiguous()
            for name, tensor in weights.items()
            if _is_adapter(name) or _in(name, self.head)
        }
        config = copy.copy(self.config)
        config.modules_to_save = list(self.head)
        config.inference_mode = True
        config.save_pretrained(str(folder))
        save_file(kept, str(folder / WEIGHTS), metadata={"format": "pt"})
        storage.write_json(folder / BASE, dict(self.base))

    def load(self, folder: Path, model: torch.nn.Module) -> None:
        """Put saved adapters, and the head saved with them, into the model. Raises :class:`ModelError` for another base."""
        from safetensors.torch import load_file

        of = storage.read_json(folder / BASE)
        if of["hash"] != self.base["hash"]:
            raise ModelError(
                f"the adapter {str(folder)!r} belongs to another base: {of['name_or_path']} with weights {of['hash'][:12]}…, "
                f"and this is {self.base['name_or_path']} with weights {self.base['hash'][:12]}…\n"
                "    → Name the base that it was trained on, or train anew"
            )
        saved = {_live_name(name): tensor for name, tensor in load_file(str(folder / WEIGHTS)).items()}
        wanted = {name for name in model.state_dict() if _is_adapter(name) or _in(name, self.head)}
        if wanted != saved.keys():
            odd = sorted(wanted ^ saved.keys())
            raise ModelError(
                f"the adapter {str(folder)!r} does not fit: {odd[0]} is only in {'the model' if odd[0] in wanted else 'it'}\n"
                "    → Use the training.lora settings that it was trained with"
            )
        model.load_state_dict(saved, strict=False)

    def merged(self, model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state of the plain model that gives the same outputs. Raises :class:`ModelError` where a layer's would differ."""
        plain = {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if not _is_adapter(name)}
        with torch.no_grad():
            for name, layer in lora_layers(model):
                key = f"{name}.weight"
                plain[key] = plain[key] + layer.get_delta_weight(ADAPTER).to(plain[key])
                _check_outputs(name, layer, plain[key])
        return plain


def take_over_head(folder: Path, model: torch.nn.Module) -> bool:
    """Give the adapters in a model's folder the head of the model, which was changed after them; False where there are none.

    The rest of the model is as it was: the base with these adapters merged in.
    """
    from safetensors.torch import load_file, save_file

    place = folder / FOLDER / WEIGHTS
    if not place.is_file():
        return False
    state = model.state_dict()
    saved = load_file(str(place))
    now = {name: state.get(_live_name(name), tensor).detach().cpu().contiguous() for name, tensor in saved.items()}
    save_file(now, str(place), metadata={"format": "pt"})
    return True


def inject(model: Any, settings: LoraSection, head: Sequence[str], name_or_path: str, revision: str | None) -> Adapters:
    """Put fresh adapters into the model; they and the head are what needs gradients afterwards.

    Args:
        head: the modules that are trained in full.
        name_or_path: what the base was loaded from.
        revision: its revision, where it is of the Hub.

    Raises:
        ModelError: the targets match nothing; the base is quantised and the adapters should be merged into it.
    """
    from peft import LoraConfig

    if settings.merge and getattr(model, "is_quantized", False):
        raise ModelError(
            "adapters cannot be merged into a quantised base\n"
            "    → Set training.lora.merge: false, or name the unquantised model"
        )
    base = {"name_or_path": name_or_path, "revision": revision, "hash": trunk_hash(model, head)}
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # peft divides by it, a float does as well
        lora_dropout=settings.lora_dropout,
        target_modules=targets(model, settings.target_modules, head),
        base_model_name_or_path=name_or_path,
        revision=revision,
    )
    _put_in(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_adapter(name) or _in(name, head))
    return Adapters(config, tuple(head), base, settings.merge)


def targets(model: Any, wanted: Sequence[str], head: Sequence[str]) -> list[str]:
    """The full names of the trunk's modules that get adapters. Raises :class:`ModelError` where there are none."""
    candidates = {name: module for name, module in model.named_modules() if _adaptable(module) and not _in(name, head)}
    linear = [name for name, module in candidates.items() if not isinstance(module, torch.nn.Embedding | torch.nn.Conv2d)]
    if list(wanted) == ["all-linear"]:
        found = linear
    elif list(wanted) == ["auto"]:
        found = _usual(model, list(candidates)) or linear
    else:
        found = [name for name in candidates if _matches(name, wanted)]
        missing = [word for word in wanted if not any(_matches(name, [word]) for name in candidates)]
        if missing and found:
            raise ModelError(_nothing(f"{', '.join(map(repr, missing))} of training.lora.target_modules", model, candidates))
    if not found:
        raise ModelError(_nothing(f"training.lora.target_modules {list(wanted)}", model, candidates, wanted))
    return found


def trunk_hash(model: torch.nn.Module, head: Sequence[str]) -> str:
    """BLAKE2b-128 over names and values of all parameters outside the head, as hex; an outline (``meta``) has names alone."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.named_parameters()):
        if not _in(name, head):
            digest.update(f"{name}\0{tuple(tensor.shape)}\n".encode())
            if tensor.is_meta:
                continue
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def lora_layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers with an adapter, by name."""
    from peft.tuners.lora.layer import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def are_alone(folder: str | Path) -> bool:
    """Whether a model's folder has adapters but no weights of the whole model."""
    place = Path(folder)
    return (place / FOLDER / BASE).is_file() and not any(place.glob("*.safetensors"))


def base_of(folder: str | Path) -> dict[str, Any]:
    """The base that the adapters in a model's folder belong to: ``name_or_path``, ``revision``, ``hash``."""
    return dict(storage.read_json(Path(folder) / FOLDER / BASE))


def merge_into(base: Any, folder: str | Path) -> None:
    """Merge the adapters of a model's folder into their base, in place; it is a plain model afterwards.

    Raises:
        ModelError: it is another base.
    """
    from peft import LoraConfig

    place = Path(folder) / FOLDER
    config = LoraConfig.from_pretrained(str(place))
    head, config.modules_to_save = tuple(config.modules_to_save or ()), None
    adapters = Adapters(config, head, {**base_of(folder), "hash": trunk_hash(base, head)}, merge=True)
    _put_in(config, base)
    adapters.load(place, base)
    plain = adapters.merged(base, base.state_dict())
    for name, layer in list(lora_layers(base)):
        parent, _, child = name.rpartition(".")
        setattr(base.get_submodule(parent), child, layer.get_base_layer())
    del base.peft_config
    base.load_state_dict(plain)
    base.requires_grad_(True)


def _put_in(config: Any, model: Any) -> None:
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it sets right itself (fan_in_fan_out)
        inject_adapter_in_model(config, model, ADAPTER)


def _adaptable(module: torch.nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    grouped = isinstance(module, torch.nn.Conv2d) and module.groups > 1
    return isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Embedding | Conv1D) and not grouped


def _usual(model: Any, names: Sequence[str]) -> list[str]:
    """What peft has for the model's type; else queries and values; empty where neither is there."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    known = KNOWN.get(getattr(getattr(model, "config", None), "model_type", ""), [])
    if isinstance(known, str):
        found = [name for name in names if re.fullmatch(known, name)]
    else:
        found = [name for name in names if _matches(name, known)]
    for words in ATTENTION:
        found = found or [name for name in names if _matches(name, words)]
    return found


def _matches(name: str, words: Sequence[str]) -> bool:
    return any(name == word or name.endswith(f".{word}") for word in words)


def _nothing(what: str, model: torch.nn.Module, names: Sequence[str] | Mapping[str, Any], wanted: Sequence[str] = ()) -> str:
    last = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    near = nearest(wanted[0], last) if wanted else None
    there = f"it has {', '.join(last[:20])}" if last else "it has no linear layer, convolution or embedding outside its head"
    fix = (
        f"Name some of them in training.lora.target_modules, such as {near or last[0]}" if last else "Choose another adaptation"
    )
    return f"{what} matches no module of {type(model).__name__}'s trunk: {there}\n    → {fix}"


def _check_outputs(name: str, layer: Any, weight: torch.Tensor) -> None:
    """Raises :class:`ModelError` where the layer with its adapter and with the merged weight answer differently."""
    base, training = layer.get_base_layer(), layer.training
    example = _example(base, weight)
    layer.eval()
    wanted = layer(example)
    given = torch.func.functional_call(base, {"weight": weight}, (example,))
    layer.train(training)
    gap, size = float((wanted - given).abs().max()), max(1.0, float(wanted.abs().max()))
    if not gap <= TOLERANCE * size:
        raise ModelError(
            f"merging the adapter of {name} would change its outputs by {gap:.3g} of {size:.3g} (at most {TOLERANCE:g} of it)\n"
            "    → Set training.lora.merge: false to keep the adapters alone"
        )


def _example(base: Any, weight: torch.Tensor) -> torch.Tensor:
    """An input of the layer, the same each time, without a draw from the generators that training uses."""
    if isinstance(base, torch.nn.Embedding):
        return torch.arange(min(64, len(weight)), device=weight.device)
    if isinstance(base, torch.nn.Conv2d):
        shape: tuple[int, ...] = (2, base.in_channels, *(2 * size for size in base.kernel_size))
    else:
        shape = (4, weight.shape[1] if isinstance(base, torch.nn.Linear) else weight.shape[0])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight)


def _in(name: str, modules: Sequence[str]) -> bool:
    """Whether a module or parameter is one of these, or in one of them."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _saved_name(name: str) -> str:
    """A parameter's name as peft writes it.

    >>> _saved_name("bert.query.lora_A.default.weight")
    'base_model.model.bert.query.lora_A.weight'
    """
    return f"base_model.model.{re.sub(rf'[.]{ADAPTER}(?=[.]|$)', '', name) if _is_adapter(name) else name}"


def _live_name(name: str) -> str:
    """A parameter's name in the model.

    >>> _live_name("base_model.model.bert.query.lora_A.weight")
    'bert.query.lora_A.default.weight'
    """
    return re.sub(r"[.](lora_\w+)(?=[.]|$)", rf".\1.{ADAPTER}", name.removeprefix("base_model.model."))
