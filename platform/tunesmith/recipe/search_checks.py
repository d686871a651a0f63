"""What cannot be seen in one field of ``search``: keys that do not exist or may not change, values that their keys refuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from tunesmith.errors import Mistake, RecipeError
from tunesmith.recipe import hf_names, keys
from tunesmith.recipe.checks import Finding
from tunesmith.recipe.paths import INPUTS, data_problem, is_uri, model_problem, places_of
from tunesmith.recipe.recipe import Recipe
from tunesmith.recipe.search import MEASURED, SearchSection
from tunesmith.recipe.search_space import Dimension, active, count_combinations, parse
from tunesmith.recipe.searched import replaced

MOST_COMBINATIONS = 1000
"""A grid with more is a mistake in thinking, not a search."""

FIXED: dict[str, str] = {
    "name": "it says nothing of the training",
    "task": "trials of different tasks cannot be compared",
    "search": "a search does not search itself",
    "serving": "it changes nothing of the training",
    "evaluation": "trials would be judged by different measures",
    "data.train": "trials would be judged on different rows",
    "data.validation": "trials would be judged on different rows",
    "data.test": "trials would be judged on different rows",
    "data.split": "trials would be judged on different rows",
    "data.labels": "trials would be judged by different classes",
    "data.columns": "trials would learn different things",
    "data.cache_dir": "it changes nothing of the training",
    "data.engine": "it changes nothing of the training",
    "data.unlabelled": "self-training is not searched",
    "data.few_shot.seeds": "a trial is one training",
    "training.output_dir": "it changes nothing of the training",
    "training.report_to": "it changes nothing of the training",
    "training.metric_for_best_model": "trials are compared by it",
    "training.greater_is_better": "trials are compared by it",
    "training.load_best_model_at_end": "trials are compared by their best checkpoints",
    "training.num_workers": "trials of different sizes do not fit the same places; search.trial_overrides sets it for all",
    "training.use_gpu": "trials of different sizes do not fit the same places; search.trial_overrides sets it for all",
    "training.resources_per_worker": "trials of different sizes do not fit the same places",
}
"""Keys (with all below them) that stay as they are → why."""

ONE_WORKER = "set search.trial_overrides: {training.num_workers: 1}"
WORKERS = ("training.num_workers", "search.trial_overrides")

PERTURBABLE = (
    "training.learning_rate",
    "training.weight_decay",
    "training.adam_beta1",
    "training.adam_beta2",
    "training.max_grad_norm",
    "training.label_smoothing_factor",
    "training.l2_sp",
    "training.l2_sp_head",
    "model.dropout",
)
"""Keys that can change in the middle of a training, whose model, batches and schedule stay."""


def search(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """Every searched key exists, may be searched, and takes every value of its range; what was asked for goes together."""
    section = recipe.search
    if not section.space:
        if section != SearchSection():
            what = "there is nothing to search"
            yield Finding(("search", "space"), what, "add search.space: {training.learning_rate: {loguniform: [1e-5, 1e-2]}}")
        return
    dimensions, flaws = parse(section.space)
    for flaw in flaws:
        yield Finding(flaw.place, flaw.what, flaw.fix)
    known = {key for key, _ in keys.leaves(Recipe)} | set(keys.sections(Recipe))
    sound = True
    for one in dimensions:
        for found in _key(one, known, section.scheduler):
            sound = False
            yield found
    if flaws or not sound:
        return
    for found in (*_overrides(recipe, known), *_algorithm(recipe, dimensions), *_together(recipe), *_idle(section)):
        sound = False
        yield found
    if sound:
        yield from _values(recipe, dimensions)


def _key(one: Dimension, known: set[str], scheduler: str) -> Iterator[Finding]:
    if one.key not in known:
        yield Finding(one.place, f"a recipe has no key {one.key}", keys.suggest(Recipe, one.key)[0])
        return
    fixed = _fixed(one.key)
    if fixed:
        yield Finding(one.place, f"{one.key} cannot be searched: {FIXED[fixed]}", "remove it from search.space")
    elif scheduler == "pbt" and one.key not in PERTURBABLE:
        fix = "search one of " + ", ".join(PERTURBABLE) + "; or set search.scheduler: asha"
        what = f"{one.key} cannot change in the middle of a training, as pbt wants it"
        yield Finding(one.place, what, fix, ("search.scheduler",))


def _fixed(key: str) -> str | None:
    return next((name for name in FIXED if key == name or key.startswith(f"{name}.")), None)


def _algorithm(recipe: Recipe, dimensions: list[Dimension]) -> Iterator[Finding]:
    section = recipe.search
    if section.algorithm == "grid":
        endless = [one for one in dimensions if one.all_values() is None]
        for one in endless:
            what = f"{one.kind} has no end of values, and algorithm grid tries all"
            yield Finding(
                (*one.place, one.kind), what, "write grid: [a, b, c], or search.algorithm: random", ("search.algorithm",)
            )
        count = count_combinations(dimensions)
        if not endless and count > MOST_COMBINATIONS:
            what = f"this grid has {count:,} combinations, more than {MOST_COMBINATIONS:,}"
            fix = "search fewer values, or set search.algorithm: random and search.num_samples"
            yield Finding(("search", "space"), what, fix, ("search.algorithm",))
    if section.scheduler == "pbt":
        if section.algorithm in ("grid", "gp"):
            what = f"pbt draws its population at random, and algorithm is {section.algorithm}"
            yield Finding(("search", "algorithm"), what, "set search.algorithm: random", ("search.scheduler",))
        if section.num_samples < 4:
            what = f"a population of {section.num_samples} has no better and worse quarter"
            yield Finding(("search", "num_samples"), what, "write 4 or more", ("search.scheduler",))
        workers = _workers(recipe)
        if workers > 1:
            what = f"a trial of {workers} workers cannot take over another one's checkpoint, as pbt wants it"
            fix = f"{ONE_WORKER}, or search.scheduler: asha"
            yield Finding(("search", "scheduler"), what, fix, WORKERS)
        if section.winner == "refit":
            what = "values that changed meanwhile cannot be trained anew as one recipe"
            yield Finding(("search", "winner"), what, "set search.winner: checkpoint", ("search.scheduler",))
        if section.seeds > 1:
            what = "values that changed meanwhile cannot be trained again with other seeds"
            yield Finding(("search", "seeds"), what, "remove it, or set search.scheduler: asha", ("search.scheduler",))


def _idle(section: SearchSection) -> Iterator[Finding]:
    """Keys that were set and change nothing."""
    scheduler, algorithm = f"scheduler is {section.scheduler}", f"algorithm is {section.algorithm}"
    by = ("search.scheduler", "search.algorithm", "search.objectives")
    if section.warm_start and (section.scheduler == "pbt" or section.algorithm in ("random", "grid")):
        why = scheduler if section.scheduler == "pbt" else algorithm
        fix = "remove it, or search by algorithm: tpe or gp, with another scheduler than pbt"
        yield Finding(("search", "warm_start"), f"it has no effect while {why}", fix, by)
    needed: dict[str, tuple[bool, str, str]] = {
        "grace_period": (section.scheduler == "asha", scheduler, "search.scheduler: asha"),
        "reduction_factor": (section.scheduler == "asha", scheduler, "search.scheduler: asha"),
        "generations": (section.scheduler == "pbt", scheduler, "search.scheduler: pbt"),
        "start_with_recipe": (section.algorithm != "grid", algorithm, "search.algorithm: random"),
        "tolerance": (len(section.objectives) > 1, "there is one objective", "search.objectives: [accuracy, latency_ms]"),
    }
    for name, (counts, why, fix) in needed.items():
        if not counts and getattr(section, name) != SearchSection.model_fields[name].default:
            yield Finding(("search", name), f"it has no effect while {why}", f"remove it, or set {fix}", by)


def _together(recipe: Recipe) -> Iterator[Finding]:
    """What the rest of the recipe must be for its trainings to be compared."""
    section, involved = recipe.search, ("search.space",)
    if recipe.training.eval_strategy == "no":
        what = "trials are compared by evaluations, and eval_strategy is no"
        yield Finding(("training", "eval_strategy"), what, "set training.eval_strategy: epoch, or remove search", involved)
    if recipe.data.unlabelled.data is not None:
        what = "a search trains each of its trials once, without a teacher"
        yield Finding(("data", "unlabelled", "data"), what, "remove data.unlabelled or search", involved)
    if recipe.data.few_shot.seeds > 1:
        what = "a trial is one training"
        yield Finding(
            ("data", "few_shot", "seeds"), what, "set it to 1, or remove search; search.seeds repeats the winner", involved
        )
    if len(section.objectives) == 1:
        what, fix = (
            "one objective is a plain search",
            f"write search.metric: {section.objectives[0]}, or add a second objective",
        )
        yield Finding(("search", "objectives"), what, fix)
    if len(section.objectives) > 1:
        if section.objectives[0] in MEASURED:
            what = f"the first objective must be a metric, not {section.objectives[0]}"
            yield Finding(("search", "objectives"), what, "put the metric first: [accuracy, latency_ms]")
        if section.metric is not None and section.metric != section.objectives[0]:
            what = f"the first objective is {section.objectives[0]}, and metric says {section.metric}"
            yield Finding(("search", "metric"), what, "remove it", ("search.objectives",))
        measured = [name for name in section.objectives if name in MEASURED]
        workers = _workers(recipe)
        if measured and workers > 1:
            what = f"a trial of {workers} workers cannot measure {' and '.join(measured)}"
            yield Finding(("search", "objectives"), what, ONE_WORKER, WORKERS)
        if section.scheduler != "none":
            what = f"{section.scheduler} stops trials by one metric, and there are {len(section.objectives)} objectives"
            yield Finding(("search", "scheduler"), what, "set search.scheduler: none", ("search.objectives",))


def _workers(recipe: Recipe) -> int:
    """Of a trial; 1 where what is written is no number, which is told elsewhere."""
    found = recipe.search.trial_overrides.get("training.num_workers", recipe.training.num_workers)
    return found if isinstance(found, int) else 1


def _overrides(recipe: Recipe, known: set[str]) -> Iterator[Finding]:
    section = recipe.search
    for key, value in section.trial_overrides.items():
        place = ("search", "trial_overrides", key)
        if key not in known:
            yield Finding(place, f"a recipe has no key {key}", keys.suggest(Recipe, key)[0])
        elif (name := _fixed(key)) and not key.startswith("training."):
            yield Finding(place, f"{key} cannot be another for the trials: {FIXED[name]}", "remove it")
        elif key in section.space:
            yield Finding(place, f"{key} is searched too", "remove it here or from search.space")
        elif refused := [one for one in _mistakes(recipe, {key: value}) if _below(one.key, key)]:
            yield Finding(place, refused[0].what, refused[0].fix)


def _values(recipe: Recipe, dimensions: list[Dimension]) -> Iterator[Finding]:
    """One finding for each key that refuses a value of its range, tried with what its condition asks.

    So does a value that the rest of the recipe refuses, where no other searched key can mend that.
    """
    base = dict(recipe.search.trial_overrides)
    anyway = {(one.key, one.what) for values in ({}, base) for one in _mistakes(recipe, values)}

    def refused(tried: Mapping[str, Any]) -> list[Mistake]:
        values, absent = _with_conditional(tried, dimensions)
        absent += replaced(one.key for one in dimensions if one.key in values)
        return [one for one in _mistakes(recipe, values, absent) if (one.key, one.what) not in anyway]

    for one in dimensions:
        with_it = {**base, **{key: wanted[0] for key, wanted in _all_conditions(one, dimensions).items()}}
        others = {other.key for other in dimensions if other is not one}
        for value in one.ends():
            tried = {**with_it, one.key: value}
            found = [each for each in refused(tried) if not _mended(each, tried, dimensions, refused)]
            mine = [each for each in found if _below(each.key, one.key)]
            elsewhere = [each for each in found if not any(_below(each.key, key) for key in others)]
            if mine:
                unsaid = "" if one.when or "no effect" not in mine[0].what else "; or add when: {KEY: VALUE} for when it counts"
                yield Finding((*one.place, one.kind), f"{one.key}: {mine[0].what}", f"{mine[0].fix}{unsaid}")
            elif elsewhere:
                what = f"{one.key}: with {value}, {elsewhere[0].key}: {elsewhere[0].what}"
                yield Finding((*one.place, one.kind), what, elsewhere[0].fix)
            if mine or elsewhere:
                break


def _with_conditional(tried: Mapping[str, Any], dimensions: list[Dimension]) -> tuple[dict[str, Any], list[str]]:
    """The values with the first one of each key whose condition holds, and the keys whose condition does not."""
    values, absent = dict(tried), list[str]()
    for one in dimensions:
        if one.when and active(one, values):
            values.setdefault(one.key, one.ends()[0])
        elif one.when:
            absent.append(one.key)
    return values, absent


def _mended(
    mistake: Mistake,
    tried: Mapping[str, Any],
    dimensions: list[Dimension],
    refused: Callable[[Mapping[str, Any]], list[Mistake]],
) -> bool:
    """Whether a mistake is none with a value that another searched key takes; of what has no effect, with each of them.

    (For a key without effect there are conditions.)
    """
    known, _ = _with_conditional(tried, dimensions)
    enough = all if "no effect" in mistake.what else any
    return any(
        enough(mistake.key not in [one.key for one in refused({**tried, other.key: value})] for value in other.ends())
        for other in dimensions
        if other.key not in tried and active(other, known)
    )


def _all_conditions(one: Dimension, dimensions: list[Dimension]) -> Mapping[str, tuple[Any, ...]]:
    known = {other.key: other for other in dimensions}
    found: dict[str, tuple[Any, ...]] = {}
    for key, wanted in one.when.items():
        found |= {**_all_conditions(known[key], dimensions), key: wanted}
    return found


def _mistakes(recipe: Recipe, values: Mapping[str, Any], absent: Collection[str] = ()) -> Sequence[Mistake]:
    """What is wrong with the recipe with these values, and without the keys ``absent``."""
    from tunesmith.recipe.load import with_values

    try:
        with_values(recipe, values, without=("search", *absent), check_paths=False)
    except RecipeError as error:
        return error.mistakes
    return ()


def _below(key: str, parent: str) -> bool:
    """Whether a key is another, or something in it."""
    return key == parent or key.startswith((f"{parent}.", f"{parent}["))


def places(recipe: Recipe, given: Collection[str]) -> Iterator[Finding]:
    """The runs of a warm start are there, and so are searched models and data that lie on this machine."""
    import os

    for index, place in enumerate(recipe.search.warm_start):
        if not is_uri(place) and not os.path.isfile(os.path.join(os.path.expanduser(place), "manifest.json")):
            what = f"{place} is no run: there is no manifest.json in it"
            yield Finding(("search", "warm_start", index), what, "name the folder of a run, such as runs/NAME-…")
    for one in parse(recipe.search.space)[0]:
        find = model_problem if one.key.startswith("model.") else data_problem
        for index, value in enumerate(one.values if one.key in INPUTS else ()):
            for _, place in places_of(value):
                if problem := find(place, recipe.base_dir):
                    yield Finding((*one.place, one.kind, index), *problem)


def lower_is_better(name: str) -> bool:
    """Whether less of an objective is better."""
    return name in MEASURED or name in hf_names.LOWER_IS_BETTER


CHECKS = (search,)
