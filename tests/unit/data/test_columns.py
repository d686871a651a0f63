"""Columns find their roles, and messages say what is there."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.data.columns import match
from tunesmith.errors import DataError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("found", "said", "expected"),
    [
        (["text", "label"], {}, {"text": "text", "label": "label"}),
        (["Review", "Stars", "id"], {}, {"text": "Review", "label": "Stars"}),
        (["body", "label", "text"], {"text": "body"}, {"text": "body", "label": "label"}),
        (["text", "text_pair", "label"], {}, {"text": "text", "pair": "text_pair", "label": "label"}),
        (["a", "b"], {"label": "a", "text": "b"}, {"text": "b", "label": "a"}),
        (["label", "text"], {"text": "label", "label": "text"}, {"text": "label", "label": "text"}),
    ],
)
def test_roles_are_found(letters: Any, found: list[str], said: dict[str, str], expected: dict[str, str]) -> None:
    assert match(found, letters, said, "a.csv") == expected


@pytest.mark.parametrize(
    ("found", "said", "message"),
    [
        (["txt", "label"], {}, r"no column for the role 'text'.*its columns are 'txt', 'label'\n.*{text: txt}"),
        (["text", "x"], {}, "no column for the role 'label'"),
        (["text", "label"], {"text": "txt"}, r"a.csv has no column 'txt'\n.*Did you mean 'text'"),
        (["text", "label"], {"txet": "text"}, r"no role 'txet'\n.*Did you mean 'text'"),
        (["text", "label"], {"text": "text", "label": "text"}, "cannot be both 'text' and 'label'"),
    ],
)
def test_what_does_not_fit_is_refused(letters: Any, found: list[str], said: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        match(found, letters, said, "a.csv")


def test_the_target_may_be_absent_where_nothing_is_judged(letters: Any) -> None:
    assert match(["text"], letters, {}, "a.csv", need_target=False) == {"text": "text"}
