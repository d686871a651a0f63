"""Train one recipe over several seeds: how much of what comes out is chance in training, or in which rows were drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.errors import RunError
from tunesmith.verbs.compare_recipes import RESULT, RecipeComparison, Variant, place_of, seeded, train_all

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe


def repeat(
    recipe: Recipe,
    *,
    seeds: int,
    folder: str | None = None,
    on: str | None = None,
    force: bool = False,
    resume: bool = True,
) -> RecipeComparison:
    """Train one recipe over several seeds: what it comes to, with the interval over the seeds.

    Args:
        recipe: its ``training.seed`` is the first seed.
        seeds: how many.
        folder: where the runs go; finished ones in it are taken as they are, unfinished ones gone on with.
        on: the Ray cluster to join.
        force: train every run in ``folder`` again, also where it belongs to another recipe.
        resume: without ``folder``, go on with the newest unfinished repetition of this recipe; False begins a new one.

    Raises:
        RunError: ``folder`` is a single run.
        UserError: as raised by one of the trainings.
    """
    from tunesmith.runs.run import is_run
    from tunesmith.verbs import console

    variant = Variant(recipe.name, recipe)
    if folder is not None and is_run(folder):
        raise RunError(f"{folder} is a single run, and this recipe is trained over {seeds} seeds\n    → Name another folder")
    if folder is None and resume:
        folder = _unfinished(variant, seeds)
        if folder is not None:
            console.err().print(f"Going on with {folder}")
    return train_all([variant], seeds, folder, on, force)


def _unfinished(variant: Variant, seeds: int) -> str | None:
    """The newest folder in which this recipe was to be trained over these seeds, and not all of it was."""
    from tunesmith import storage
    from tunesmith.runs import Run

    recipe = variant.recipe.resolved()
    begin, first = f"compare-{recipe.name}-", recipe.training.seed
    for place in sorted(storage.list_dirs(recipe.training.output_dir), reverse=True):
        if not storage.name(place).startswith(begin):
            continue
        wanted = {place_of(place, variant, seed): seeded(variant, seed, first) for seed in range(first, first + seeds)}
        begun = [path for path in wanted if storage.exists(storage.join(path, "manifest.json"))]
        same = all(Run.open(path).manifest["recipe_fingerprint"] == wanted[path].resolved().fingerprint() for path in begun)
        if begun and same:
            return None if storage.exists(storage.join(place, RESULT)) else place
    return None
