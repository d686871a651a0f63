"""What no single field can see: values that contradict each other, names that do not exist, paths that lead nowhere.

Each check yields its findings; ``load`` collects all of them with the mistakes of the fields.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from operator import attrgetter

from tunesmith.errors import nearest
from tunesmith.recipe import augment, hf_names, known_faults, loss_names, task_names
from tunesmith.recipe.base import Section
from tunesmith.recipe.data import domains_of
from tunesmith.recipe.paths import INPUTS, absolute, at_hub, data_problem, is_uri, masked_lm_problem, model_problem, places_of
from tunesmith.recipe.recipe import Recipe
from tunesmith.recipe.yaml_tree import Keys


@dataclass(frozen=True)
class Finding:
    """Something wrong with a recipe whose fields are each of the right type."""

    keys: Keys
    what: str
    fix: str
    involves: tuple[str, ...] = ()
    """Other dotted keys that it is drawn from; nothing is said where one of them is itself mistaken."""


Check = Callable[[Recipe, Collection[str]], Iterator[Finding]]
"""Takes a recipe, and the dotted keys that were written rather than left to their defaults."""


def _at(key: str) -> Keys:
    return tuple(key.split("."))


def _changed(section: Section) -> list[str]:
    """The fields that are not at their defaults: a recipe that was resolved names them all."""
    return [
        name
        for name, field in type(section).model_fields.items()
        if getattr(section, name) != field.get_default(call_default_factory=True)
    ]


def known_task(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The task exists, and ``data.columns`` names roles that it has."""
    problem = task_names.problem(recipe.task)
    if problem:
        yield Finding(("task",), *problem)
        return
    facts = task_names.KNOWN.get(recipe.task)
    for role in recipe.data.columns if facts else ():
        if facts and role not in facts.roles:
            near = nearest(role, facts.roles)
            fix = f"did you mean {near}?" if near else "write one of " + ", ".join(facts.roles)
            if role not in recipe.data.columns.values() and recipe.data.columns[role] in facts.roles:
                fix = f"the role comes first: {recipe.data.columns[role]}: {role}"
            yield Finding(("data", "columns", role), f"{recipe.task} has no role {role}", fix, ("task",))


