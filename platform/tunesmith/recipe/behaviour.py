"""Behavioural tests as a YAML file says them (``evaluation.behaviour``), after CheckList (arXiv:2005.04118).

Pure data: what is wrong with a file is found without a model, each mistake with its line. See ``docs/testing-models.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from tunesmith.errors import nearest
from tunesmith.recipe import yaml_tree
from tunesmith.recipe.suite_names import TEXTS
from tunesmith.recipe.yaml_tree import Flaw, Keys, Tree

TYPES = {
    "minimum_functionality": ("expect",),
    "invariance": ("change",),
    "directional": ("change", "label", "direction"),
}
"""Type of a test → the keys that it needs beside its texts."""
ALLOWED = {**TYPES, "directional": (*TYPES["directional"], "tolerance")}
"""… and those that it may have."""
SHORT = {"mft": "minimum_functionality", "inv": "invariance", "dir": "directional"}
"""CheckList's abbreviations."""

SOURCES = ("template", "examples", "from")
CHANGES = ("vary", "replace", "append", "prepend", "perturb")
DIRECTIONS = ("up", "down", "not_up", "not_down")

Texts = Sequence[str | Mapping[str, str]]
"""Texts, or mappings from roles to texts where a task has several."""


@dataclass(frozen=True)
class BehaviourTest:
    """One test."""

    name: str
    type: str
    """``minimum_functionality``, ``invariance`` or ``directional``."""
    line: int | None
    """Where it stands in its file, from 1."""
    templates: Texts = ()
    examples: Texts = ()
    from_data: bool = False
    """Whether its texts are the examples that the model is judged on."""
    expect: Sequence[str] = ()
    """The labels of which one is right; of a task with any number of labels those that must all be given."""
    change: Mapping[str, Any] = field(default_factory=dict)
    """``vary``, ``replace``, ``append``, ``prepend`` or ``perturb`` with its value, and ``severity``."""
    label: str = ""
    """The label whose probability has a direction."""
    direction: str = ""
    tolerance: float = 0.0
    """By how much the probability may (``not_up``, ``not_down``) or must at least (``up``, ``down``) change."""
    max_cases: int = 200


@dataclass(frozen=True)
class Behaviour:
    """A file of tests."""

    lexicons: Mapping[str, Sequence[str]]
    tests: Sequence[BehaviourTest]


def parse(text: str) -> tuple[Behaviour, list[Flaw]]:
    """The tests of a file, and all that is wrong with it; a test with a mistake is left out.

    >>> found, flaws = parse('''
    ... lexicons: {good: [fine, great]}
    ... tests:
    ...   - {name: praise, type: minimum_functionality, template: "It is {god}.", expect: pos}
    ... ''')
    >>> flaws[0].line, flaws[0].what, flaws[0].fix
    (4, 'nothing fills the slot {god}', 'did you mean {good}?')
    """
    tree = yaml_tree.parse(text)
    flaws = [Flaw(one.keys, one.what.replace("recipe", "file"), _reworded(one.fix), one.line) for one in tree.flaws]
    values = tree.values
    lexicons, tests = values.get("lexicons") or {}, values.get("tests")
    for key in values:
        if key not in ("lexicons", "tests"):
            flaws.append(_flaw(tree, (key,), f"there is no key {key}", _meant(key, ("lexicons", "tests"))))
    if not _is_lexicons(lexicons):
        flaws.append(_flaw(tree, ("lexicons",), "lexicons are a mapping from names to lists of texts", "name: [Anna, Omar]"))
        lexicons = {}
    if not isinstance(tests, list) or not tests:
        if not flaws:
            flaws.append(_flaw(tree, ("tests",), "there is no list of tests", "write tests: and a list below it"))
        tests = []
    sound, names = [], set[str]()
    for index, one in enumerate(tests):
        found = list(_flaws_of(one, ("tests", index), lexicons, tree))
        name = _name(one) if isinstance(one, dict) else ""
        if not found and name in TYPES:
            fix = "name it by what it tests: measures of that name are those of all tests of the type"
            found = [_flaw(tree, ("tests", index, "name"), f"{name} is a type of test, and no name of one", fix)]
        if not found and name in names:
            found = [_flaw(tree, ("tests", index, "name"), f"two tests are called {name}", "give each a name of its own")]
        names.add(name)
        flaws += found
        if not found:
            sound.append(_test(one, tree.mark(("tests", index)).line))
    return Behaviour({name: [str(word) for word in words] for name, words in lexicons.items()}, sound), flaws


