"""YAML as a recipe reads it: plain values, and for each of them the line it stands on.

The scalars are those of YAML 1.2's core schema, not PyYAML's 1.1: ``3e-5`` is a number, ``no`` is the word *no* and not
false, ``010`` is ten, ``12:30`` and ``2024-01-01`` are text. Keys are always text. A key that stands twice is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Keys = tuple[str | int, ...]
"""The way to a value: ``("data", "labels", 0)``."""

TAG = "tag:yaml.org,2002:"
_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer; it also quotes text that only YAML 1.2 would take for a number."""


for _name, _pattern, _first in _RESOLVERS:
    _regex = re.compile(f"^(?:{_pattern})$")
    _letters = ["" if letter == "\0" else letter for letter in _first]
    _Loader.add_implicit_resolver(TAG + _name, _regex, _letters)
    _Dumper.add_implicit_resolver(TAG + _name, _regex, _letters)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes the rarer line breaks bare, where reading folds them into spaces; in double quotes it escapes them.
    return dumper.represent_scalar(TAG + "str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


@dataclass(frozen=True)
class Mark:
    """Where a value was written, and how."""

    line: int | None
    """Line in the file, from 1; None on the command line."""
    text: str | None = None
    """A plain scalar as it was written (``010``); None for quoted text, lists and mappings."""
    source: str | None = None
    """``command line`` or ``override``; None for the file."""


@dataclass(frozen=True)
class Flaw:
    """Something that is wrong with the YAML itself."""

    keys: Keys
    what: str
    fix: str
    line: int | None


@dataclass
class Tree:
    """A recipe as it was written: nested plain values, and the mark of each."""

    values: dict[str, Any] = field(default_factory=dict)
    marks: dict[Keys, Mark] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)

    def mark(self, keys: Keys) -> Mark:
        """The mark of a value; of what an override wrote below it; or of the nearest thing around it."""
        if keys and keys not in self.marks:
            below = next((mark for marked, mark in self.marks.items() if marked[: len(keys)] == keys), None)
            if below is not None:
                return below
        while keys and keys not in self.marks:
            keys = keys[:-1]
        return self.marks.get(keys, Mark(None))


def parse(text: str) -> Tree:
    """The tree of a YAML document whose root is a mapping; whatever is wrong with it is in ``flaws``.

    >>> parse("training: {learning_rate: 3e-5, eval_strategy: no}").values
    {'training': {'learning_rate': 3e-05, 'eval_strategy': 'no'}}
    >>> parse("seed: 1\\nseed: 2").flaws[0].what
    'the key stands twice, first on line 1'
    """
    tree = Tree()
    root = _compose(text, tree)
    if root is None:
        if not tree.flaws:
            tree.flaws.append(Flaw((), "the recipe is empty", "write one with `tunesmith init TASK`", 1))
    elif not isinstance(root, yaml.MappingNode):
        tree.flaws.append(Flaw((), "the recipe is not a mapping of keys to values", "begin with `task: …`", _line(root)))
    else:
        tree.values = _Reader(tree).value(root, ())
    return tree


def parse_value(text: str) -> tuple[Any, Tree]:
    """A value as it stands behind ``key=`` on the command line, and a tree with the marks below it.

    >>> parse_value("3e-5")[0], parse_value("[a, no]")[0], parse_value("")[0]
    (3e-05, ['a', 'no'], None)
    """
    tree = Tree()
    root = _compose(text, tree)
    return (None if root is None else _Reader(tree).value(root, ())), tree


def dump(values: Mapping[str, Any]) -> str:
    """YAML that :func:`parse` and every YAML 1.1 reader read back to the same values.

    >>> print(dump({"a": "3e-5", "b": 3e-5, "c": "no"}), end="")
    a: '3e-5'
    b: 3.0e-05
    c: 'no'
    """
    return str(yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def _compose(text: str, tree: Tree) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except RecursionError:
        tree.flaws.append(Flaw((), "the brackets are nested too deeply", "a recipe needs a few levels only", 1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "it cannot be parsed"
        tree.flaws.append(Flaw((), f"this is not YAML: {problem}", _syntax_fix(problem), mark.line + 1 if mark else None))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"character {chr(error.character)!r} is not allowed in YAML"
        tree.flaws.append(Flaw((), what, "save the file as plain UTF-8 text", line))
    else:
        return node
    return None


def _syntax_fix(problem: str) -> str:
    if "\\t" in problem:
        return "indent with spaces, not with tabs"
    if "mapping values" in problem or "expected <block end>" in problem:
        return "check the indentation, and put text that contains a colon into quotes"
    if "another document" in problem or "<document start>" in problem:
        return "a recipe is one document: remove the `---` in its middle"
    return "check the quotes, brackets and indentation on this line and the one above"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Reader:
    """Turns nodes into values, and writes the marks and flaws into a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.open: set[int] = set()

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        if id(node) in self.open:
            self._flaw(keys, node, "the alias stands inside of what it names", "write the value out")
            return None
        self.tree.marks.setdefault(keys, Mark(_line(node), _plain(node)))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, keys)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, (*keys, index)) for index, child in enumerate(node.value)]
            return self._mapping(node, keys)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.Node, keys: Keys) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        inherited: dict[str, Any] = {}
        merges = [child for key_node, child in node.value if key_node.tag == TAG + "merge"]
        for merged in (mapping for child in merges for mapping in self._merged(child)):
            inherited = {**self._mapping(merged, keys), **inherited}
        for key_node, child in node.value:
            if key_node.tag == TAG + "merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._flaw(keys, key_node, "a key must be a plain word", "put it into quotes if it contains brackets")
                continue
            key = str(key_node.value)
            here = (*keys, key)
            if key in lines:
                self._flaw(here, key_node, f"the key stands twice, first on line {lines[key]}", "keep one of the two")
                continue
            lines[key] = _line(key_node)
            self.tree.marks[here] = Mark(_line(key_node), _plain(child))
            values[key] = self.value(child, here)
        return {**inherited, **values}

    def _merged(self, node: yaml.Node) -> Iterator[yaml.Node]:
        for child in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(child, yaml.MappingNode) and id(child) not in self.open:
                yield child
            else:
                self._flaw((), child, "`<<` takes a mapping, or a list of them", "name an anchor: `<<: *defaults`")

    def _scalar(self, node: yaml.ScalarNode, keys: Keys) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(TAG):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return _integer(text, lambda: self._flaw(keys, node, f"{text!r} is no whole number", "correct it"))
            case "float":
                return _float(text, lambda: self._flaw(keys, node, f"{text!r} is no number", "correct it"))
            case "str" | "merge":
                return text
            case tag:
                self._flaw(keys, node, f"the tag {tag!r} is not taken", "write the plain value")
                return text

    def _flaw(self, keys: Keys, node: yaml.Node, what: str, fix: str) -> None:
        self.tree.flaws.append(Flaw(keys, what, fix, _line(node)))


def _plain(node: yaml.Node) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) and node.style is None else None


def _integer(text: str, bad: Any) -> int | None:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
    try:
        return sign * int(digits[2:] if base != 10 else digits, base)
    except ValueError:
        bad()
        return None


def _float(text: str, bad: Any) -> float | None:
    word = text.lower().replace(".inf", "inf").replace(".nan", "nan")
    try:
        return float(word)
    except ValueError:
        bad()
        return None