def precision(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """One kind of mixed precision at a time, and only where the hardware can."""
    training = recipe.training
    if training.fp16 and training.bf16 is True:
        yield Finding(
            _at("training.fp16"), "fp16 and bf16 are both on", "keep one; bf16 needs no loss scaling", ("training.bf16",)
        )
    for key, on in (("fp16", training.fp16), ("fsdp", training.fsdp)):
        if on and training.use_gpu is False:
            fix = f"remove training.{key}, or set training.use_gpu: true"
            yield Finding(_at(f"training.{key}"), "it works on GPUs only, and use_gpu is false", fix, ("training.use_gpu",))


def cadence(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Evaluation happens when it must, and something is there to be evaluated."""
    training, strategy = recipe.training, ("training.eval_strategy",)
    if training.eval_strategy == "steps" and training.eval_steps is None:
        what = "eval_strategy is steps, but eval_steps does not say how many"
        yield Finding(_at("training.eval_strategy"), what, "add training.eval_steps: 500", ("training.eval_steps",))
    if training.eval_strategy != "steps" and training.eval_steps is not None:
        what = f"it has no effect while eval_strategy is {training.eval_strategy}"
        yield Finding(_at("training.eval_steps"), what, "add training.eval_strategy: steps, or remove it", strategy)
    if training.eval_strategy == "no":
        fix = "set training.eval_strategy: epoch, or remove it"
        if training.lr_scheduler_type in hf_names.SCHEDULES_BY_METRIC:
            what = f"{training.lr_scheduler_type} is stepped by evaluations, and eval_strategy is no"
            yield Finding(_at("training.lr_scheduler_type"), what, fix, strategy)
        if training.early_stopping_patience is not None:
            what = "early stopping needs evaluations, and eval_strategy is no"
            yield Finding(_at("training.early_stopping_patience"), what, fix, strategy)
        if training.load_best_model_at_end and "training.load_best_model_at_end" in given:
            what = "the best checkpoint is chosen by evaluations, and eval_strategy is no"
            yield Finding(_at("training.load_best_model_at_end"), what, fix, strategy)
    elif recipe.data.validation is None and recipe.data.split.validation == 0:
        what = f"there is no validation split to judge by, and eval_strategy is {training.eval_strategy}"
        fix = "set training.eval_strategy: no, or give a share such as 0.1"
        yield Finding(_at("data.split.validation"), what, fix, (*strategy, "data.validation"))
    if training.max_steps == 0:
        yield Finding(_at("training.max_steps"), "a run of 0 updates trains nothing", "write -1 to train for the epochs")


def schedule(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The schedule and the optimizer exist, and the warm-up is said once."""
    training = recipe.training
    if training.warmup_ratio and training.warmup_steps:
        what = f"the warm-up is said twice: {training.warmup_steps} updates and a share of {training.warmup_ratio:g}"
        yield Finding(
            _at("training.warmup_ratio"), what, "keep one of warmup_ratio and warmup_steps", ("training.warmup_steps",)
        )
    if training.lr_scheduler_type not in hf_names.SCHEDULES:
        near = nearest(training.lr_scheduler_type.lower(), hf_names.SCHEDULES)
        fix = f"did you mean {near}?" if near else "write one of " + ", ".join(hf_names.SCHEDULES)
        yield Finding(_at("training.lr_scheduler_type"), f"there is no schedule {training.lr_scheduler_type}", fix)
    optim = training.optim
    names = (*hf_names.OPTIMIZERS, *(name for name in hf_names.TORCH_OPTIMIZERS if name not in hf_names.UNUSABLE_OPTIMIZERS))
    if optim not in names:
        why = hf_names.UNUSABLE_OPTIMIZERS.get(optim)
        near = None if why else {name.lower(): name for name in names}.get(optim.lower()) or nearest(optim, names)
        fix = f"did you mean {near}?" if near else "write one of " + ", ".join(names)
        yield Finding(_at("training.optim"), f"{optim} cannot be used: {why}" if why else f"there is no optimizer {optim}", fix)


def objective(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The loss exists and has these arguments; weights are of classes that exist."""
    for found in loss_names.problems(recipe):
        yield Finding(*found)


def attention(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The attention is one that Transformers has, or the name of a kernel on the Hub."""
    name = recipe.model.attn_implementation
    if name is not None and name not in hf_names.ATTENTIONS and not re.fullmatch(hf_names.KERNEL, name):
        near = nearest(name, hf_names.ATTENTIONS)
        others = [one for one in hf_names.ATTENTIONS if one != near]
        fix = (f"did you mean {near}? There are also " if near else "write one of ") + ", ".join(others)
        fix += ", and kernels of the Hub by name (kernels-community/flash-attn2)"
        yield Finding(_at("model.attn_implementation"), f"there is no attention {name}", fix)


def adaptation(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The way of adapting is one, and its settings are those of that way."""
    training = recipe.training
    way, by = training.adaptation, ("training.adaptation",)
    for name in _changed(training.lora) if way != "lora" else ():
        what = f"it has no effect while adaptation is {way}"
        yield Finding(_at(f"training.lora.{name}"), what, "add training.adaptation: lora, or remove it", by)
    targets = training.lora.target_modules
    for word in ("auto", "all-linear"):
        if word in targets and len(targets) > 1:
            what = f"{word} stands for modules by itself, and others are named beside it"
            yield Finding(_at("training.lora.target_modules"), what, f"write {word} alone, or only names of modules")
    if way == "linear-probe" and training.layerwise_lr_decay != 1:
        what = "a linear probe trains the head alone: there are no layers whose rates could differ"
        yield Finding(_at("training.layerwise_lr_decay"), what, "remove it, or set training.adaptation: full", by)
    if training.l2_sp and way in ("linear-probe", "lora"):
        what = f"{way} leaves the pre-trained parameters as they are: there is nothing to pull back"
        yield Finding(_at("training.l2_sp"), what, "remove it, or set training.adaptation: full", by)
    if way == "lora" and training.wise_ft is not None:
        what = "the adapters would no longer be those of the model that is kept"
        fix = "lower training.lora.lora_alpha, which mixes alike, or set training.adaptation: full"
        yield Finding(_at("training.wise_ft"), what, fix, by)
    if way == "lora" and not training.lora.merge and recipe.evaluation.calibrate is not None:
        what = "a temperature is folded into whole weights, and lora.merge is false"
        yield Finding(_at("evaluation.calibrate"), what, "set training.lora.merge: true, or remove it", by)
    if training.fsdp and way != "full":
        what = f"{way} leaves parameters frozen, which works with whole replicas only, and fsdp is true"
        yield Finding(_at("training.adaptation"), what, "set training.fsdp: false", ("training.fsdp",))


def unfreezing(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The schedule of unfreezing is said once, has something to unfreeze, and begins before training ends."""
    training, unfreeze = recipe.training, recipe.training.unfreeze
    if not unfreeze.on:
        if "groups_at_once" in _changed(unfreeze):
            what, fix = "nothing says when groups are unfrozen", "add training.unfreeze.every_epochs: 1, or remove it"
            yield Finding(_at("training.unfreeze.groups_at_once"), what, fix)
        return
    key = "training.unfreeze." + ("every_steps" if unfreeze.every_epochs is None else "every_epochs")
    if unfreeze.every_epochs is not None and unfreeze.every_steps is not None:
        what = f"the schedule is said twice: every {unfreeze.every_epochs:g} epochs and every {unfreeze.every_steps} updates"
        yield Finding(_at(key), what, "keep one of every_epochs and every_steps", ("training.unfreeze.every_steps",))
    if training.adaptation == "linear-probe":
        what = "a linear probe trains the head alone: nothing is ever unfrozen"
        yield Finding(_at(key), what, "remove training.unfreeze, or set training.adaptation: full", ("training.adaptation",))
    if training.fsdp:
        what = "unfreezing works with whole replicas only, and fsdp is true"
        yield Finding(_at(key), what, "set training.fsdp: false, or remove training.unfreeze", ("training.fsdp",))
    in_steps = training.max_steps > 0
    every = unfreeze.every_steps if in_steps else unfreeze.every_epochs
    most = training.max_steps if in_steps else training.num_train_epochs
    if every is not None and every >= most:
        unit = "updates" if in_steps else "epochs"
        what = f"training ends after {most:g} {unit}, before anything is unfrozen: the head would train alone"
        limit = "training.max_steps" if in_steps else "training.num_train_epochs"
        yield Finding(
            _at(key), what, f"lower it, or raise {limit}; training.adaptation: linear-probe trains a head alone", (limit,)
        )


def splits(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The shares leave something to train on, and the way of splitting has the column it needs."""
    data, split = recipe.data, recipe.data.split
    validation = 0.0 if data.validation is not None else split.validation
    test = 0.0 if data.test is not None else split.test
    if validation + test >= 1:
        what = f"validation {validation:g} and test {test:g} leave nothing to train on"
        yield Finding(_at("data.split.validation"), what, "shares must add up to less than 1", ("data.split.test",))
    for way in ("group", "time"):
        column = getattr(split, way)
        if split.by == way and column is None:
            what, fix = f"split by {way}, but no column is named", f"add data.split.{way}: COLUMN"
            yield Finding(_at("data.split.by"), what, fix, (f"data.split.{way}",))
        if split.by not in ("auto", way) and column is not None:
            what = f"it has no effect while the split is by {split.by}"
            yield Finding(_at(f"data.split.{way}"), what, f"write data.split.by: {way}, or remove it", ("data.split.by",))
    if split.by == "auto" and split.group is not None and split.time is not None:
        what = "it has no effect while data.split.group is set: a split is by one of them"
        yield Finding(_at("data.split.time"), what, "remove one of the two", ("data.split.group",))


def few_shot(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """A drawing that is repeated is one that is made, and the rows are limited once."""
    drawn = recipe.data.few_shot
    if drawn.per_class is None and drawn.seeds > 1:
        what = f"there is nothing to draw {drawn.seeds} times: per_class is not set"
        yield Finding(_at("data.few_shot.seeds"), what, "add data.few_shot.per_class: 16, or remove it")
    if drawn.per_class is not None and recipe.data.max_train_samples is not None:
        what = "the training rows are limited twice, by few_shot.per_class and by max_train_samples"
        yield Finding(_at("data.max_train_samples"), what, "keep one of them", ("data.few_shot.per_class",))


def unlabelled(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Rows can be labelled by their model, there is a split to decide by, and no setting is without its data."""
    section, key = recipe.data.unlabelled, "data.unlabelled.data"
    if section.data is None:
        for name in _changed(section):
            what = "there are no unlabelled rows"
            yield Finding(_at(f"data.unlabelled.{name}"), what, f"add {key}: FILE, or remove it")
        return
    facts = task_names.KNOWN.get(recipe.task)
    if facts and not facts.one_label:
        what = f"self-training labels whole rows with one class each, which {recipe.task} does not have"
        yield Finding(_at(key), what, "remove data.unlabelled", ("task",))
    if domains_of(recipe.data.train):
        what = "rows that a teacher labels belong to none of the named data sets of data.train"
        yield Finding(_at(key), what, "give data.train as a list of places without names", ("data.train",))
    if recipe.data.validation is None and recipe.data.split.validation == 0:
        what = "whether the student is better than its teacher is decided on the validation split, and there is none"
        fix = "give data.validation, or a share such as data.split.validation: 0.1"
        yield Finding(_at(key), what, fix, ("data.split.validation", "data.validation"))


def labels(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """No class is named twice."""
    seen: Counter[str] = Counter()
    for index, label in enumerate(recipe.data.labels or ()):
        seen[label] += 1
        if seen[label] == 2:
            yield Finding(("data", "labels", index), f"the class {label!r} is named twice", "name each class once")


def cleaning(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Thresholds are used, labels that are dropped can be judged, and nothing is asked of splits that there are not."""
    data, clean = recipe.data, recipe.data.clean
    for name in ("similarity", "image_distance"):
        if clean.near_duplicates == "off" and name in _changed(clean):
            fix = "remove it, or set data.clean.near_duplicates: report"
            what = "it has no effect while data.clean.near_duplicates is off"
            yield Finding(_at(f"data.clean.{name}"), what, fix, ("data.clean.near_duplicates",))
    facts = task_names.KNOWN.get(recipe.task)
    if facts and not facts.one_label and data.label_errors == "drop":
        what = f"the audit judges one class for each row, which {recipe.task} does not have: nothing would be dropped"
        yield Finding(
            _at("data.label_errors"), what, "remove it; training.loss: symmetric_cross_entropy bears wrong labels", ("task",)
        )
    evaluated = data.validation or data.test or data.split.validation or data.split.test
    if data.leakage in ("error", "move") and not evaluated:
        what = "there is neither a validation nor a test split that could leak"
        yield Finding(_at("data.leakage"), what, "remove it, or give a split", ("data.split.validation", "data.split.test"))


def augmentation(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Every operation fits the task's examples, and of those that join examples each can be reached."""
    facts = task_names.KNOWN.get(recipe.task)
    mixing: str | None = None
    for index, operation in enumerate(recipe.data.augment):
        keys: Keys = ("data", "augment", index)
        if facts and operation.name not in facts.augmentations:
            what = f"{operation.name} does not fit the examples of {recipe.task}"
            yield Finding(keys, what, "write one of " + ", ".join(facts.augmentations), ("task",))
        elif operation.name in augment.MIXING:
            if mixing:
                what = f"{mixing} before it takes every example, and an example is joined with one other only"
                yield Finding(keys, what, f"give {mixing} a chance below 1, such as p: 0.5")
            mixing = operation.name if operation.p == 1 else mixing


def output(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Run folders can be made where they should be."""
    folder = absolute(recipe.training.output_dir, os.getcwd())
    if not is_uri(folder) and os.path.exists(folder) and not os.path.isdir(folder):
        yield Finding(_at("training.output_dir"), f"{folder} is a file", "name a folder for the runs")


def serving(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """There can be as many copies as there are at the least."""
    least, most = recipe.serving.num_replicas, recipe.serving.max_replicas
    if most is not None and most < least:
        what = f"{most} is less than serving.num_replicas, {least}"
        yield Finding(_at("serving.max_replicas"), what, f"write {least} or more, or null", ("serving.num_replicas",))


def paths(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Local inputs exist, and so does a loss of the user's own; the list of known faults can be read."""
    for problems in (loss_names.missing, known_faults.problems):
        for found in problems(recipe):
            yield Finding(*found)
    for key in INPUTS:
        value = attrgetter(key)(recipe)
        if at_hub(key, recipe.data.format):
            continue
        find = model_problem if key.startswith("model.") else data_problem
        for below, one in places_of(value):
            problem = find(one, recipe.base_dir)
            if problem:
                yield Finding((*_at(key), *below), *problem, ("data.format",) if key.startswith("data.") else ())
    for index, operation in enumerate(recipe.data.augment):
        if isinstance(operation, augment.MaskedLM) and (
            problem := masked_lm_problem(operation.model_name_or_path, recipe.base_dir)
        ):
            yield Finding(("data", "augment", index, "model_name_or_path"), *problem)


CHECKS: tuple[Check, ...] = (
    known_task,
    precision,
    cadence,
    schedule,
    objective,
    attention,
    adaptation,
    unfreezing,
    splits,
    few_shot,
    unlabelled,
    labels,
    cleaning,
    augmentation,
    output,
    serving,
)
