"""A command's small local files travel with it; what cannot travel is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.cluster import packing
from tunesmith.cluster.packing import pack
from tunesmith.errors import ClusterError, RecipeError

RECIPE = """
task: text-classification
model: {model_name_or_path: google-bert/bert-base-uncased}
data: {train: ../data/*.csv}
training: {output_dir: s3://bucket/runs}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("text,label\na,b\n")
    (tmp_path / "data" / "b.csv").write_text("text,label\nc,d\n")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "recipes" / "notes.txt").write_text("not named by the recipe")
    monkeypatch.chdir(tmp_path / "recipes")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_lie_to_each_other_as_they_do_here(project: Path, tmp_path: Path) -> None:
    package = pack(["train", "recipe.yaml"], tmp_path / "out")
    assert names(package.folder) == ["data/a.csv", "data/b.csv", "recipes/recipe.yaml"]
    assert package.start_in == "recipes"
    assert package.arguments == ["train", "recipe.yaml"]


def test_a_recipe_named_absolutely_is_found_in_the_job(project: Path, tmp_path: Path) -> None:
    package = pack(["train", str(project / "recipes" / "recipe.yaml")], tmp_path / "out")
    assert package.arguments == ["train", "recipe.yaml"]


def test_an_override_replaces_the_file_that_travels(project: Path, tmp_path: Path) -> None:
    package = pack(["train", "recipe.yaml", "data.train=../data/a.csv"], tmp_path / "out")
    assert names(package.folder) == ["data/a.csv", "recipes/recipe.yaml"]


def test_absolute_inputs_and_uris_stay_where_they_are(project: Path, tmp_path: Path) -> None:
    (project / "big.csv").write_text("text,label\n")
    for source in (f"{project}/big.csv", "s3://bucket/x.csv"):
        package = pack(["train", "recipe.yaml", f"data.train={source}"], tmp_path / "out")
        assert names(package.folder) == ["recipe.yaml"]


def test_a_file_of_another_option_travels(project: Path, tmp_path: Path) -> None:
    (project / "recipes" / "test.csv").write_text("text,label\n")
    package = pack(["evaluate", "s3://bucket/runs/x", "--data=test.csv"], tmp_path / "out")
    assert names(package.folder) == ["test.csv"]


def test_too_much_data_is_sent_to_shared_storage(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LIMIT", 10)
    with pytest.raises(ClusterError, match=r"recipe\.yaml; at most .* travel with a job\n.*data\.train=s3://"):
        pack(["train", "recipe.yaml"], tmp_path / "out")


def test_a_run_that_would_be_lost_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"output_dir is runs.*\n.*output_dir=s3://"):
        pack(["train", "recipe.yaml", "training.output_dir=runs"], tmp_path / "out")
    pack(["validate", "recipe.yaml", "training.output_dir=runs"], tmp_path / "out")


def test_a_run_of_this_machine_is_refused(project: Path, tmp_path: Path) -> None:
    (project / "recipes" / "run").mkdir()
    (project / "recipes" / "run" / "manifest.json").write_text("{}")
    with pytest.raises(ClusterError, match="the run run is on this machine"):
        pack(["show", "run"], tmp_path / "out")


def test_a_wrong_recipe_is_not_sent(project: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="learning_rate"):
        pack(["train", "recipe.yaml", "training.lerning_rate=1"], tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["runs"], "--output-dir is runs"),
        (["runs", "--output-dir=mine"], "--output-dir is mine"),
        (["show", "latest"], "--output-dir is runs"),
        (["evaluate", "--data", "s3://bucket/x.csv", "reviews-2026"], "--output-dir is runs"),
        (["compare", "s3://bucket/runs/x", "latest"], "--output-dir is runs"),
        (["gate", "s3://bucket/runs/x", "--gate", "g.yaml", "--baseline=in-use"], "--output-dir is runs"),
        (["evaluate", "http://h:1/v2/models/x", "--like", "latest", "--out", "s3://b/o"], "--output-dir is runs"),
        (["gate", "/shared/runs/x", "--gate", "g.yaml", "--out", "gate"], "--out is gate"),
        (["reproduce", "s3://bucket/runs/x", "--into", "again"], "--into is again"),
        (["train", "recipe.yaml", "--run", "runs/x"], "--run is runs/x"),
        (["compare-recipes", "recipe.yaml", "--out=here"], "--out is here"),
    ],
)
def test_a_folder_of_runs_on_this_machine_is_refused(arguments: list[str], option: str, project: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=rf"^{option}, a folder of this machine.*\n    → {option.split()[0]} s3://"):
        pack(arguments, tmp_path / "out")


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "--output-dir", "/shared/runs"],
        ["show", "latest", "--output-dir=s3://bucket/runs"],
        ["evaluate", "--workers", "2", "/shared/runs/x"],
        ["reproduce", "--json", "s3://bucket/runs/x"],
        ["doctor"],
        ["compare", "--json", "/shared/runs/x", "s3://bucket/runs/y"],
        ["compare", "--pairs", "/shared/x.pairs.jsonl", "1", "2"],
        ["gate", "--evaluate", "/shared/runs/x", "evaluation.seed=3", "--baseline", "base"],
        ["gate", "s3://bucket/runs/x", "--example"],
        ["evaluate", "latest", "--output-dir", "s3://bucket/runs"],
        ["evaluate", "reviews-2026", "--output-dir=/shared/runs"],
        ["compare", "new", "old", "--output-dir", "s3://bucket/runs"],
        ["gate", "latest", "--gate", "s3://bucket/gate.yaml", "--output-dir", "s3://bucket/runs"],
    ],
)
def test_a_folder_that_the_cluster_may_see_is_not(arguments: list[str], project: Path, tmp_path: Path) -> None:
    assert pack(arguments, tmp_path / "out").arguments == arguments


def test_the_files_of_a_variant_travel(project: Path, tmp_path: Path) -> None:
    (project / "old").mkdir()
    (project / "old" / "o.csv").write_text("text,label\n")
    variant = "rehearsed: training.replay.data=../old/o.csv training.seed=3"
    package = pack(["compare-recipes", "recipe.yaml", "--variant", variant, "--out", "s3://b/c"], tmp_path / "out")
    assert names(package.folder) == ["data/a.csv", "data/b.csv", "old/o.csv", "recipes/recipe.yaml"]


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["gate", "s3://bucket/runs/x", "--gate", "gate.yaml"], "gate.yaml"),
        (["evaluate", "http://h:1/v2/models/x", "--target", "target.yaml", "--out", "s3://bucket/e"], "target.yaml"),
        (["compare", "a.parquet", "s3://bucket/runs/x", "--out", "s3://bucket/c"], "a.parquet"),
        (["compare", "--pairs", "x.pairs.jsonl", "--out", "s3://bucket/c"], "x.pairs.jsonl"),
    ],
)
def test_files_that_are_no_recipes_travel_as_they_are(arguments: list[str], file: str, project: Path, tmp_path: Path) -> None:
    (project / "recipes" / file).write_text("rules: []")
    package = pack(arguments, tmp_path / "out")
    assert names(package.folder) == [file]
    assert package.arguments == arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "a.parquet", "s3://bucket/runs/x"],
        ["gate", "http://h:1/v2/models/x", "--like", "s3://bucket/runs/x", "--gate", "gate.yaml"],
        ["evaluate", "http://h:1/v2/models/x", "--like", "s3://bucket/runs/x"],
    ],
)
def test_files_that_would_be_deleted_with_the_job_need_a_place(arguments: list[str], project: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "gate.yaml"):
        (project / "recipes" / name).write_text("rules: []")
    with pytest.raises(ClusterError, match=rf"without --out the files of {arguments[0]} would be in the job's own folder"):
        pack(arguments, tmp_path / "out")
