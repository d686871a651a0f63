"""The derived values of a recipe, all in one place, each with its reason; its fingerprint; and the YAML that is kept of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from tunesmith import storage
from tunesmith.errors import UserError, nearest
from tunesmith.recipe import keys, task_names, yaml_tree
from tunesmith.recipe.hf_names import LOWER_IS_BETTER
from tunesmith.recipe.paths import INPUTS, absolute, absolute_model, at_hub, each_augment_model, each_place, is_uri
from tunesmith.recipe.recipe import Recipe
from tunesmith.recipe.search_space import each_value

PENDING = {
    "data.format": "depends on the data: told by the file's ending",
    "data.labels": "depends on the data: the classes of train, sorted",
    "data.split.by": "depends on the data: stratified where it has classes, else random",
    "data.max_length": "depends on the model: what it holds, at most 512",
    "data.image_size": "depends on the model: its image processor's",
    "data.clean.near_duplicates": "depends on the data: report up to 1,000,000 texts or 50,000 images, else off",
    "data.leakage": "depends on the splits: exact ones refused and near ones reported in given, kept on one side in made",
    "data.engine": "depends on the data and the cluster: ray for 200,000 rows on several nodes",
    "training.use_gpu": "depends on the cluster: on where every worker can have a GPU",
    "training.bf16": "depends on the cluster: on where its GPUs support it",
    "training.batching": "depends on the task: tokens where examples differ in length",
    "training.max_steps": "depends on the data: as many as the epochs need",
    "training.metric_for_best_model": "depends on the task: its own metric",
    "training.greater_is_better": "depends on the metric",
}
"""Keys left as they are because only the data, the model or the cluster can tell → what decides."""

UNDECIDED: tuple[object, ...] = (None, "auto", -1)

UNCOUNTED = ("training.output_dir", "training.report_to", "data.cache_dir")
"""Keys that say where results are kept or shown, and never what they are."""

NOT_TRAINED = ("name", "search", "serving", "federation")
"""What changes nothing of a run's training and verdict: a run is found again, and resumed, whatever stands here."""


def resolve(recipe: Recipe) -> Recipe:
    """See :meth:`Recipe.resolved`. Every rule by which one value follows from others stands in this function."""
    values = located(recipe, recipe.model_dump())
    why = dict(recipe._provenance)
    task, training, split = task_names.KNOWN.get(recipe.task), values["training"], values["data"]["split"]

    def derive(key: str, value: Any, reason: str) -> None:
        keys.put(values, key, value)
        why[key] = f"derived: {reason}"

    if values["data"]["cache_dir"] is None:
        derive("data.cache_dir", storage.join(training["output_dir"], ".cache"), "under training.output_dir")
    if split["by"] == "auto" and (split["group"] or split["time"]):
        derive("data.split.by", way := "group" if split["group"] else "time", f"data.split.{way} is set")
    if training["per_device_eval_batch_size"] is None:
        batch = training["per_device_train_batch_size"]
        derive("training.per_device_eval_batch_size", 2 * batch, "twice training.per_device_train_batch_size")
    if training["batching"] == "auto" and task:
        differ = "differ" if task.ragged else "do not differ"
        derive("training.batching", "tokens" if task.ragged else "fixed", f"examples of {recipe.task} {differ} in length")
    if training["metric_for_best_model"] is None and task:
        derive("training.metric_for_best_model", task.metric, f"the metric of {recipe.task}")
    metric = training["metric_for_best_model"]
    if training["greater_is_better"] is None and metric:
        better = metric not in LOWER_IS_BETTER
        derive("training.greater_is_better", better, f"{'more' if better else 'less'} {metric} is better")
    if training["load_best_model_at_end"] and training["eval_strategy"] == "no":
        derive("training.load_best_model_at_end", False, "training.eval_strategy is no")
    if values["data"]["validation"] is not None and split["validation"]:
        derive("data.split.validation", 0.0, "data.validation is given")
    if values["data"]["test"] is not None and split["test"]:
        derive("data.split.test", 0.0, "data.test is given")

    for key, reason in PENDING.items():
        if key not in why and keys.get(values, key) in UNDECIDED:
            why[key] = f"default: {reason}"
    resolved = Recipe.model_validate(values)
    resolved._path, resolved._base_dir, resolved._provenance = recipe._path, recipe._base_dir, why
    return resolved


def located(recipe: Recipe, values: dict[str, Any]) -> dict[str, Any]:
    """The values with every local path absolute: inputs from the recipe's folder, outputs from the working directory."""
    for key in INPUTS:
        if not keys.has(values, key) or at_hub(key, recipe.data.format):
            continue
        place = absolute_model if key.startswith("model.") else absolute
        keys.put(values, key, each_place(keys.get(values, key), partial(place, base=recipe.base_dir)))
    if keys.has(values, "data.augment"):
        models = each_augment_model(keys.get(values, "data.augment"), partial(absolute_model, base=recipe.base_dir))
        keys.put(values, "data.augment", models)
    for key in ("training.output_dir", "data.cache_dir"):
        value = keys.get(values, key)
        if value is not None and not is_uri(value):
            keys.put(values, key, absolute(value, os.getcwd()))
    return values


def fingerprint(recipe: Recipe, wanted: Sequence[str] = ()) -> str:
    """See :meth:`Recipe.fingerprint`. Raises :class:`UserError` for a key that does not exist."""
    values = resolve(recipe).model_dump(mode="json")
    for key in UNCOUNTED:
        parent, _, name = key.rpartition(".")
        keys.get(values, parent).pop(name)
    chosen: dict[str, Any] = {}
    for key in wanted or [name for name in values if name not in NOT_TRAINED]:
        if not keys.has(values, key) and key not in UNCOUNTED:
            near = nearest(key, [*keys.sections(Recipe), *(name for name, _ in keys.leaves(Recipe))])
            raise UserError(f"a recipe has no key {key!r}" + (f": did you mean {near}?" if near else ""))
        chosen[key] = keys.get(values, key)
    canonical = json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def to_yaml(recipe: Recipe) -> str:
    """See :meth:`Recipe.to_yaml`."""
    values = located(recipe, recipe.model_dump(exclude_unset=True))
    if keys.has(values, "search"):
        values["search"] = _located_search(recipe, values["search"])
    return yaml_tree.dump({"name": recipe.name, **values})


def _located_search(recipe: Recipe, section: dict[str, Any]) -> dict[str, Any]:
    """``search`` with its local paths absolute, to be kept: trials and the fingerprint have them as they are written."""

    def there(key: str, value: Any) -> Any:
        values: dict[str, Any] = {}
        keys.put(values, key, value)
        return keys.get(located(recipe, values), key)

    if "space" in section:
        section["space"] = each_value(section["space"], there)
    if "trial_overrides" in section:
        section["trial_overrides"] = {key: there(key, value) for key, value in section["trial_overrides"].items()}
    if "warm_start" in section:
        section["warm_start"] = [place if is_uri(place) else absolute(place, os.getcwd()) for place in section["warm_start"]]
    return section
