"""``target.yaml``: how a server that somebody else has built names what the task asks and answers.

::

    task: text-classification
    labels: [bad, good]                # the order of its probabilities, and what its numbers mean
    inputs:
      text: {name: TEXT}               # our role: their tensor
    outputs:
      label: {name: CLASS}
      probabilities: {name: SCORES, values: logits}
    rename: {LABEL_0: bad, LABEL_1: good}

Of a server of the OpenAI protocol ``chat:`` says how it is asked, instead of ``inputs``, ``outputs`` and ``rename``::

    labels: [bad, good]
    chat:
      model: a-model
      prompt: "Is this review good or bad? {text}"
      words: {bad: negative, good: positive}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from tunesmith.errors import DataError, Mistake, RecipeError, UserError, nearest
from tunesmith.recipe import yaml_tree
from tunesmith.recipe.base import Section
from tunesmith.recipe.explain import dotted, explain
from tunesmith.tasks.base import Signature, Task


class InputTensor(Section):
    """One input of the server."""

    name: str
    """The tensor's name there."""

    datatype: str = "BYTES"
    """Its datatype in the v2 protocol; texts, words and encoded images (base64) are ``BYTES``."""


class OutputTensor(Section):
    """One output of the server."""

    name: str
    """The tensor's name there."""

    values: Literal["as-is", "logits"] = "as-is"
    """``logits`` become probabilities: by softmax, of several labels by the sigmoid."""


class Chat(Section):
    """How a server of the OpenAI protocol is asked, and its answers are read."""

    model: str = ""
    """The model's name there, where the URL does not say it (``openai:URL#MODEL``); empty: the only one that it lists."""

    system: str = ""
    """The system's message, as it is; empty for none."""

    prompt: str = ""
    """The user's message, with the task's roles and ``{labels}`` in braces; ``{{`` is a brace. Empty: a plain question."""

    words: dict[str, str] = Field(default_factory=dict)
    """Label → the words that it is answered by; a label that is not named, by itself."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    """What else is in a request; null leaves out ``temperature`` (0 if not said) or ``max_tokens`` (16, or as many as the
    longest label can need)."""


class TargetFile(Section):
    """What a ``target.yaml`` says."""

    task: str | None = None
    """The task, as in a recipe; may be said with ``--task`` instead."""

    labels: list[str] = Field(default_factory=list)
    """The labels in the order of the server's probabilities, under the names that the data has; numbers mean places in it."""

    multi_label: bool = False
    """Whether any number of labels may hold."""

    inputs: dict[str, InputTensor] = Field(default_factory=dict)
    """Role of an example → the tensor that takes it; roles that are not named have tensors of their own name."""

    outputs: dict[str, OutputTensor] = Field(default_factory=dict)
    """What the task answers (``label``, ``probabilities``, ``tags`` …) → the tensor that tells it."""

    rename: dict[str, str] = Field(default_factory=dict)
    """The server's name of a label → the data's."""

    chat: Chat = Field(default_factory=Chat)
    """Of a server of the OpenAI protocol, which has no tensors."""


def read_target(path: str) -> TargetFile:
    """The file at ``path``. Raises :class:`RecipeError` with all its mistakes and their lines."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the target file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    tree = yaml_tree.parse(text)
    mistakes = [Mistake(dotted(flaw.keys) or "target", flaw.what, flaw.fix, path, flaw.line) for flaw in tree.flaws]
    try:
        found = TargetFile.model_validate(tree.values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        mistakes += [one.mistake for one in explain(TargetFile, details, tree, path)]
    if mistakes:
        raise TargetError(mistakes)
    return found


class TargetError(RecipeError):
    """One or more mistakes in a target file."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__(mistakes)
        self.args = (str(self).replace("in the recipe", "in the target file", 1),)


def check_roles(file: TargetFile, task: Task, signature: Signature, path: str = "target.yaml") -> None:
    """That it names roles and answers which the task has. Raises :class:`DataError` with the nearest."""
    roles = [role for role in task.columns if role != task.target]
    answers = [spec.name for spec in signature.outputs]
    for key, given, known in (("inputs", file.inputs, roles), ("outputs", file.outputs, answers)):
        for name in given:
            if name not in known:
                near = nearest(name, known)
                fix = f"Did you mean {near}?" if near else f"It has {', '.join(known)}."
                raise DataError(f"{path}: {key}.{name}: {task.name} has no {name!r}\n    → {fix}")
