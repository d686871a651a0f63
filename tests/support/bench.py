"""A target whose answers are a rule over the example, and a bench around it: suites are judged by what they must find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.evaluation.suites.base import Bench
from tunesmith.evaluation.targets import Provided, Reply
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Answer, Example

Rule = Callable[[Example], str]


class Ruled:
    """A target (:class:`tunesmith.evaluation.targets.Target`) that says a label by a rule, and is 90 % sure of it.

    ``silent`` says of which examples it gives no answer.
    """

    provides: frozenset[Provided] = frozenset({"labels", "scores"})

    def __init__(
        self,
        rule: Rule,
        labels: Sequence[str],
        task: str = "text-classification",
        silent: Callable[[Example], bool] | None = None,
    ) -> None:
        self.name, self.rule, self.task = "ruled", rule, load_task(task)
        self.state: dict[str, Any] = {"labels": list(labels)}
        self.silent = silent
        self.asked = 0

    def answer(self, example: Example) -> Answer:
        label, labels = self.rule(example), self.state["labels"]
        rest = 0.1 / (len(labels) - 1)
        return {"label": label, "probabilities": [0.9 if one == label else rest for one in labels]}

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """The replies out of order, as a server's come."""
        for index, example in reversed(list(enumerate(examples))):
            self.asked += 1
            if self.silent is not None and self.silent(example):
                yield Reply(index, problem="no answer")
            else:
                yield Reply(index, self.answer(example))


class Rows:
    """The part of a split that suites use, over rows in memory."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.columns: dict[str, str] = {}
        self._rows = [dict(row) for row in rows]
        self.ids = pa.array([f"id-{k}" for k in range(len(self._rows))])
        self.lengths = np.asarray([len(str(next(iter(row.values()))).split()) for row in self._rows], dtype=np.int32)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> pa.Table:
        names = [name for name, value in self._rows[0].items() if not isinstance(value, np.ndarray)]
        return pa.Table.from_pylist([{name: row[name] for name in names} for row in self._rows])

    def example(self, index: int) -> dict[str, Any]:
        return self._rows[index]

    def examples(self, indices: Any = None) -> list[dict[str, Any]]:
        return [self._rows[int(k)] for k in (range(len(self)) if indices is None else indices)]


def bench(target: Ruled, rows: Sequence[Mapping[str, Any]], **settings: Any) -> Bench:
    """The rows judged by the target as they are, ready for a suite."""
    split: Any = Rows(rows)
    records = pa.Table.from_pylist([target.task.score(target.answer(row), row, target.state) for row in rows])
    section = EvaluationSection(**{"bootstrap_samples": 200, **settings})
    return Bench(target, split, records, section, headline="accuracy")
