"""Loading what Hugging Face saved: configs, processors, models; every failure becomes a ModelError that says what to do.

Safetensors only, never remote code. ``from_pretrained`` gets what the recipe says: a Hub id, or a local folder.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.errors import ModelError

if TYPE_CHECKING:
    import torch

    from tunesmith.recipe import Recipe

log = logging.getLogger(__name__)


def model_source(recipe: Recipe) -> str:
    """What ``from_pretrained`` is given: a local folder (fetched first from a URI), or the Hub id as it stands."""
    return place_of(recipe.model.model_name_or_path, recipe.base_dir)


def processor_source(recipe: Recipe) -> str:
    """The same for the tokenizer or image processor."""
    return place_of(recipe.model.processor_name_or_path or recipe.model.model_name_or_path, recipe.base_dir)


def place_of(name: str, base_dir: str) -> str:
    """The same for any name of a model; relative folders start at ``base_dir``."""
    if not storage.is_local(name):
        return str(fetched(name))
    local = Path(base_dir, name).expanduser()
    return str(local) if local.is_dir() else name


@functools.cache
def fetched(uri: str) -> Path:
    """A remote model folder, copied into this user's temporary folder: anew where its files have changed since.

    A process goes on with what it found first. Raises :class:`ModelError` where there is none.
    """
    files = storage.stamps(uri)
    if not files:
        raise ModelError(f"there is no model folder at {uri!r}. Check model.model_name_or_path")
    key = hashlib.blake2b(repr((uri, files)).encode(), digest_size=8).hexdigest()
    target = Path(tempfile.gettempdir(), f"tunesmith-{getpass.getuser()}", "models", key)
    if not target.is_dir():
        storage.download(uri, target)
    return target


def load_config(recipe: Recipe, **overrides: Any) -> Any:
    """The base model's config. Raises :class:`ModelError`."""
    from transformers import AutoConfig

    source = model_source(recipe)
    with explained(source):
        return AutoConfig.from_pretrained(source, revision=recipe.model.revision, trust_remote_code=False, **overrides)


def load_processor(auto_class: Any, recipe: Recipe | None, source: str | None = None, **kwargs: Any) -> Any:
    """The processor of the recipe's base model, or of the artefact at ``source``. Raises :class:`ModelError`."""
    if source is None:
        assert recipe is not None, "either a recipe or a source"
        source = processor_source(recipe)
        kwargs["revision"] = recipe.model.revision
    with explained(source, what="processor"), quiet():
        processor = auto_class.from_pretrained(source, trust_remote_code=False, **kwargs)
    _check_vocabulary(processor, Path(source))
    return processor


def _check_vocabulary(processor: Any, folder: Path) -> None:
    """Refuse a tokenizer that Transformers made up, without any words, for a folder that has none."""
    files = getattr(processor, "vocab_files_names", None)
    if files and folder.is_dir() and not any((folder / name).exists() for name in files.values()):
        raise ModelError(
            f"the folder {str(folder)!r} has no tokenizer (none of {', '.join(sorted(files.values()))})\n"
            "    → Save the tokenizer beside the model, or name where it is in model.processor_name_or_path"
        )


def build_classifier(auto_class: Any, recipe: Recipe, labels: list[str], **config_values: Any) -> torch.nn.Module:
    """The pre-trained base with an output for each label.

    A head that already answers with exactly these labels is kept; any other is replaced by a fresh one, also where the
    number of classes happens to be equal (its outputs mean something else).
    """
    import torch

    keep = same_labels(load_config(recipe), labels)
    config, kwargs = _config_for(recipe, labels, config_values)
    source = model_source(recipe)
    with explained(source), quiet():
        model = auto_class.from_pretrained(
            source,
            config=config,
            revision=recipe.model.revision,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            **kwargs,
        )
    if not keep:
        reset_head(model)
    return model  # type: ignore[no-any-return]  # transformers' auto classes are untyped


def outline_classifier(auto_class: Any, recipe: Recipe, labels: list[str], **config_values: Any) -> torch.nn.Module:
    """What :func:`build_classifier` gives, on the ``meta`` device: its modules and shapes, made from the config alone.

    Without the recipe's attention, which needs what only the workers may have (FlashAttention a GPU), and changes no module.
    """
    import torch

    config, _ = _config_for(recipe, labels, config_values)
    return outlined(lambda: auto_class.from_config(config, trust_remote_code=False, dtype=torch.float32), model_source(recipe))


def outlined(make: Callable[[], torch.nn.Module], source: str) -> torch.nn.Module:
    """What ``make`` makes of the config of ``source``, without memory or time for its weights."""
    import torch

    with explained(source), quiet(), torch.device("meta"):
        return make()


