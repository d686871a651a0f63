"""Where a federated run stands, on disk after every round: a server that is killed goes on from the last one.

::

    state.json                  the round, the best one, the sites, one line for each round
    round-000007.safetensors    the model's tensors that travel (model/…) and the method's state (method/…)
    best.safetensors            those of the best round so far
    rounds.jsonl                one line for each site and round
    inbox.bin                   what has come in the round under way

There is no generator in it: who is drawn in a round follows from the seed and the round's number.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save

from tunesmith import storage

if TYPE_CHECKING:
    from tunesmith_federated.protocol import Tensors

STATE, BEST, ROWS, INBOX = "state.json", "best.safetensors", "rounds.jsonl", "inbox.bin"
_MODEL, _METHOD = "model/", "method/"

Row = dict[str, Any]


@dataclass
class Standing:
    """All that is said of a run in ``state.json``."""

    round: int = 0
    """Rounds that are done."""
    failed: int = 0
    """Rounds in a row that had too few sites."""
    labels: list[str] | None = None
    kinds: dict[str, bool] | None = None
    """Of the sites' rows (:data:`tunesmith_federated.enrolment.KINDS`); None where nobody was asked by this version."""
    sites: dict[str, dict[str, int]] = field(default_factory=dict)
    """What each site said that it has: ``train`` and ``holdout`` rows."""
    judged: dict[int, dict[str, float]] = field(default_factory=dict)
    """The metrics over all sites' held-back rows of the model after each round; 0 is the model that training began with."""
    judged_by: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What each judgement rests on: ``n`` rows, the ``area_error`` of ROC-AUC, and the metrics that are ``averaged``."""
    best: int | None = None
    """The round whose model is the best so far."""
    ended: bool = False
    """Whether the last model is judged too, so that nothing is left to be asked of the sites."""


class Book:
    """The folder of a federated run's state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.standing = _read(folder / STATE)
        self._cut()

    @property
    def begun(self) -> bool:
        """Whether there is a model to go on with."""
        return self._file(self.standing.round).exists() and (self.folder / STATE).exists()

    def tensors(self) -> tuple[Tensors, Tensors]:
        """The model after the last round, and the method's state."""
        both = load_file(self._file(self.standing.round))
        model = {name.removeprefix(_MODEL): value for name, value in both.items() if name.startswith(_MODEL)}
        return model, {name.removeprefix(_METHOD): value for name, value in both.items() if name.startswith(_METHOD)}

    def best(self) -> Tensors:
        """The model of the best round, or of the last where none was judged."""
        place = self.folder / BEST
        return load_file(place) if place.exists() else self.tensors()[0]

    def keep_best(self, number: int, model: Tensors) -> None:
        """This round's model is the best so far."""
        _write(self.folder / BEST, model)
        self.standing.best = number
        self.save()

    def turn(self, number: int, model: Tensors, method: Tensors, rows: list[Row]) -> None:
        """A round is done: its tensors, then its lines, then the word that it is done."""
        named = {f"{_MODEL}{name}": value for name, value in model.items()}
        _write(self._file(number), named | {f"{_METHOD}{name}": value for name, value in method.items()})
        self.add(rows)
        before = self.standing.round
        self.standing.round, self.standing.failed = number, 0
        self.save()
        if before != number:
            self._file(before).unlink(missing_ok=True)

    def end(self, rows: list[Row]) -> None:
        """The last model is judged: nothing more is asked of the sites."""
        self.standing.ended = True
        self.add(rows)
        self.save()

    def add(self, rows: list[Row]) -> None:
        """Lines of a round."""
        with (self.folder / ROWS).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[Row]:
        """All lines, in order."""
        place = self.folder / ROWS
        return [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()] if place.exists() else []

    def save(self) -> None:
        """Write the standing, in one piece."""
        storage.write_json(str(self.folder / STATE), asdict(self.standing))

    def _cut(self) -> None:
        """Drop lines of rounds that did not count in the end, and a line that was cut short."""
        place = self.folder / ROWS
        if not place.exists():
            return
        kept = []
        for line in place.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if row["round"] <= self.standing.round or self.standing.ended:
                kept.append(line)
        storage.write_text(str(place), "".join(f"{line}\n" for line in kept))

    def _file(self, number: int) -> Path:
        return self.folder / f"round-{number:06d}.safetensors"


def _read(place: Path) -> Standing:
    if not place.exists():
        return Standing()
    values = storage.read_json(str(place))
    for name in ("judged", "judged_by"):
        values[name] = {int(number): told for number, told in values.get(name, {}).items()}
    return Standing(**values)


def _write(place: Path, tensors: Tensors) -> None:
    storage.write_bytes(str(place), save({name: value.contiguous() for name, value in tensors.items()}))
