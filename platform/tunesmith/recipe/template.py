"""The commented recipe that ``tunesmith init`` writes: the important keys live, others to be uncommented."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from tunesmith.recipe import keys, yaml_tree
from tunesmith.recipe.explain import for_people
from tunesmith.recipe.recipe import Recipe
from tunesmith.recipe.starting import Start, start
from tunesmith.recipe.task_names import KNOWN, TaskFacts

LIVE = (
    "task",
    "model.model_name_or_path",
    "data.train",
    "data.split.validation",
    "data.split.test",
    "training.learning_rate",
    "training.num_train_epochs",
    "training.per_device_train_batch_size",
    "training.num_workers",
)
"""Keys that are written out."""

OFFERED = (
    "name",
    "model.revision",
    "model.dropout",
    "data.validation",
    "data.test",
    "data.columns",
    "data.labels",
    "data.split.by",
    "data.split.group",
    "data.on_bad_row",
    "data.augment",
    "training.weight_decay",
    "training.warmup_ratio",
    "training.lr_scheduler_type",
    "training.label_smoothing_factor",
    "training.loss",
    "training.class_weights",
    "training.gradient_accumulation_steps",
    "training.early_stopping_patience",
    "training.metric_for_best_model",
    "training.use_gpu",
    "training.bf16",
    "training.seed",
    "training.report_to",
    "evaluation.slices",
)
"""Keys that are written as comments, with an example or their default."""

EXAMPLES: dict[str, Any] = {
    "name": "my-model",
    "model.dropout": 0.1,
    "data.validation": "validation.csv",
    "data.test": "test.csv",
    "data.labels": ["no", "yes"],
    "data.split.group": "patient",
    "data.split.by": "group",
    "data.on_bad_row": "quarantine",
    "training.weight_decay": 0.01,
    "training.warmup_ratio": 0.1,
    "training.label_smoothing_factor": 0.1,
    "training.loss": "focal",
    "training.class_weights": "effective",
    "training.early_stopping_patience": 3,
    "training.report_to": ["mlflow"],
    "evaluation.slices": ["region"],
}
"""Values shown for keys whose default says little."""

TASK_ONLY: dict[str, tuple[str, Any]] = {"ragged": ("data.max_length", 256), "fixed": ("data.image_size", 224)}
"""One more key on offer, by whether examples differ in length."""

COMMENT_COLUMN = 44
WIDTH = 128
BATCH = 16
"""Examples of an update in the recipe that is written: of the one worker in it."""


def template(
    task: str,
    *,
    data: str | None = None,
    model: str | None = None,
    schema: str | None = None,
    begin: Start | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> str:
    """The YAML for a task of :data:`KNOWN`. ``schema`` is the path of a JSON Schema for editors, where there is one.

    ``begin`` has the values that go by model and data, with their reasons; None goes by the model's name. ``chosen`` are more
    values to write out, by dotted key; their reasons stand in ``begin`` too.

    >>> "task: image-classification" in template("image-classification").splitlines()
    True
    """
    facts = KNOWN[task]
    name = model or facts.model
    begin = begin or start(name, None, None, BATCH)
    values: dict[str, Any] = {"task": task, "model.model_name_or_path": name, "data.train": data or facts.data}
    values |= {
        "training.per_device_train_batch_size": BATCH,
        "training.learning_rate": begin.learning_rate,
        "training.num_train_epochs": begin.num_train_epochs,
        **(chosen or {}),
    }
    live = {*LIVE, *(chosen or {})}
    lines = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines += ["# A recipe of Tunesmith. Check it with `tunesmith validate`; `tunesmith schema` lists every key.", ""]
    lines += _section(Recipe, "", values, facts, begin.why, live)
    return "\n".join(lines) + "\n"


def _section(
    section: type[Any],
    prefix: str,
    values: dict[str, Any],
    facts: TaskFacts,
    why: Mapping[str, str],
    live: Collection[str],
) -> list[str]:
    """The lines of the keys below a dotted prefix, indented; a section without live keys is itself a comment."""
    known = dict(keys.leaves(Recipe))
    offered = (*OFFERED, TASK_ONLY["ragged" if facts.ragged else "fixed"][0])
    lines: list[str] = []
    indent = "  " * prefix.count(".")
    for name, field in section.model_fields.items():
        key = prefix + name
        inner = next((inner for inner in keys.sections(Recipe) if inner == key), None)
        if inner:
            below = _section(field.annotation, f"{key}.", values, facts, why, live)
            has_live = any(chosen.startswith(f"{key}.") for chosen in live)
            if below:
                lines += ([""] if not prefix else []) + [f"{indent}{'' if has_live else '# '}{name}:", *below]
        elif key in live or key in offered:
            value = values.get(key, _example(key, known[key].get_default(call_default_factory=True, validated_data={}), facts))
            head = f"{indent}{'' if key in live else '# '}{name}: {inline(value)}"
            reason = textwrap.wrap(why.get(key, ""), WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
            lines += [*reason, *_commented(head, field.description or "", indent)]
    return lines


def _example(key: str, default: Any, facts: TaskFacts) -> Any:
    if key == "data.columns":
        shown = {
            "image": "file",
            "text": "review",
            "text_pair": "reply",
            "label": "class",
            "tokens": "words",
            "tags": "entities",
        }
        return {role: shown.get(role, role) for role in facts.roles if role != "text_pair"}
    if key == "data.augment":
        return [{"name": name} for name in facts.augmentations[:2]]
    if key == "training.metric_for_best_model":
        return facts.metric
    return dict(TASK_ONLY.values()).get(key, EXAMPLES.get(key, default))


def inline(value: Any) -> str:
    """A value on one line, as YAML that reads back to it."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inline(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(inline(child) for child in value) + "]"
    if isinstance(value, float):
        text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text  # YAML 1.1 takes 5e-05 for text
    return yaml_tree.dump({"x": value}).removeprefix("x:").strip()


def _commented(head: str, description: str, indent: str) -> list[str]:
    """The line of a key with the first sentence of its description behind it, or above it where that would be too long."""
    sentence = for_people(description).partition(". ")[0].rstrip(".")
    line = f"{head:<{COMMENT_COLUMN}}# {sentence}"
    if len(line) <= WIDTH and len(head) < COMMENT_COLUMN:
        return [line]
    return [*textwrap.wrap(sentence, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "), head]
