"""The trials of a search on the connected cluster: what room there is for them, and running them to the end, in view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import ClusterError

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.tuning.ground import Ground
    from tunesmith.tuning.search import Search


@dataclass(frozen=True)
class Room:
    """What the cluster gives a search."""

    resources: dict[str, float]
    """Of each worker of a trial."""
    concurrent: int
    """Trials at the same time."""
    nodes: int


def find_room(recipe: Recipe, trial: Recipe) -> Room:
    """What there is for trials; ``trial`` is the recipe of one. Raises :class:`ClusterError` where not one fits."""
    from tunesmith.cluster.nodes import alive_nodes
    from tunesmith.cluster.preflight import capacity, detect_gpus, preflight
    from tunesmith.training.launch import demand

    resources = demand(trial, detect_gpus())
    workers = trial.training.num_workers
    try:
        preflight(workers, resources, storage=trial.training.output_dir)
    except ClusterError as error:
        raise ClusterError(f"{error}{_overridden(recipe)}") from None
    nodes = alive_nodes()
    fits = max(1, capacity(nodes, resources) // workers)
    return Room(resources, min(fits, recipe.search.max_concurrent_trials or fits), len(nodes))


def _overridden(recipe: Recipe) -> str:
    """That what a trial demands is said by ``search.trial_overrides``, where it is: there it has to be changed."""
    names = ("training.num_workers", "training.use_gpu", "training.resources_per_worker")
    there = [key for key in recipe.search.trial_overrides if key in names]
    return f"\n      ({' and '.join(there)} of a trial: in search.trial_overrides)" if there else ""


def run_trials(recipe: Recipe, run: Run, ground: Ground, room: Room) -> Search:
    """The search, run until it is over.

    Raises:
        UserError: all of its first trials failed, with the first reason, which the user can mend.
        TrainingFailed: the same for another reason, or Ray Tune failed.
    """
    from tunesmith.tuning.earlier import earlier_trials
    from tunesmith.tuning.engine import run_search
    from tunesmith.tuning.search import Search, Surroundings
    from tunesmith.tuning.view import TrialsView
    from tunesmith.verbs import console
    from tunesmith.verbs.search_words import plan, planned

    workers = ground.recipe.training.num_workers
    view = TrialsView(console.err(), ground.metric, ground.sign, planned(recipe))
    around = Surroundings(
        run.path,
        ground.places,
        view.show,
        sharers=math.ceil(room.concurrent / room.nodes),
        cost_rate=workers * room.resources.get("GPU", room.resources.get("CPU", 1.0)),
    )
    search = Search(recipe, around, earlier_trials(recipe, ground.space, ground.metric, ground.sign, view.say))
    alone = workers > 1 or recipe.search.max_concurrent_trials is not None
    with view:
        view.say(f"Searching {plan(recipe, room.concurrent)}")
        view.show(search.trials)
        run_search(
            search,
            room.resources,
            workers=workers,
            concurrent=room.concurrent if alone else None,
            on_recover=lambda number: view.say(f"The process of trial {number} died; it goes on from its last checkpoint"),
        )
    if search.failure is not None:
        raise search.failure
    return search
