"""Augmented training: decided by seed, epoch and index alone, on the training split alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.data import MemorySplit, pictures, sentences, texts
from support.fits import Fitted, fitted, fitted_each, on_ranks, prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_masked_lm, tiny_vit
from tunesmith.errors import ModelError, UserError
from tunesmith.recipe import Recipe
from tunesmith.tasks.augment import Augmentation
from tunesmith.tasks.base import Batch, Features
from tunesmith.tasks.losses import CrossEntropy
from tunesmith.training.augmentation import SHOWN, VARIANTS, batch_maker, samples
from tunesmith.training.batch_plan import with_copies
from tunesmith.training.checkpoint import Start
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit

pytestmark = pytest.mark.unit

PICTURES = [
    {"name": "rotation", "degrees": 20},
    {"name": "hflip"},
    {"name": "crop", "p": 0.7},
    {"name": "color_jitter"},
    {"name": "noise"},
    {"name": "mixup", "p": 0.4},
    {"name": "cutmix", "p": 0.5},
]
TEXTS = [{"name": "word_dropout", "rate": 0.3}, {"name": "word_swap"}, {"name": "typos"}]
WORDS = [{"name": "word_dropout", "rate": 0.3}, {"name": "typos", "rate": 0.3}]
CASES: dict[str, tuple[Callable[..., Path], Callable[[int], list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "image-classification": (tiny_vit, pictures, PICTURES),
    "text-classification": (tiny_bert, texts, TEXTS),
    "token-classification": (tiny_bert, sentences, WORDS),
}
SHARED: dict[str, Any] = {"learning_rate": 1e-3, "logging_steps": 1, "eval_strategy": "no", "load_best_model_at_end": False}


def recipe(task: str, folder: Path, operations: list[dict[str, Any]] | None = None, **training: Any) -> Recipe:
    base = folder / "base"
    made = recipe_for(task, base if base.exists() else CASES[task][0](base), folder, **{**SHARED, **training})
    return made.override(f"data.augment={CASES[task][2] if operations is None else operations}")


def prepared(task: str, folder: Path, operations: list[dict[str, Any]] | None = None, n: int = 40) -> tuple[FitSpec, FitData]:
    return prepare_in_memory(recipe(task, folder, operations), CASES[task][1](n))


def assert_equal(one: Batch, other: Batch, tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize("task", CASES)
def test_an_example_becomes_the_same_whatever_its_batch_but_not_in_another_epoch(task: str, tmp_path: Path) -> None:
    spec, data = prepared(task, tmp_path)
    seen = [
        spec.task.augmented(data.train, part, spec.preprocessing, Augmentation(spec.recipe.data.augment, 42, epoch))
        for epoch, part in ((0, range(20)), (0, [7, 3]), (1, range(20)))
    ]

    def shown(examples: Sequence[Any]) -> list[str]:
        return [str({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in one.items()}) for one in examples]

    together, apart, later = map(shown, seen)
    assert apart == [together[7], together[3]]
    assert sum(one != other for one, other in zip(together, later, strict=True)) > 10
    make = batch_maker(spec, data.train)
    assert_equal(make(3, [1, 2, 9]), batch_maker(spec, data.train)(3, [1, 2, 9]))


@pytest.mark.parametrize("task", CASES)
def test_without_a_chance_the_batch_is_the_plain_one(task: str, tmp_path: Path) -> None:
    spec, data = prepared(task, tmp_path, [{**operation, "p": 0} for operation in CASES[task][2]])
    plain = spec.task.collate(data.train.features(range(12)), spec.preprocessing)
    batch = batch_maker(spec, data.train)(0, list(range(12)))
    for name in ("mixed_labels", "mix_share"):
        mixed = batch.pop(name, None)
        assert mixed is None or torch.equal(mixed, torch.ones(12) if name == "mix_share" else batch["labels"])
    assert_equal(batch, plain, tolerance=1e-6)


def test_every_operation_on_images_changes_some_and_keeps_shape_and_type(tmp_path: Path) -> None:
    for name in CASES["image-classification"][2] + [{"name": "randaugment"}, {"name": "erasing"}, {"name": "blur"}]:
        spec, data = prepared("image-classification", tmp_path, [{**name, "p": 1}])
        plain = spec.task.collate(data.train.features(range(12)), spec.preprocessing)["pixel_values"]
        made = batch_maker(spec, data.train)(0, list(range(12)))["pixel_values"]
        assert made.shape == plain.shape
        assert made.dtype == plain.dtype
        assert (made - plain).abs().max() > 0.01, name


def test_joined_examples_bring_both_labels_and_the_share(tmp_path: Path) -> None:
    spec, data = prepared("image-classification", tmp_path, [{"name": "mixup", "alpha": 1.0}])
    batch = batch_maker(spec, data.train)(0, list(range(20)))
    plain = spec.task.collate(data.train.features(range(len(data.train))), spec.preprocessing)
    pixels = plain["pixel_values"]
    for row in range(20):
        share = batch["mix_share"][row]
        blends = share * pixels[row] + (1 - share) * pixels
        (partner,) = torch.nonzero((blends - batch["pixel_values"][row]).abs().amax((1, 2, 3)) < 1e-4).flatten().tolist()
        assert batch["mixed_labels"][row] == plain["labels"][partner]
        assert batch["labels"][row] == plain["labels"][row]


def test_the_loss_of_joined_examples_is_the_share_of_both(tmp_path: Path) -> None:
    spec, data = prepared("image-classification", tmp_path, [{"name": "cutmix"}])
    batch = batch_maker(spec, data.train)(0, list(range(8)))
    model = spec.task.build_model(spec.recipe, spec.preprocessing.state).eval()
    with torch.no_grad():
        loss, units = spec.task.loss(model, batch, CrossEntropy())
        chances = model(pixel_values=batch["pixel_values"]).logits.log_softmax(-1)
    own, other = (-chances[range(8), batch[name]] for name in ("labels", "mixed_labels"))
    wanted = (batch["mix_share"] * own + (1 - batch["mix_share"]) * other).sum()
    assert units == 8
    torch.testing.assert_close(loss, wanted)


def test_a_word_that_is_left_out_takes_its_tag_with_it(tmp_path: Path) -> None:
    spec, data = prepared("token-classification", tmp_path, [{"name": "word_dropout", "p": 1, "rate": 0.4}])
    rows = data.train.examples(range(len(data.train)))
    made = spec.task.augmented(data.train, range(len(rows)), spec.preprocessing, Augmentation(spec.recipe.data.augment, 1))
    left = sum(len(row["tokens"]) for row in made) / sum(len(row["tokens"]) for row in rows)
    assert left == pytest.approx(0.6, abs=0.12)
    for row in made:
        numbers = [int(word.removeprefix("word")) for word in row["tokens"]]
        assert row["tags"] == ["B-X" if k < 10 else "B-Y" if k < 20 else "O" for k in numbers]
    batch = batch_maker(spec, data.train)(0, [0, 1])
    assert (batch["labels"] >= 0).sum() == (batch["starts"] >= 0).sum()


def assert_same(one: Fitted, other: Fitted, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(one[0], other[0], atol=tolerance, rtol=0)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], atol=20 * tolerance, rtol=0, err_msg=name)


def test_accumulation_does_not_matter(tmp_path: Path) -> None:
    for task, (_, rows, _) in CASES.items():
        whole = recipe(task, tmp_path / task, per_device_train_batch_size=16, num_train_epochs=2)
        pieces = whole.override("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=4")
        assert_same(fitted(FitContext(), whole, rows(64)), fitted(FitContext(), pieces, rows(64)))


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    alone = [
        (recipe(task, tmp_path / task, per_device_train_batch_size=16, num_train_epochs=2), CASES[task][1](64))
        for task in CASES
    ]
    alone += [(one.override("training.sampling=balanced"), rows) for one, rows in alone]
    shared = [(one.override("training.per_device_train_batch_size=8"), rows) for one, rows in alone]
    first, _ = on_ranks(2, fitted_each, shared)
    for (one, rows), zero in zip(alone, first, strict=True):
        assert_same(fitted(FitContext(), one, rows), zero)


@pytest.mark.parametrize("task", CASES)
def test_copies_of_an_example_are_changed_each_in_its_own_way(task: str, tmp_path: Path) -> None:
    spec, data = prepared(task, tmp_path)
    make = batch_maker(spec, data.train)
    together = make(0, [7, 7, 3, 7], [0, 1, 0, 2])
    name = "pixel_values" if task == "image-classification" else "input_ids"
    shown = [tensor.tolist() for tensor in together[name]]
    assert len({str(one) for one in shown}) == 4
    alone = make(0, [7, 3], [2, 0])[name]
    width = min(alone.shape[-1], together[name].shape[-1])
    assert torch.equal(alone[..., :width], together[name][[3, 2]][..., :width]), "whatever the batch"


def test_every_draw_of_an_epoch_is_numbered_however_an_update_is_cut() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 6, 8) for _ in range(5)]
    whole = with_copies([[(update,)] for update in rows])
    shared = with_copies([[tuple(np.split(half, 2)) for half in np.split(update, 2)] for update in rows])
    drawn: Counter[int] = Counter()
    for update, cut in zip(whole, shared, strict=True):
        ((draws,),) = update
        for index, copy in zip(draws.indices.tolist(), draws.copies.tolist(), strict=True):
            assert copy == drawn[index]
            drawn[index] += 1
        pieces = [piece for rank in cut for piece in rank]
        assert np.concatenate([piece.copies for piece in pieces]).tolist() == draws.copies.tolist()
        assert np.concatenate([piece.indices for piece in pieces]).tolist() == draws.indices.tolist()


def test_training_feeds_each_copy_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe("text-classification", tmp_path, sampling="balanced", num_train_epochs=2, per_device_train_batch_size=8)
    rows = [row for row in texts(200) if row["label"] == "low"][:36] + [row for row in texts(200) if row["label"] == "high"][:4]
    spec, data = prepare_in_memory(one, rows[:28] + rows[36:] + rows[28:36], held_out=8)
    fed: list[tuple[int, int, int]] = []
    real = type(spec.task).augment

    def augment(self: Any, source: Any, indices: Any, preprocessing: Any, augmentation: Augmentation) -> Batch:
        fed.extend((augmentation.epoch, index, copy) for index, copy in zip(indices, augmentation.copies, strict=False))
        return real(self, source, indices, preprocessing, augmentation)

    monkeypatch.setattr(type(spec.task), "augment", augment)
    fit(spec, data, FitContext())
    assert len(fed) == len(set(fed)) == 2 * len(data.train), "no two draws of an epoch look alike"
    assert max(copy for _, index, copy in fed if index >= 28) >= 3, "four examples fill half of 32 draws"


def test_masked_words_are_the_same_on_two_ranks_and_after_a_resume(tmp_path: Path) -> None:
    proposed = [{"name": "mlm", "p": 1, "rate": 0.4, "model_name_or_path": str(tiny_masked_lm(tmp_path / "mlm"))}]
    one = recipe("text-classification", tmp_path, proposed, per_device_train_batch_size=16, num_train_epochs=2, save_steps=3)
    rows, kept = texts(64), tmp_path / "kept"
    alone = fitted(FitContext(), one, rows)
    first, _ = on_ranks(2, fitted, one.override("training.per_device_train_batch_size=8"), rows)
    assert_same(alone, first)

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        if folder is not None and metrics["step"] == 3:
            shutil.copytree(folder, kept)

    whole = fitted(FitContext(report=report), one, rows)
    assert_same((whole[0][3:], whole[1]), fitted(FitContext(start=Start(kept), report=lambda *_: None), one, rows), tolerance=0)
    plain = fitted(FitContext(), one.override("data.augment=[]"), rows)
    assert plain[0] != alone[0]


def test_samples_show_masked_words(tmp_path: Path) -> None:
    proposed = [{"name": "mlm", "p": 1, "rate": 0.9, "model_name_or_path": str(tiny_masked_lm(tmp_path / "mlm"))}]
    spec, data = prepared("text-classification", tmp_path, proposed)
    for one in samples(spec, data.train):
        assert all(variant["text"] != one["original"]["text"] for variant in one["variants"])


class Interrupted(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize("task", ["image-classification", "text-classification"])
def test_a_resumed_run_equals_an_uninterrupted_one(task: str, tmp_path: Path) -> None:
    rows = CASES[task][1](56)
    one = recipe(task, tmp_path, per_device_train_batch_size=8, num_train_epochs=3, save_steps=3)
    kept = tmp_path / "kept"

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        if metrics["step"] == 9:
            raise Interrupted
        if folder is not None:
            shutil.copytree(folder, kept, dirs_exist_ok=True)

    whole = fitted(FitContext(report=lambda *_: None), one, rows)
    with pytest.raises(Interrupted):
        fitted(FitContext(report=report), one, rows)
    resumed = fitted(FitContext(start=Start(kept), report=lambda *_: None), one, rows)
    assert len(resumed[0]) == len(whole[0]) - 6, "it goes on within epoch 2"
    assert_same((whole[0][6:], whole[1]), resumed, tolerance=0)


class Watched(MemorySplit):
    """Remembers what was asked for."""

    asked = 0

    def features(self, indices: Sequence[int]) -> list[Features]:
        self.asked += len(indices)
        return super().features(indices)


def test_validation_is_never_augmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe("image-classification", tmp_path, eval_strategy="epoch", num_train_epochs=2)
    spec, data = prepare_in_memory(one, pictures(48))
    held = Watched(spec.task, pictures(16, seed=5), spec.preprocessing)
    augmented: list[Any] = []
    real = type(spec.task).augment

    def augment(self: Any, source: Any, *rest: Any) -> Batch:
        augmented.append(source)
        return real(self, source, *rest)

    monkeypatch.setattr(type(spec.task), "augment", augment)
    fit(spec, FitData(data.train, held), FitContext())
    assert augmented
    assert all(source is data.train for source in augmented)
    assert held.asked >= 2 * 16


def test_what_a_task_cannot_do_is_said_before_training(tmp_path: Path) -> None:
    spec, data = prepared("text-classification", tmp_path)
    images = recipe("image-classification", tmp_path / "images")
    with pytest.raises(UserError, match="rotation does not fit the examples of text-classification"):
        batch_maker(FitSpec(images, spec.task, spec.preprocessing), data.train)

    class Plain:
        name = "my_tasks:Plain"

    with pytest.raises(UserError, match="the task my_tasks:Plain cannot augment"):
        batch_maker(FitSpec(images, Plain(), spec.preprocessing), data.train)  # type: ignore[arg-type]


def test_a_processor_that_hides_the_pixels_is_refused(tmp_path: Path) -> None:
    spec, data = prepared("image-classification", tmp_path)
    spec.preprocessing.state["pixels"] = "float32"  # type: ignore[index]
    with pytest.raises(ModelError, match="no plain pixels to change"):
        batch_maker(spec, data.train)


@pytest.mark.parametrize("task", CASES)
def test_samples_show_what_the_first_epochs_see(task: str, tmp_path: Path) -> None:
    spec, data = prepared(task, tmp_path)
    found = samples(spec, data.train)
    assert len(found) == SHOWN
    assert all(len(one["variants"]) == VARIANTS for one in found)
    for one in found:
        assert any(variant != one["original"] for variant in one["variants"])
        assert one["original"].keys() == {role for role in spec.task.columns if role != "text_pair"}
    if task == "image-classification":
        assert all(one["original"]["image"].startswith("data:image/png;base64,") for one in found)
