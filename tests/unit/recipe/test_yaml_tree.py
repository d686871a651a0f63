"""YAML is read as YAML 1.2 means it, with the line of every value."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.recipe.yaml_tree import dump, parse, parse_value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3e-5", 3e-5),
        ("1E6", 1e6),
        (".5", 0.5),
        ("-4", -4),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.inf", float("-inf")),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    found = parse(f"key: {written}").values["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_value_knows_its_line_and_its_text() -> None:
    tree = parse("a: 1\nb:\n  c: [x,\n    007]\n")
    assert tree.mark(("b", "c", 1)).line == 4
    assert tree.mark(("b", "c", 1)).text == "007"
    assert tree.mark(("b", "c")).line == 3
    assert tree.mark(("b", "nothing", "here")).line == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "with spaces, not with tabs"),
        ("a: b: c\n", 1, "colon into quotes"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("- a\n- b\n", 1, "not a mapping"),
        ("a: 1\nb: \x01\n", 2, "not allowed in YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "first on line 1"),
        ("a: &x [*x]\n", 1, "inside of what it names"),
        ("a: !!python/name:os.system x\n", 1, "is not taken"),
        ("? [a, b]\n: 1\n", 1, "a key must be a plain word"),
        ("a: !!int x\n", 1, "no whole number"),
        ("a: *nowhere\n", 1, "undefined alias"),
    ],
)
def test_flaws_say_what_and_where(text: str, line: int, words: str) -> None:
    (flaw,) = parse(text).flaws
    assert flaw.line == line
    assert words in f"{flaw.what} {flaw.fix}"


def test_merged_keys_give_way_to_written_ones() -> None:
    tree = parse("base: &base {a: 1, b: 2}\nmore:\n  b: 3\n  <<: *base\n")
    assert tree.values["more"] == {"a": 1, "b": 3}
    assert not tree.flaws
    assert tree.mark(("more", "b")).line == 3


def test_a_deeply_nested_document_is_a_flaw_and_not_a_crash() -> None:
    assert parse("a: " + "[" * 1000 + "]" * 1000).flaws


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(st.dictionaries(st.text(min_size=1), _VALUES, max_size=4).filter(bool))
def test_what_is_written_reads_back_here_and_in_yaml_1_1(values: dict[str, object]) -> None:
    text = dump(values)
    assert yaml.safe_load(text) == values
    tree = parse(text)
    assert not tree.flaws
    assert tree.values == values


@given(st.text(alphabet="0123456789eE+-._xo:~nN", min_size=1, max_size=8))
def test_text_that_looks_like_a_number_stays_text(text: str) -> None:
    assert parse(dump({"key": text})).values == {"key": text}


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_but_never_crashes(text: str) -> None:
    tree = parse(text)
    assert tree.flaws or isinstance(tree.values, dict)
    parse_value(text)
