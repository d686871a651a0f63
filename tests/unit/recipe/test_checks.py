"""Values that contradict each other are refused, each with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.recipes import assert_says
from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["task=text-clasification"], "task", "did you mean text-classification?"),
        (["task=cooking"], "task", "write one of image-classification, text-classification, token-classification"),
        (["task=no_such_module.x:Task"], "task", "is not installed"),
        (["task=json:1"], "task", "package.module:Class"),
        (["data.columns={txt: review}"], "data.columns.txt", "did you mean text?"),
        (["data.columns={review: text}"], "data.columns.review", "the role comes first: text: review"),
        (["training={fp16: true, bf16: true}"], "training.fp16", "keep one"),
        (["training={fp16: true, use_gpu: false}"], "training.fp16", "GPUs only"),
        (["training={fsdp: true, use_gpu: false}"], "training.fsdp", "GPUs only"),
        (["training.eval_strategy=steps"], "training.eval_strategy", "add training.eval_steps"),
        (["training.eval_steps=5"], "training.eval_steps", "add training.eval_strategy: steps"),
        (["training={eval_strategy: no, lr_scheduler_type: greedy}"], "training.lr_scheduler_type", "stepped by evaluations"),
        (["training={eval_strategy: no, early_stopping_patience: 2}"], "training.early_stopping_patience", "needs evaluations"),
        (
            ["training={eval_strategy: no, load_best_model_at_end: true}"],
            "training.load_best_model_at_end",
            "eval_strategy is no",
        ),
        (["data.split.validation=0"], "data.split.validation", "no validation split to judge by"),
        (["training.max_steps=0"], "training.max_steps", "trains nothing"),
        (["training={warmup_ratio: 0.1, warmup_steps: 10}"], "training.warmup_ratio", "keep one"),
        (["training.lr_scheduler_type=cosin"], "training.lr_scheduler_type", "did you mean cosine?"),
        (["model.attn_implementation=flash"], "model.attn_implementation", "write one of sdpa, eager, flash_attention_2"),
        (["model.attn_implementation=flash_attn_2"], "model.attn_implementation", "did you mean flash_attention_2?"),
        (["training.lora.r=4"], "training.lora.r", "no effect while adaptation is full"),
        (["training={adaptation: lora, lora: {target_modules: [auto, q]}}"], "training.lora.target_modules", "alone"),
        (["training={adaptation: linear-probe, layerwise_lr_decay: 0.9}"], "training.layerwise_lr_decay", "the head alone"),
        (["training={adaptation: bitfit, fsdp: true}"], "training.adaptation", "whole replicas only"),
        (["training.layerwise_lr_decay=1.5"], "training.layerwise_lr_decay", "above 0 and at most 1"),
        (["training.layerwise_lr_decay=0"], "training.layerwise_lr_decay", "above 0 and at most 1"),
        (["training.adaptation=lorra"], "training.adaptation", "did you mean lora?"),
        (["training.unfreeze.groups_at_once=2"], "training.unfreeze.groups_at_once", "add training.unfreeze.every_epochs"),
        (["training.unfreeze={every_epochs: 1, every_steps: 10}"], "training.unfreeze.every_epochs", "keep one of"),
        (
            ["training={adaptation: linear-probe, unfreeze: {every_epochs: 1}}"],
            "training.unfreeze.every_epochs",
            "nothing is ever unfrozen",
        ),
        (["training={fsdp: true, unfreeze: {every_steps: 5}}"], "training.unfreeze.every_steps", "whole replicas only"),
        (
            ["training={num_train_epochs: 2, unfreeze: {every_epochs: 2}}"],
            "training.unfreeze.every_epochs",
            "ends after 2 epochs",
        ),
        (["training={max_steps: 9, unfreeze: {every_steps: 10}}"], "training.unfreeze.every_steps", "ends after 9 updates"),
        (["training.optim=adamW"], "training.optim", "did you mean AdamW?"),
        (["training.optim=LBFGS"], "training.optim", "several times per update"),
        (["training.optim=nonesuch"], "training.optim", "write one of adamw_torch_fused"),
        (["data.split={validation: 0.5, test: 0.5}"], "data.split.validation", "nothing to train on"),
        (["data.split.by=group"], "data.split.by", "add data.split.group"),
        (["data.split.by=time"], "data.split.by", "add data.split.time"),
        (["data.split={by: random, group: patient}"], "data.split.group", "no effect"),
        (["data.split={group: patient, time: day}"], "data.split.time", "data.split.group is set"),
        (["data.few_shot.seeds=3"], "data.few_shot.seeds", "nothing to draw"),
        (["data.few_shot.per_class=3", "data.max_train_samples=9"], "data.max_train_samples", "limited twice"),
        (["data.unlabelled.threshold=0.8"], "data.unlabelled.threshold", "there are no unlabelled rows"),
        (["data.unlabelled={data: none.csv}"], "data.unlabelled.data", "none.csv does not exist"),
        (["data.unlabelled={data: train.csv, threshold: 0}"], "data.unlabelled.threshold", "above 0 and at most 1"),
        (["task=token-classification", "data.unlabelled={data: train.csv}"], "data.unlabelled.data", "one class each"),
        (
            ["data.unlabelled={data: train.csv}", "data.split.validation=0", "training.eval_strategy=no"],
            "data.unlabelled.data",
            "decided on the validation split",
        ),
        (
            ["data.unlabelled={data: train.csv}", "data.train=[{name: a, path: train.csv}]"],
            "data.unlabelled.data",
            "belong to none of the named data sets",
        ),
        (["data.clean={near_duplicates: off, similarity: 0.9}"], "data.clean.similarity", "no effect"),
        (
            ["data.leakage=move", "data.split={validation: 0, test: 0}", "training.eval_strategy=no"],
            "data.leakage",
            "could leak",
        ),
        (["task=token-classification", "data.label_errors=drop"], "data.label_errors", "nothing would be dropped"),
        (["data.labels=[a, b, a]"], "data.labels[2]", "named twice"),
        (["training.output_dir=train.csv"], "training.output_dir", "is a file"),
    ],
)
def test_a_contradiction_is_refused(write: Write, overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(), overrides)
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert words in str(mistake)


@pytest.mark.parametrize(
    "overrides",
    [
        ["task=collections:Counter"],
        ["training={eval_strategy: steps, eval_steps: 5, early_stopping_patience: 2}"],
        ["training={eval_strategy: no}", "data.split.validation=0"],
        ["data.split={validation: 0.9, test: 0.9}", "data.validation=train.csv", "data.test=train.csv"],
        ["data.split.group=patient"],
        ["training={optim: RAdam, lr_scheduler_type: inverse_sqrt, warmup_steps: 10}"],
        ["training={num_train_epochs: 3, max_steps: 5}"],
        ["training={adaptation: lora, lora: {r: 4, target_modules: [query, value], merge: false}}"],
        ["training={adaptation: lora, lora: {target_modules: all-linear}, unfreeze: {every_epochs: 0.5}}"],
        ["training={unfreeze: {every_epochs: 1, groups_at_once: 2}, layerwise_lr_decay: 0.9}"],
        ["training={max_steps: 9, unfreeze: {every_epochs: 5}}"],
        ["model.attn_implementation=sdpa"],
        ["model.attn_implementation=kernels-community/flash-attn2@main:flash_attn_varlen_func"],
    ],
)
def test_what_agrees_is_taken(write: Write, overrides: list[str]) -> None:
    assert_says(Recipe.load(write(), overrides), overrides)


class TestData:
    """Local data must exist before anything expensive begins."""

    @pytest.mark.parametrize(
        ("train", "words"),
        [
            ("trian.csv", "→ correct the path; "),
            ("*.parquet", "'*.parquet' matches no file under"),
            ("stanfordnlp/imdb", "write hf://stanfordnlp/imdb"),
            ("nowhere/x.csv", "there is no "),
        ],
    )
    def test_a_missing_file_is_named_with_its_neighbours(self, write: Write, train: str, words: str) -> None:
        path = write(head=f"task: text-classification\nmodel: {{model_name_or_path: a/b}}\ndata:\n  train: '{train}'\n")
        with pytest.raises(RecipeError) as caught:
            Recipe.load(path)
        (mistake,) = caught.value.mistakes
        assert (mistake.key, mistake.line) == ("data.train", 4)
        assert words in str(mistake)

    def test_one_of_several_is_named_by_its_place(self, write: Write) -> None:
        with pytest.raises(RecipeError, match=r"recipe\.yaml:6: data\.test\[1\]"):
            Recipe.load(write("  test: [train.csv, gone.csv]\n"))

    def test_a_path_meant_from_the_working_directory_is_recognised(self, write: Write) -> None:
        path = write(
            head="task: text-classification\nmodel: {model_name_or_path: a/b}\ndata: {train: train.csv}\n", name="sub/r.yaml"
        )
        with pytest.raises(RecipeError, match=r"paths are relative to the recipe's file; .*train.csv exists"):
            Recipe.load(path)

    @pytest.mark.parametrize("train", ["*.csv", "tr[a]in.csv", "train.csv", ".", "s3://bucket/x.csv", "hf://owner/name"])
    def test_globs_folders_and_uris_are_taken(self, write: Write, train: str) -> None:
        wanted = train if "://" in train else str(Path(train).absolute())
        assert Recipe.load(write(), [f"data.train='{train}'"]).data.train == wanted

    def test_a_hub_id_needs_no_file(self, write: Write) -> None:
        recipe = Recipe.load(write(), ["data={train: owner/name, format: hub}"])
        assert recipe.resolved().data.train == "owner/name"

    def test_the_record_of_an_old_run_loads_without_its_data(self, write: Write) -> None:
        path = write("  test: gone.csv\n")
        with pytest.raises(RecipeError, match=r"gone\.csv"):
            Recipe.load(path)
        assert str(Recipe.load(path, check_paths=False).data.test).endswith("gone.csv")


class TestModel:
    """A local model folder must be one; anything else is a Hub id."""

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            ([], "does not exist"),
            (["model/readme.txt"], "holds no config.json, so it is no Hugging Face model"),
            (["model/best/config.json"], "write ./model/best, which does"),
            (["model/adapter_config.json"], "holds an adapter, not a model"),
        ],
    )
    def test_a_folder_without_config_is_refused(self, write: Write, tmp_path: Path, make: list[str], words: str) -> None:
        for name in make:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("{}")
        with pytest.raises(RecipeError) as caught:
            Recipe.load(
                write(head="task: text-classification\nmodel:\n  model_name_or_path: ./model\ndata: {train: train.csv}\n")
            )
        (mistake,) = caught.value.mistakes
        assert (mistake.key, mistake.line) == ("model.model_name_or_path", 3)
        assert words in str(mistake)

    def test_a_folder_with_config_is_taken_and_made_absolute(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model/config.json").write_text("{}")
        assert Recipe.load(write(), ["model.model_name_or_path=model"]).resolved().model.model_name_or_path == str(
            tmp_path / "model"
        )

    def test_a_folder_beside_a_remote_recipe_is_not_looked_for_here(self) -> None:
        values = {"task": "text-classification", "model": {"model_name_or_path": "./model"}, "data": {"train": "x.csv"}}
        resolved = Recipe.from_dict(values, base_dir="s3://bucket/project").resolved()
        assert resolved.model.model_name_or_path == "s3://bucket/project/model"
        assert resolved.data.train == "s3://bucket/project/x.csv"

    def test_a_file_is_no_model(self, write: Write) -> None:
        with pytest.raises(RecipeError, match="is a file, not a folder"):
            Recipe.load(write(), ["model.model_name_or_path=./train.csv"])

    @pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased", "s3://bucket/model"])
    def test_a_hub_id_or_uri_stays(self, write: Write, name: str) -> None:
        assert Recipe.load(write(), [f"model.model_name_or_path={name}"]).resolved().model.model_name_or_path == name
