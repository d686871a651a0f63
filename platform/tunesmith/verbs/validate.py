"""Check a recipe; --resolved shows where each value comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.recipe.data import Sources


@click.command("validate")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--resolved", is_flag=True, help="Print every value, the derived ones too, with where it comes from.")
@on_option
def command(recipe: str, overrides: tuple[str, ...], resolved: bool, on: str | None) -> None:
    """Check RECIPE, with KEY=VALUE in place of what it says.

    Lists all mistakes at once, each with its line and what to write instead, and loads neither model nor data.
    """
    from tunesmith.recipe import Recipe

    found = Recipe.load(recipe, overrides).resolved()
    click.echo(annotated(found) if resolved else summary(found, recipe))


def summary(recipe: Recipe, file: str) -> str:
    """What the recipe says, in a few lines; ``recipe`` is resolved."""
    lines = [click.style("✓ ", fg="green") + click.style(f"{file} is sound", bold=True)]
    facts = {
        "name": recipe.name,
        "task": recipe.task,
        "model": recipe.model.model_name_or_path + (f" at {recipe.model.revision}" if recipe.model.revision != "main" else ""),
        "data": _data(recipe),
        "training": _training(recipe),
        "batches": _batches(recipe),
        "best by": _best(recipe),
        "runs in": recipe.training.output_dir,
    }
    if recipe.search.space:
        from tunesmith.verbs.search_words import plan, searched_keys

        facts |= {"search": plan(recipe), "over": searched_keys(recipe), "judged by": _judged_by(recipe)}
    lines += [f"  {click.style(f'{name:<9}', fg='cyan')} {text}" for name, text in facts.items()]
    return "\n".join(lines)


def annotated(recipe: Recipe) -> str:
    """The recipe as YAML, each value followed by where it comes from: it reads as a recipe, and each line can be grepped."""
    rows = list(_rows(recipe, "", recipe.provenance))
    width = min(max(len(text) for text, origin in rows if origin), 64)
    return "\n".join(f"{text:<{width}}  # {origin}" if origin else text for text, origin in rows)


def _rows(section: Any, prefix: str, provenance: dict[str, str]) -> Any:
    from tunesmith.recipe.base import Section
    from tunesmith.recipe.template import inline

    indent = "  " * prefix.count(".")
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield f"{indent}{name}:", ""
            yield from _rows(value, f"{prefix}{name}.", provenance)
        else:
            yield f"{indent}{name}: {inline(value)}", provenance[prefix + name]


def _data(recipe: Recipe) -> str:
    from tunesmith.recipe.paths import AT_SITES

    data, split = recipe.data, recipe.data.split
    if data.train == AT_SITES:
        return _at_sites(recipe)
    parts = [_train(data.train)]
    for name, given, share in (("validation", data.validation, split.validation), ("test", data.test, split.test)):
        if given is not None:
            parts.append(f"{name} given")
        elif share:
            parts.append(f"{share:.0%} for {name}")
        else:
            parts.append(f"no {name} split")
    return ", ".join(parts)


def _at_sites(recipe: Recipe) -> str:
    held = recipe.federation.holdout
    judged = f"{held:.0%} of them held back to judge by" if held else "none of them held back"
    own = ", and test rows here" if recipe.data.test is not None else ""
    return f"each site's own rows, {judged}{own} (for federate --superlink)"


def _train(given: Sources) -> str:
    """``a.csv and 1 more``, or the domains with the shares that their weights come to."""
    from tunesmith.recipe.data import domains_of, weights_of

    named, weights = domains_of(given), weights_of(given)
    if named:
        total = sum(weights.values()) if weights else 0
        shares = {one.name: f" {weights[one.name] / total:.0%}" if weights else "" for one in named}
        return "domains " + ", ".join(name + share for name, share in shares.items())
    places = [given] if isinstance(given, str) else given
    return str(places[0]) if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"


def _training(recipe: Recipe) -> str:
    training = recipe.training
    steps, epochs = training.max_steps, training.num_train_epochs
    long = f"{steps:,} update{'s' * (steps != 1)}" if steps > 0 else f"{epochs:g} epoch{'s' * (epochs != 1)}"
    workers = f"{training.num_workers} worker{'s' if training.num_workers > 1 else ''}"
    gpu = {True: "one GPU each", False: "on CPUs", "auto": "a GPU each where there are any"}[training.use_gpu]
    return f"{long}, learning rate {training.learning_rate:g} ({training.lr_scheduler_type}), {workers}, {gpu}"


def _batches(recipe: Recipe) -> str:
    training = recipe.training
    update = training.per_device_train_batch_size * training.num_workers * training.gradient_accumulation_steps
    factors = f"{training.per_device_train_batch_size} a worker"
    if training.gradient_accumulation_steps > 1:
        factors += f" × {training.gradient_accumulation_steps} accumulated"
    how = {"tokens": "by token budget", "fixed": "of fixed size", "auto": "as the task needs"}[training.batching]
    return f"{update} examples an update ({factors}), batches {how}"


def _best(recipe: Recipe) -> str:
    training = recipe.training
    if training.eval_strategy == "no":
        return "nothing: the last checkpoint is kept, the validation split is not judged in training"
    metric = training.metric_for_best_model or "the task's own metric"
    every = f"every {training.eval_steps} updates" if training.eval_strategy == "steps" else "every epoch"
    patience = training.early_stopping_patience
    stop = f", stops after {patience} without a better one" if patience else ""
    return (
        f"{metric}, judged {every}{stop}"
        if training.load_best_model_at_end
        else f"nothing: the last is kept; judged {every}{stop}"
    )


def _judged_by(recipe: Recipe) -> str:
    """What trials are compared by, and what becomes of the winner."""
    search = recipe.search
    metric = search.metric or recipe.training.metric_for_best_model or "the task's own metric"
    by = " and ".join(search.objectives) if search.objectives else metric
    kept = "its values are trained anew" if search.winner == "refit" else "its best checkpoint is kept"
    return f"{by} on the validation split; of the winner {kept}"
