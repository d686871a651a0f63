"""What a served model says of itself: its name, its task, its labels, and what it takes and gives in the v2 protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.tasks.base import Column, State, Task, TensorSpec

BYTES_KINDS = ("image", "audio")
"""Kinds of columns whose values travel as encoded bytes (base64 in JSON)."""


@dataclass(frozen=True)
class Description:
    """A served model, as plain data that goes from its process to the front door."""

    name: str
    version: str
    task: str
    pipeline: str
    """The ``transformers.pipeline`` task."""
    labels: tuple[str, ...]
    """Its classes or tags, in the order of its probabilities; empty where it has none."""
    columns: Mapping[str, str]
    """Roles of an example that it takes → their kind (``text``, ``image``, ``strings`` …); the first is what is asked."""
    required: tuple[str, ...]
    """Those of them that every example must have."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    padding_is_harmless: bool
    """Whether examples of different lengths may share a batch."""
    backend: str = "torch"
    """What computes its passes."""

    @property
    def first(self) -> str:
        """The role that a bare value is taken for."""
        return next(iter(self.columns))

    @property
    def input(self) -> str:
        """What the playground shows: ``text``, ``text-pair``, ``image``, or the kind of the first role."""
        kinds = list(self.columns.values())
        return "text-pair" if kinds[:2] == ["text", "text"] else kinds[0]


def describe(
    task: Task, state: State, name: str, version: str, *, padding_is_harmless: bool = True, backend: str = "torch"
) -> Description:
    """What this task says of a model with that state."""
    signature = task.signature(state)
    named = {spec.name for spec in signature.inputs}
    inputs = {
        role: column for role, column in task.columns.items() if role != task.target and (role in named or column.required)
    }
    return Description(
        name=name,
        version=version,
        task=task.name,
        pipeline=task.pipeline,
        labels=tuple(state.get("labels") or ()),
        columns={role: column.kind for role, column in inputs.items()},
        required=tuple(role for role, column in inputs.items() if column.required or role in named),
        inputs=_inputs(signature.inputs, task.columns),
        outputs=_outputs(signature.outputs),
        padding_is_harmless=padding_is_harmless,
        backend=backend,
    )


def _inputs(specs: tuple[TensorSpec, ...], columns: Mapping[str, Column]) -> tuple[TensorSpec, ...]:
    """Every input that carries a role of an example."""
    return tuple(spec for spec in specs if spec.name in columns)


def _outputs(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The outputs; where one is ragged and none tells how many values a row has, ``num_`` and its name does."""
    ragged = next((spec for spec in specs if -1 in spec.shape[1:]), None)
    if ragged is None or any(spec.name.startswith("num_") for spec in specs):
        return specs
    return (*specs, TensorSpec(f"num_{ragged.name}", "INT64", (-1,)))


def plain(description: Description) -> dict[str, Any]:
    """What ``GET /models`` says of one version of a model."""
    return {
        "task": description.task,
        "input": description.input,
        "inputs": dict(description.columns),
        "labels": list(description.labels),
        "backend": description.backend,
    }
