"""What a trial is told: its recipe and a few plain values, as files in its folder, which any node of the cluster can read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.data.old import OldPlaces
from tunesmith.tuning.trials import JOB

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Job:
    """One trial, as its process sees it."""

    number: int
    folder: str
    """The trial's: recipe, events and checkpoints are in it."""
    prepared: str
    """Where its prepared data is."""
    base_dir: str = "."
    """The folder of the searched recipe: a loss of the user's own may lie beside it."""
    old: dict[str, Any] = field(default_factory=dict)
    """Where old data is, see :class:`OldPlaces`."""
    start: str | None = None
    """The checkpoint that it begins with where it has none of its own; None is the base model."""
    changed: bool = False
    """Whether its values are others than those that ``start`` was trained with."""
    part: int = 0
    """Which generation of ``parts`` this is; it ends with its last update."""
    parts: int = 1
    objectives: tuple[str, ...] = ()
    """What to measure in the end beside the metrics."""
    sharers: int = 1
    """Trials that share a node's cores."""

    def write(self, recipe: Recipe) -> None:
        """Put it, and its recipe, into its folder."""
        storage.write_text(storage.join(self.folder, RECIPE), recipe.to_yaml())
        storage.write_json(storage.join(self.folder, JOB), asdict(self))

    @classmethod
    def read(cls, folder: str) -> Job:
        """The job in a trial's folder."""
        told = storage.read_json(storage.join(folder, JOB))
        return cls(**{**told, "objectives": tuple(told["objectives"])})

    def recipe(self) -> Recipe:
        """The recipe that the trial follows."""
        from tunesmith.recipe import Recipe as RecipeClass
        from tunesmith.recipe import yaml_tree

        written = yaml_tree.parse(storage.read_text(storage.join(self.folder, RECIPE))).values
        return RecipeClass.from_dict(written, base_dir=self.base_dir, check_paths=False)

    def old_places(self) -> OldPlaces:
        """Where the data to replay and to watch is."""
        return OldPlaces.from_json(self.old)
