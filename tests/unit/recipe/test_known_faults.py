"""The list of known faults is read before any row: its mistakes are told with their lines and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe
from tunesmith.recipe.known_faults import FAULTS, Fault, parse

pytestmark = pytest.mark.unit
Write = Callable[..., Path]


def test_lines_are_counted_and_cells_are_stripped() -> None:
    faults, flaws = parse("\ufefffault,of,row,split\n\nleak,, a/b.png ,test\nduplicate,9,10,train\n")
    assert flaws == []
    assert faults == [Fault(3, "test", "a/b.png", "leak"), Fault(4, "train", "10", "duplicate", "9")]


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_is_taken_in_the_splits_where_it_is_looked_for(kind: str) -> None:
    for split in ("train", "validation", "test"):
        faults, flaws = parse(f"split,row,fault\n{split},1,{kind}\n")
        assert (len(faults), len(flaws)) == ((1, 0) if split in FAULTS[kind] else (0, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("split,row\ntrain,1\n", "line 1: it has no column 'fault'"),
        ("", "it has no column 'split' and 'row' and 'fault'"),
        ("split,row,fault\n", "it names no row"),
        ("split,row,fault\ntrain,1,duplicat\n", "line 2: there is no fault 'duplicat' ⏎ → did you mean duplicate?"),
        ("split,row,fault\ntrain,1,zzz\n", "write one of duplicate, near-duplicate, conflict"),
        ("split,row,fault\ntrain,1,leak\n", "leak is looked for in validation or test, not in 'train'"),
        ("split,row,fault\ntrain,1,duplicate\ntest,4,mislabelled\n", "line 3: mislabelled is looked for in train"),
        ("split,row,fault\ntrain,,duplicate\n", "no row is named"),
        ("split,row,fault\ntest,3,leak\n", "data.test is not given"),
        ("split,row,fault\n" + "train,1,x\n" * 7, "; and 2 more"),
    ],
)
def test_a_mistake_is_told_with_its_line_before_anything_is_read(write: Write, text: str, words: str) -> None:
    path = write("  known_faults: faults.csv\n")
    Path("faults.csv").write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    (mistake,) = caught.value.mistakes
    assert (mistake.key, mistake.line) == ("data.known_faults", 6)
    assert all(part in str(mistake) for part in words.split(" ⏎ "))


def test_a_folder_may_bring_the_split_whose_rows_are_named(write: Write) -> None:
    path = write("  known_faults: faults.csv\n")
    Path("faults.csv").write_text("split,row,fault\ntest,3,leak\n")
    Path("whole").mkdir()
    assert Recipe.load(path, ["data.train=whole"]).data.known_faults == "faults.csv"
    with pytest.raises(RecipeError, match=r"data\.test is not given"):
        Recipe.load(path)


def test_a_missing_list_is_named_with_its_neighbours(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"data\.known_faults: .*fautls\.csv does not exist"):
        Recipe.load(write("  known_faults: fautls.csv\n"))


def test_a_list_that_is_no_text_is_refused(write: Write) -> None:
    path = write("  known_faults: faults.csv\n")
    Path("faults.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read as text"):
        Recipe.load(path)


def test_the_list_is_a_path_beside_the_recipe_also_where_the_data_is_on_the_hub(write: Write) -> None:
    Path("sub").mkdir()
    path = write("  known_faults: faults.csv\n  format: hub\n", name="sub/recipe.yaml")
    Path("sub/faults.csv").write_text("split,row,fault\ntrain,1,duplicate\n")
    recipe = Recipe.load(path, ["data.unlabelled.data=owner/more"])
    assert recipe.resolved().data.known_faults == str(Path("sub/faults.csv").absolute())
    assert recipe.resolved().data.unlabelled.data == "owner/more"
