"""What a v2 server's tensors say, in the task's own terms: checked, renamed, in the order of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.errors import ServiceError
from tunesmith.evaluation import v2_wire
from tunesmith.evaluation.target_file import OutputTensor
from tunesmith.evaluation.targets import Provided
from tunesmith.evaluation.v2_wire import Misshapen
from tunesmith.tasks import classes
from tunesmith.tasks.base import Answer, State, Task, TensorSpec

SUMS_TO_ONE = 1e-2
"""How far the probabilities of one example may be from adding up to 1: float16 and four written decimals stay below."""
TIED = 1e-4
"""Probabilities that differ by less may be in either order."""

OF_CLASSES = ("label", "labels", "tags")
"""Kinds of a task's target that are names of classes."""


@dataclass(frozen=True)
class Reading:
    """How a server's outputs are read."""

    task: Task
    state: State
    outputs: Mapping[str, OutputTensor]
    """What the task answers → the server's tensor; without what the server does not tell."""
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def provides(self) -> frozenset[Provided]:
        """The answer, and where its tensors tell them the scores."""
        scored = {"probabilities", "scores"} & set(self.outputs)
        return frozenset({"labels", "scores"} if scored else {"labels"})

    def answers(self, given: Any, count: int) -> list[Answer]:
        """The answers of one response's ``outputs`` to ``count`` examples. Raises :class:`Misshapen`."""
        if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
            raise Misshapen("there are no outputs")
        named = {one.get("name"): one for one in given}
        lacking = [tensor.name for tensor in self.outputs.values() if tensor.name not in named]
        if lacking:
            raise Misshapen(f"there is no output {lacking[0]!r}, only {', '.join(map(str, named)) or 'none'}")
        columns = {role: v2_wire.rows(named[tensor.name], count) for role, tensor in self.outputs.items()}
        lengths = next((np.ravel(columns.pop(role)).tolist() for role in list(columns) if role.startswith("num_")), None)
        if lengths is not None and len(lengths) != count:
            raise Misshapen(f"it gives {len(lengths)} lengths for {count} examples")
        found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [self._answer(one, None if lengths is None else int(lengths[k])) for k, one in enumerate(found)]

    def _answer(self, given: Mapping[str, Any], length: int | None) -> Answer:
        answer: Answer = {}
        for spec in self.task.signature(self.state).outputs:
            if spec.name in given:
                answer[spec.name] = self._value(spec, given[spec.name], length)
        if "probabilities" in answer:
            answer["probabilities"] = self._probabilities(answer["probabilities"])
        return _consistent(answer, self.state) if self.state.get("labels") else answer

    def _value(self, spec: TensorSpec, value: Any, length: int | None) -> Any:
        """One value: names of classes as the data has them, numbers as a list, padding cut off."""
        ragged = -1 in spec.shape[1:]
        if len(spec.shape) == 1 and isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()  # a batch of single numbers is [n, 1] to Triton
        if spec.datatype == "BYTES":
            if not ragged:
                return self._name(value)
            row = [value] if isinstance(value, str) else list(value)  # rows of one text each come as the texts
            while length is None and row and row[-1] == "":
                row.pop()
            return [self._name(one) for one in (row if length is None else row[:length])]
        values = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if not np.isfinite(values).all():
            raise Misshapen(f"{spec.name} is {values[~np.isfinite(values)][0]}, which is no number")
        return (values[:length] if ragged and length is not None else values).tolist()

    def _name(self, value: Any) -> str:
        """A class by its name or its number. Raises :class:`Misshapen` for one that the labels lack."""
        labels: Sequence[str] = self.state.get("labels") or ()
        if self.task.columns[self.task.target].kind not in OF_CLASSES or not labels:
            return str(value)
        if isinstance(value, int | np.integer):
            if not 0 <= value < len(labels):
                raise Misshapen(f"it answers with the class {value}, and there are {len(labels)} labels, from 0")
            return labels[int(value)]
        name = self.rename.get(str(value), str(value))
        if name not in labels:
            shown = ", ".join(labels[:8]) + (" …" if len(labels) > 8 else "")
            raise Misshapen(f"it answers {name!r}, which is none of the {len(labels)} labels ({shown})", "rename")
        return name

    def _probabilities(self, row: list[float]) -> list[float]:
        values, labels = np.asarray(row), self.state["labels"]
        if len(values) != len(labels):
            raise Misshapen(f"it gives {len(values)} probabilities, and there are {len(labels)} labels", "labels")
        several = bool(self.state.get("multi_label"))
        if self.outputs["probabilities"].values == "logits":
            if several:
                return [float(one) for one in 1 / (1 + np.exp(-values))]
            powers = np.exp(values - values.max())
            return [float(one) for one in powers / powers.sum()]
        if values.min() < 0 or values.max() > 1 + SUMS_TO_ONE or (not several and abs(values.sum() - 1) > SUMS_TO_ONE):
            raise Misshapen(f"its probabilities are {np.round(values[:4], 3).tolist()} …, which are none", "logits")
        return row


def _consistent(answer: Answer, state: State) -> Answer:
    """The answer with what can be reckoned from the rest. Raises :class:`Misshapen` where label and probabilities disagree."""
    shares, labels = answer.get("probabilities"), state["labels"]
    if shares is None:
        if "label" in answer:
            answer["probabilities"] = [1.0 if name == answer["label"] else 0.0 for name in labels]
        elif "labels" in answer:
            answer["probabilities"] = [1.0 if name in answer["labels"] else 0.0 for name in labels]
        return answer
    if state.get("multi_label"):
        return {"labels": [name for name, share in zip(labels, shares, strict=True) if share >= classes.THRESHOLD], **answer}
    likeliest = max(range(len(labels)), key=shares.__getitem__)
    said = answer.get("label", labels[likeliest])
    if shares[likeliest] - shares[labels.index(said)] > TIED:
        raise Misshapen(f"it answers {said!r}, and its largest probability stands where {labels[likeliest]!r} does", "labels")
    return {**answer, "label": said}


FIXES = {
    "labels": "Write `labels:` in target.yaml, in the order of the server's probabilities.",
    "rename": "Write `rename: {THEIR NAME: OURS}` in target.yaml, or judge it with the labels that it was trained with.",
    "logits": "If they are logits, write `outputs: {probabilities: {name: …, values: logits}}` in target.yaml.",
}


def refused(url: str, error: Misshapen, sample: str) -> ServiceError:
    """The error of a user whose server answers like that."""
    what, *hint = error.args
    fix = FIXES[hint[0]] if hint else "Check the server, or map its tensors with --target target.yaml."
    return ServiceError(f"{url} answers what {sample} cannot be judged by: {what}\n    → {fix}")
