"""Data with faults planted in known places, and what data care makes of it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.data.care.treat import Treated, treat
from tunesmith.data.ingest import Ingested, ingest
from tunesmith.data.problems import Problems
from tunesmith.data.sources import resolve
from tunesmith.recipe.data import DataSection
from tunesmith.tasks import load_task

Row = dict[str, Any]


@dataclass
class Planted:
    """Rows to train on and to test on, and the places of the faults among them."""

    train: list[Row]
    test: list[Row]
    duplicates: set[int] = field(default_factory=set)
    """Copies of an earlier training row."""
    near: set[int] = field(default_factory=set)
    """Training rows that are nearly an earlier one."""
    conflicts: set[int] = field(default_factory=set)
    """Training rows whose input has several labels."""
    leaks: set[int] = field(default_factory=set)
    """Test rows whose input is a training row's."""
    near_leaks: set[int] = field(default_factory=set)
    """Test rows whose input is nearly a training row's."""


class Words:
    """Texts of several classes over made-up words; a quarter of a text's words tell its class."""

    def __init__(self, seed: int, classes: int = 4, vocabulary: int = 3000) -> None:
        self.rng = np.random.default_rng(seed)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        lengths = self.rng.integers(3, 10, vocabulary)
        drawn = letters[self.rng.integers(0, 26, int(lengths.sum()))]
        self.words = ["".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
        self.own = [self.rng.integers(0, vocabulary, 60) for _ in range(classes)]

    def row(self) -> Row:
        """A text of 18 to 40 words with its class."""
        label = int(self.rng.integers(len(self.own)))
        length = int(self.rng.integers(18, 41))
        telling = self.own[label][self.rng.integers(0, 60, length)]
        any_word = self.rng.integers(0, len(self.words), length)
        ids = np.where(self.rng.random(length) < 0.25, telling, any_word)
        return {"text": " ".join(self.words[k] for k in ids), "label": f"class {label}"}

    def nearly(self, row: Row, kind: int) -> Row:
        """The same row with a typing error, another word, other case and punctuation, or a word more."""
        words = row["text"].split()
        place = int(self.rng.integers(len(words)))
        if kind == 0:
            word = words[place]
            words[place] = word[1] + word[0] + word[2:] if word[0] != word[1] else word + "q"
        elif kind == 1:
            words[place] = self.words[self.rng.integers(len(self.words))]
        elif kind == 2:
            words = [word.capitalize() for word in words[:-1]] + [words[-1].upper() + "!"]
        else:
            words.insert(place, self.words[self.rng.integers(len(self.words))])
        return {**row, "text": " ".join(words)}


def planted_texts(count: int, faults: int, seed: int = 0) -> Planted:
    """``count`` clean training texts and a quarter as many test texts, with ``faults`` of each kind added in random places."""
    words = Words(seed)
    train = [words.row() for _ in range(count)]
    test = [words.row() for _ in range(count // 4)]
    picks = words.rng.permutation(count)[: 5 * faults].reshape(5, faults)

    def other(row: Row) -> Row:
        number = (int(row["label"].split()[1]) + 1) % len(words.own)
        return {**row, "label": f"class {number}"}

    copies = [
        {**train[k], "text": f" {train[k]['text'].replace(' ', '  ', 1)}" if k % 2 else train[k]["text"]} for k in picks[0]
    ]
    near = [words.nearly(train[k], number % 4) for number, k in enumerate(picks[1])]
    opposed = [other(train[k]) for k in picks[2]]
    leaks = [dict(train[k]) for k in picks[3]]
    near_leaks = [words.nearly(train[k], number % 4) for number, k in enumerate(picks[4])]
    return _mixed(train, test, copies, near, opposed, picks[2].tolist(), leaks, near_leaks, words.rng)


def planted_digits(faults: int, seed: int = 0) -> Planted:
    """scikit-learn's 1,797 digits as images of 32 pixels, three quarters to train on, with ``faults`` of each kind added."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    rows = [{"pixels": _enlarged(digits.images[k]), "label": str(digits.target[k])} for k in order]
    cut = 3 * len(rows) // 4
    train, test = rows[:cut], rows[cut:]
    picks = rng.permutation(cut)[: 5 * faults].reshape(5, faults)
    copies = [dict(train[k]) for k in picks[0]]
    near = [_altered(train[k], number % 4, rng) for number, k in enumerate(picks[1])]
    opposed = [{**train[k], "label": str((int(train[k]["label"]) + 1) % 10)} for k in picks[2]]
    leaks = [dict(train[k]) for k in picks[3]]
    near_leaks = [_altered(train[k], number % 4, rng) for number, k in enumerate(picks[4])]
    made = _mixed(train, test, copies, near, opposed, picks[2].tolist(), leaks, near_leaks, rng)
    for row in [*made.train, *made.test]:
        row["image"] = _encoded(row.pop("pixels"), row.pop("format", "png"))
    return made


def _mixed(
    train: list[Row],
    test: list[Row],
    copies: list[Row],
    near: list[Row],
    opposed: list[Row],
    opposed_to: list[int],
    leaks: list[Row],
    near_leaks: list[Row],
    rng: np.random.Generator,
) -> Planted:
    """Faults behind the clean rows they come from, both in random order; test rows shuffled."""
    first = rng.permutation(len(train))
    place = np.argsort(first)
    later = [("duplicate", row) for row in copies] + [("near", row) for row in near] + [("conflict", row) for row in opposed]
    later = [later[k] for k in rng.permutation(len(later))]
    made = Planted([dict(train[k]) for k in first] + [dict(row) for _, row in later], [])
    kinds = {"duplicate": made.duplicates, "near": made.near, "conflict": made.conflicts}
    for number, (kind, _) in enumerate(later, start=len(train)):
        kinds[kind].add(number)
    made.conflicts |= {int(place[k]) for k in opposed_to}
    rows = [("", row) for row in test] + [("leak", row) for row in leaks] + [("near leak", row) for row in near_leaks]
    for number, k in enumerate(rng.permutation(len(rows))):
        kind, row = rows[k]
        made.test.append(dict(row))
        {"": set(), "leak": made.leaks, "near leak": made.near_leaks}[kind].add(number)
    return made


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    small = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
    return np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))


def _altered(row: Row, kind: int, rng: np.random.Generator) -> Row:
    """Darker, with less contrast, with a little noise, or saved again with losses."""
    pixels = row["pixels"].astype(np.float64)
    if kind == 0:
        pixels = pixels * 0.7
    elif kind == 1:
        pixels = 40 + pixels * 0.6
    elif kind == 2:
        pixels = pixels + rng.normal(0, 6, pixels.shape)
    made = {**row, "pixels": pixels.clip(0, 255).astype(np.uint8)}
    return {**made, "format": "jpeg"} if kind == 3 else made


def _encoded(pixels: np.ndarray, form: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **({"quality": 60} if form == "jpeg" else {}))
    return stream.getvalue()


def read(rows: Mapping[str, Sequence[Row]], task: Any, folder: Path) -> dict[str, Ingested]:
    """The rows of each split as ingested data, through Parquet files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {}
    with Problems("error", folder / "quarantine.jsonl") as problems:
        for name, some in rows.items():
            file = folder / f"{name}.parquet"
            pq.write_table(pa.Table.from_pylist(list(some)), file)
            sources = resolve(str(file), "auto", str(folder), name)[name]
            given[name] = ingest(name, sources, task, {}, problems, folder / "rows" / name, lambda *_: None)
            problems.settle({name: len(some)})
    return given


def cared(rows: Mapping[str, Sequence[Row]], task_name: str, folder: Path, **data: Any) -> Treated:
    """What data care makes of the rows, with the keys ``data`` of a recipe's section."""
    task = load_task(task_name)
    return treat(DataSection(train="train.parquet", **data), task, read(rows, task, folder), folder / "moved")


def left_out(treated: Treated, name: str) -> set[int]:
    """The rows of a split that did not stay."""
    return set(range(treated.given[name].count)) - set(treated.kept[name].tolist())