def _config_for(recipe: Recipe, labels: list[str], values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The base's config with an output for each label and the recipe's dropout, and what else its class is given."""
    config = load_config(recipe)
    check_labels(recipe, labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    for key, value in values.items():
        setattr(config, key, value)
    if recipe.model.dropout is not None:
        override_dropout(config, recipe.model.dropout)
    chosen = recipe.model.attn_implementation
    return config, {"attn_implementation": chosen} if chosen else {}


def load_base(auto_class: Any, recipe: Recipe, labels: list[str]) -> torch.nn.Module | None:
    """The pre-trained model as it is, or None where it does not answer with exactly these labels, in this order."""
    if not same_labels(load_config(recipe), labels):
        return None
    return load_saved(auto_class, model_source(recipe), revision=recipe.model.revision)


def load_saved(auto_class: Any, folder: str, **kwargs: Any) -> torch.nn.Module:
    """The model of an artefact, as it is, in float32; adapters that were kept alone are merged into their base first."""
    import torch

    from tunesmith.tasks import adapters

    if adapters.are_alone(folder):
        return _load_adapted(auto_class, folder)
    with explained(folder), quiet():
        model = auto_class.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, **kwargs)
    return model  # type: ignore[no-any-return]  # transformers' auto classes are untyped


def _load_adapted(auto_class: Any, folder: str) -> torch.nn.Module:
    """The base that the folder's adapters belong to, with the folder's config, and the adapters merged into it."""
    from transformers import AutoConfig

    from tunesmith.tasks import adapters

    base = adapters.base_of(folder)
    with explained(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    revision = {"revision": base["revision"]} if base["revision"] else {}
    model = load_saved(auto_class, base["name_or_path"], config=config, ignore_mismatched_sizes=True, **revision)
    adapters.merge_into(model, folder)
    return model


def own_labels(config: Any) -> list[str]:
    """The labels the base model answers with, in the order of its outputs."""
    id2label = config.id2label or {}
    return [str(id2label[index]) for index in sorted(id2label)]


def same_labels(config: Any, labels: list[str]) -> bool:
    """Whether the base answers with exactly these labels, in this order."""
    return own_labels(config) == list(labels)


def check_labels(recipe: Recipe, labels: list[str]) -> None:
    """Raises :class:`ModelError` where the base answers with other labels and its head must not be replaced."""
    if recipe.model.ignore_mismatched_sizes:
        return
    config = load_config(recipe)
    if not same_labels(config, labels):
        raise ModelError(
            f"model {recipe.model.model_name_or_path!r} answers with {_some(own_labels(config))}, "
            f"the data has {_some(labels)}\n"
            "    → Set model.ignore_mismatched_sizes: true to replace its head by a fresh one, "
            "or name its classes in data.labels"
        )


def override_dropout(config: Any, value: float) -> None:
    """Set every dropout probability of a config. Raises :class:`ModelError` where it has none."""
    names = [
        name
        for name, old in config.to_dict().items()
        if isinstance(old, float | int | None) and not isinstance(old, bool) and "drop" in name and "layerdrop" not in name
    ]
    if not names:
        raise ModelError(f"model.dropout: {type(config).__name__} has no dropout to set. Leave model.dropout out")
    for name in names:
        setattr(config, name, value)


def head_modules(model: Any) -> list[str]:
    """The modules whose shape depends on the number of classes.

    They are found by building the same architecture, without memory, for one class more and comparing shapes.
    """
    import copy

    import torch

    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(f"class {i}" for i in range(model.config.num_labels + 1)))
    with torch.device("meta"):
        wider = type(model)(config)
    shapes = {name: tensor.shape for name, tensor in wider.named_parameters()}
    changed = [name for name, tensor in model.named_parameters() if shapes.get(name) != tensor.shape]
    return sorted({name.rpartition(".")[0] for name in changed})


def reset_head(model: Any) -> list[str]:
    """Initialise the modules whose shape depends on the number of classes afresh, and name them."""
    modules = head_modules(model)
    for name in modules:
        module = model.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False
        module._is_hf_initialized = False
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        model._init_weights(module)
    return modules


@contextmanager
def explained(source: str, what: str = "model") -> Iterator[None]:
    """Turn whatever loading raises into one ModelError that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"cannot load the {what} {source!r}: {_why(source, error)}") from error


def _why(source: str, error: Exception) -> str:
    folder = Path(source)
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            return (
                f"the folder has no config.json (it holds {found})\n"
                "    → Point model.model_name_or_path to a folder that save_pretrained wrote"
            )
        if not any(folder.glob("*.safetensors")):
            return (
                f"the folder has no .safetensors weights, and Tunesmith loads no others ({first})\n"
                "    → Convert them: load the model once with Transformers and save_pretrained it"
            )
        return first
    if "offline" in str(error).lower() or "connect" in str(error).lower():
        return (
            "it is not on this machine and the Hub cannot be reached\n"
            f"    → Name a local folder, or download it first where there is a network: hf download {source}"
        )
    return f"{first} (no local folder of that name exists either)"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Transformers below errors for the time of a call (bars, fresh heads, PIL in place of torchvision)."""
    from transformers.utils import logging as their_logging

    logger = logging.getLogger("transformers")
    before, bars = logger.level, their_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    their_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.setLevel(before)
        if bars:
            their_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _some(labels: list[str], most: int = 6) -> str:
    shown = ", ".join(repr(label) for label in labels[:most])
    return f"{len(labels)} classes ({shown}{', …' if len(labels) > most else ''})"
