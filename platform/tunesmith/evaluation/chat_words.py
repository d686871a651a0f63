"""What a server of the OpenAI protocol is asked about an example, and which label its words are."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import DataError, UserError, nearest
from tunesmith.evaluation.target_file import Chat
from tunesmith.tasks.base import Answer, Example, State, Task
from tunesmith.tasks.classes import NO_LABEL, SAID

LABELS = "labels"
"""The placeholder of the words that are answers."""
QUESTION = "Classify the text. Answer with exactly one of these labels, and nothing else: {labels}"
FEW_TOKENS = 16
"""Of an answer, if not said; more where a label is longer: a token has at least one byte."""
MOST_KEPT = 200
"""Characters that are kept of an answer that names no label."""


@dataclass(frozen=True)
class Words:
    """How one task is asked and answered in words."""

    task: Task
    state: State
    chat: Chat
    labels: Mapping[str, str]
    """What is said, trimmed → the label."""

    @classmethod
    def of(cls, task: Task, state: State, chat: Chat) -> Words:
        """Raises :class:`UserError` where the task cannot be asked in words, or the prompt or the labels cannot be used."""
        _check_task(task, state)
        if chat.prompt:
            _check_prompt(chat.prompt, _roles(task))
        return cls(task, state, chat, _trimmed_labels(state[LABELS], chat.words))

    def messages(self, example: Example) -> list[dict[str, str]]:
        """The conversation about an example. Raises :class:`DataError` where it lacks a role that the prompt names."""
        given = {role: str(example[role]) for role in _roles(self.task) if example.get(role) is not None}
        prompt = self.chat.prompt or "\n".join([QUESTION + "\n", *(f"{role}: {{{role}}}" for role in given)])
        missing = next((name for name in _names(prompt) if name != LABELS and name not in given), None)
        if missing is not None:
            raise DataError(f"{missing} is missing, and chat.prompt names it")
        system = [{"role": "system", "content": self.chat.system}] if self.chat.system else []
        return [*system, {"role": "user", "content": prompt.format(**given, labels=", ".join(self._said()))}]

    def parameters(self) -> dict[str, Any]:
        """What else is in a request."""
        longest = max(len(word.encode()) for word in self._said())
        every = {"temperature": 0, "max_tokens": max(FEW_TOKENS, longest + 4), **self.chat.parameters}
        return {name: value for name, value in every.items() if value is not None}

    def answer(self, said: str) -> Answer:
        """The label that was said, without knowledge of how sure; :data:`NO_LABEL` for any other words."""
        label = self.labels.get(trimmed(said))
        shares = [1.0 if name == label else 0.0 for name in self.state[LABELS]]
        unknown = {SAID: said[:MOST_KEPT]} if label is None else {}
        return {"label": NO_LABEL if label is None else label, "probabilities": shares, **unknown}

    def _said(self) -> list[str]:
        return [self.chat.words.get(label, label) for label in self.state[LABELS]]


def trimmed(said: str) -> str:
    """Words by which answers are compared: without case, and without spaces, punctuation and signs at their ends.

    >>> trimmed(' "**Very Good**."\\n'), trimmed("not good")
    ('very good', 'not good')
    """
    words = " ".join(unicodedata.normalize("NFKC", said).split()).casefold()
    kept = [place for place, one in enumerate(words) if unicodedata.category(one)[0] not in "PSZC"]
    return words[kept[0] : kept[-1] + 1] if kept else ""


def _roles(task: Task) -> list[str]:
    return [role for role in task.columns if role != task.target]


def _check_task(task: Task, state: State) -> None:
    why = _unaskable(task, state)
    if why is not None:
        raise UserError(
            f"{task.name} cannot be asked behind the OpenAI protocol: {why}\n"
            "    → Texts of one class each can be; others are judged behind http://HOST:PORT/v2/models/NAME."
        )


def _unaskable(task: Task, state: State) -> str | None:
    other = next((role for role in _roles(task) if task.columns[role].kind != "text"), None)
    if other is not None:
        return f"{other} is no text"
    if task.columns[task.target].kind not in ("label", "labels"):
        return f"{task.target} is no class"
    return "any number of its labels may hold" if state.get("multi_label") else None


def _names(prompt: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None]


def _check_prompt(prompt: str, roles: Sequence[str]) -> None:
    """Raises :class:`DataError` for a prompt without a role, or with something else in braces."""
    known = [*roles, LABELS]
    try:
        parts = [part for part in string.Formatter().parse(prompt) if part[1] is not None]
    except ValueError as error:
        fix = "Write {{ and }} for braces that stand for themselves."
        raise DataError(f"target.yaml: chat.prompt: {error}\n    → {fix}") from error
    for _, name, spec, conversion in parts:
        if name not in known or spec or conversion:
            near = nearest(str(name), known)
            fix = f"Did you mean {{{near}}}?" if near else f"It can have {_listed(known)}; {{{{ is a brace."
            raise DataError(f"target.yaml: chat.prompt: there is no {{{name}}}\n    → {fix}")
    if not {name for _, name, _, _ in parts} & set(roles):
        raise DataError(
            "target.yaml: chat.prompt names no role, so that every sample would be asked about alike\n"
            f"    → Write {_listed(roles)} where it belongs."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _trimmed_labels(labels: Sequence[str], words: Mapping[str, str]) -> dict[str, str]:
    """What is said → the label. Raises :class:`DataError` where two cannot be told apart, or one cannot be said."""
    for label in words:
        if label not in labels:
            near = nearest(label, labels)
            fix = f"Did you mean {near}?" if near else f"They are {', '.join(labels)}."
            raise DataError(f"target.yaml: chat.words.{label}: this is none of the labels\n    → {fix}")
    found: dict[str, str] = {}
    for label in labels:
        said = words.get(label, label)
        key = trimmed(said)
        fix = f"Give it words of its own in target.yaml: chat: {{words: {{{label!r}: …}}}}."
        if not key:
            raise DataError(f"the label {label!r} is answered by {said!r}, of which nothing is left once trimmed\n    → {fix}")
        if key in found:
            raise DataError(
                f"the labels {found[key]!r} and {label!r} are both answered by {key!r}, without case and without spaces and "
                f"punctuation at the ends\n    → {fix}"
            )
        found[key] = label
    return found