def slots(template: str) -> list[str]:
    """The names between braces; ``{{`` is a brace.

    >>> slots("{name} met {other} and {name}")
    ['name', 'other']
    """
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name is not None))


def parts(text: str | Mapping[str, str]) -> list[str]:
    """The texts of one example."""
    return [text] if isinstance(text, str) else list(text.values())


def listed(value: Any) -> list[Any]:
    """One value as a list of it, and a list as it is."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _name(one: Mapping[str, Any]) -> str:
    """The name of a test as its measures have it, where a slash would stand between levels."""
    return str(one.get("name")).replace("/", "-")


def _test(one: Mapping[str, Any], line: int | None) -> BehaviourTest:
    return BehaviourTest(
        name=_name(one),
        type=SHORT.get(str(one["type"]).lower(), str(one["type"])),
        line=line,
        templates=listed(one.get("template")),
        examples=listed(one.get("examples")),
        from_data=one.get("from") == "data",
        expect=[str(label) for label in listed(one.get("expect"))],
        change=dict(one.get("change") or {}),
        label=str(one.get("label", "")),
        direction=str(one.get("direction", "")),
        tolerance=float(one.get("tolerance", 0.0)),
        max_cases=int(one.get("max_cases", 200)),
    )


def _flaws_of(one: Any, at: Keys, lexicons: Mapping[str, Any], tree: Tree) -> Iterator[Flaw]:
    """Everything wrong with one test."""
    if not isinstance(one, dict):
        yield _flaw(tree, at, "a test is a mapping", "begin with - name: …")
        return
    type_ = SHORT.get(str(one.get("type", "")).lower(), one.get("type"))
    if type_ not in TYPES:
        found = f"there is no type of test {one['type']}" if "type" in one else "the test has no type"
        yield _flaw(tree, (*at, "type"), found, _meant(str(one.get("type", "")), TYPES))
        return
    for key in one:
        if key not in _KEYS or (key in _OWN and key not in ALLOWED[type_]):
            known = [name for name in _KEYS if name not in _OWN or name in ALLOWED[type_]]
            yield _flaw(tree, (*at, key), f"a test of {type_} has no key {key}", _meant(key, known))
    for key in ("name", *TYPES[type_]):
        if one.get(key) in (None, "", [], {}):
            yield _flaw(tree, (*at, key), f"a test of {type_} needs {key}", f"add {key}")
    given = [key for key in SOURCES if one.get(key) is not None]
    if len(given) != 1:
        found = f"it has {' and '.join(given)}" if given else "it has no texts"
        yield _flaw(tree, at, found, "give one of template, examples and from: data")
    for key, (fits, wanted) in _KEYS.items():
        if one.get(key) is not None and not fits(one[key]):
            yield _flaw(tree, (*at, key), f"found {one[key]!r:.60}", f"write {wanted}")
            return
    yield from _slot_flaws(one, at, lexicons, tree)
    if one.get("change") is not None:
        yield from _change_flaws(one, (*at, "change"), lexicons, tree)


def _slot_flaws(one: Mapping[str, Any], at: Keys, lexicons: Mapping[str, Any], tree: Tree) -> Iterator[Flaw]:
    """Every slot of a template is filled."""
    for template in listed(one.get("template")):
        for text in parts(template):
            try:
                names = slots(text)
            except ValueError as error:
                yield _flaw(tree, (*at, "template"), f"{text!r:.60} is no template: {error}", "write {{ for a brace")
                continue
            for name in names:
                if name not in lexicons:
                    near = nearest(name, lexicons)
                    fix = f"did you mean {{{near}}}?" if near else f"add {name}: [ … ] to lexicons"
                    yield _flaw(tree, (*at, "template"), f"nothing fills the slot {{{name}}}", fix)


def _change_flaws(one: Mapping[str, Any], at: Keys, lexicons: Mapping[str, Any], tree: Tree) -> Iterator[Flaw]:
    """A change is one, of a kind that there is."""
    change = one["change"]
    given = [key for key in change if key in CHANGES]
    for key in change:
        if key not in (*CHANGES, "severity"):
            yield _flaw(tree, (*at, key), f"there is no change {key}", _meant(key, CHANGES))
    if len(given) != 1:
        yield _flaw(tree, at, f"a change is one of {', '.join(CHANGES)}", "keep one, and write a test for each")
        return
    way, value = given[0], change[given[0]]
    if way == "vary" and not any(value in slots(text) for each in listed(one.get("template")) for text in parts(each)):
        yield _flaw(tree, (*at, way), f"no template has a slot {{{value}}} to vary", "name a slot of the test's template")
    elif way == "perturb" and value not in TEXTS and "." not in str(value):
        yield _flaw(tree, (*at, way), f"there is no perturbation {value}", _meant(str(value), TEXTS))
    elif way == "replace" and not (isinstance(value, dict) and value):
        yield _flaw(tree, (*at, way), f"found {value!r:.60}", "write a mapping: {old: new}")
    elif way in ("append", "prepend") and not _is_texts(value):
        yield _flaw(tree, (*at, way), f"found {value!r:.60}", "write a text, or a list of texts")
    if "severity" in change and change["severity"] not in range(1, 6):
        yield _flaw(tree, (*at, "severity"), f"found {change['severity']!r}", "write a whole number from 1 to 5")


def _is_texts(value: Any) -> bool:
    texts = listed(value)
    return bool(texts) and all(
        isinstance(one, str) or (isinstance(one, dict) and one and all(isinstance(part, str) for part in one.values()))
        for one in texts
    )


def _is_lexicons(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(words, list) and words for words in value.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str), "a text"),
    "type": (lambda value: isinstance(value, str), "one of " + ", ".join(TYPES)),
    "template": (_is_texts, "a text with {slots}, a list of such, or mappings from roles to texts"),
    "examples": (_is_texts, "a list of texts, or of mappings from roles to texts"),
    "from": (lambda value: value == "data", "data, for the examples that the model is judged on"),
    "expect": (lambda value: all(isinstance(one, str | int) for one in listed(value)), "a label, or a list of labels"),
    "change": (lambda value: isinstance(value, dict), "a mapping such as {append: TEXT}"),
    "label": (lambda value: isinstance(value, str | int), "a label"),
    "direction": (lambda value: value in DIRECTIONS, "one of " + ", ".join(DIRECTIONS)),
    "tolerance": (_is_number, "a number of at least 0"),
    "max_cases": (lambda value: isinstance(value, int) and value >= 1, "a whole number of at least 1"),
}
"""Key of a test → what it takes, and that in words."""
_OWN = ("expect", "change", "label", "direction", "tolerance")
"""Keys that only some types have."""


def _flaw(tree: Tree, keys: Keys, what: str, fix: str) -> Flaw:
    return Flaw(keys, what, fix, tree.mark(keys).line)


def _meant(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = nearest(name.lower().replace("-", "_").replace(" ", "_"), known)
    return f"did you mean {near}?" if near else f"write one of {', '.join(known)}"


def _reworded(fix: str) -> str:
    return fix.replace("write one with `tunesmith init TASK`", "write tests: and a list below it").replace(
        "begin with `task: …`", "begin with `tests:`"
    )
