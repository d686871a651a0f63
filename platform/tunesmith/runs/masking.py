"""Secrets are masked before a command or a place goes into a record that others read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MASK = "***"

_WORDS = r"token(?![a-z])|secret|passw(?:or)?d|passwd|credential|api[_\-]?key|access[_\-]?key|private[_\-]?key"
_NAME = rf"(?:[\w.\-]*(?:{_WORDS})[\w.\-]*)"
_ASSIGNED = re.compile(rf"(?i)(?P<name>(?<![\w.\-]){_NAME})(?P<sep>\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)")
_FLAG = re.compile(rf"(?i)^--?(?:{_NAME}|key)$")
# A password may hold slashes: AWS keys do.
_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][\w+.\-]*://)(?:[^/@\s]+|[^/@\s:]+:[^@\s]*)@")
# The shapes in which well-known services hand out their keys, and `tunesmith serve`: Hugging Face, OpenAI and kin, GitHub, AWS,
# Weights & Biases.
_SHAPES = r"tsk_[\w\-]{16,}|hf_[A-Za-z0-9]{16,}|sk-[\w\-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}|wandb_v\d_\w{16,}"
_KNOWN = re.compile(rf"\b(?:{_SHAPES})")
# Names and places are read again, and may look like a key (sk-sentiment-baseline): what is drawn at random has both of these.
_DRAWN = re.compile(rf"\b(?=[\w\-]*[A-Z])(?=[\w\-]*[0-9])(?:{_SHAPES})")


def masked(text: str) -> str:
    """The text without what looks like a secret.

    >>> masked("WANDB_API_KEY=abc123 s3://me:pw@bucket/x?secret_key=zzz&region=eu")
    'WANDB_API_KEY=*** s3://***@bucket/x?secret_key=***&region=eu'
    >>> masked("training.max_length=128 data.train=tokens.csv")
    'training.max_length=128 data.train=tokens.csv'
    """
    text = _USER_INFO.sub(rf"\g<scheme>{MASK}@", text)
    text = _KNOWN.sub(MASK, text)
    return _ASSIGNED.sub(rf"\g<name>\g<sep>{MASK}", text)


def masked_command(command: Sequence[str]) -> list[str]:
    """The words of a command; the word after ``--token`` and its like is masked too.

    >>> masked_command(["tunesmith", "train", "r.yaml", "--token", "abc"])
    ['tunesmith', 'train', 'r.yaml', '--token', '***']
    """
    words: list[str] = []
    hide = False
    for word in command:
        words.append(MASK if hide and not word.startswith("--") else masked(word))
        hide = bool(_FLAG.match(word))
    return words


def masked_values(value: Any) -> Any:
    """Plain data in which user names and passwords are taken out of every URI, and keys that were drawn at random.

    >>> masked_values(["sk-sentiment-classifier", "sk-proj-4fQ1zB7xK9sLm2Wd", "s3://me:pw@bucket/x"])
    ['sk-sentiment-classifier', '***', 's3://***@bucket/x']
    """
    if isinstance(value, str):
        return _DRAWN.sub(MASK, _USER_INFO.sub(rf"\g<scheme>{MASK}@", value))
    if isinstance(value, dict):
        return {key: masked_values(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(v) for v in value]
    return value
