"""A probe on cached outputs of the trunk equals one that runs the trunk in every update; where it cannot, it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.data import pictures, sentences, sounds, texts
from support.fits import Fitted, fitted, on_ranks, prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_resnet, tiny_tokenizer, tiny_vit, tiny_wav2vec2
from tunesmith.training import feature_cache
from tunesmith.training.feature_store import Store
from tunesmith.training.fit import FitContext, fit
from tunesmith.training.validation import REHEARSED, validate

pytestmark = pytest.mark.unit

SETTINGS: dict[str, Any] = {
    "adaptation": "linear-probe",
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
}


def bert_with_dropout(folder: Path) -> Path:
    return tiny_bert(folder, dropout=0.3, spread=0.2)


def distilbert(folder: Path) -> Path:
    import transformers

    config = transformers.DistilBertConfig(
        vocab_size=65, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=64, seq_classif_dropout=0.3
    )
    transformers.DistilBertModel(config).save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


CASES: dict[str, tuple[str, Callable[[Path], Path], Callable[[int], Any], str]] = {
    "bert": ("text-classification", bert_with_dropout, texts, "pooler_output"),
    "distilbert": ("text-classification", distilbert, texts, "last_hidden_state"),
    "words": ("token-classification", bert_with_dropout, sentences, "last_hidden_state"),
    "vit": ("image-classification", tiny_vit, pictures, "last_hidden_state"),
    "resnet": ("image-classification", tiny_resnet, pictures, "pooler_output"),
    "ctc": ("support.tasks_ctc:SpeechToText", tiny_wav2vec2, sounds, "last_hidden_state"),
}


def recipe_of(case: str, tmp_path: Path, name: str = "a", **settings: Any) -> tuple[Any, Any]:
    task, make, rows, _ = CASES[case]
    base = tmp_path / "base"
    if not base.exists():
        make(base)
    return recipe_for(task, base, tmp_path / name, **{**SETTINGS, **settings}), rows(64)


def uncached(monkeypatch: pytest.MonkeyPatch, recipe: Any, rows: Any) -> Fitted:
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "MOST_BYTES", -1)
        return fitted(FitContext(), recipe, rows)


@pytest.mark.parametrize("case", CASES)
def test_a_probe_on_cached_outputs_equals_an_uncached_one(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, rows = recipe_of(case, tmp_path)
    plain = uncached(monkeypatch, recipe, rows)
    spec, data = prepare_in_memory(recipe, rows)
    result = fit(spec, data, FitContext())
    (note,) = (event["message"] for event in result.history if event["kind"] == "note")
    assert note.startswith(f"Training the head on cached outputs ({CASES[case][3]}:"), note
    losses = [event["loss"] for event in result.history if event["kind"] == "step"]
    np.testing.assert_allclose(losses, plain[0], rtol=1e-4, atol=1e-4)
    for name, value in result.model.state_dict().items():
        np.testing.assert_allclose(value.numpy(), plain[1][name], rtol=1e-3, atol=1e-4, err_msg=name)
    torch.manual_seed(recipe.training.seed)
    fresh = spec.task.build_model(recipe, spec.preprocessing.state).state_dict()
    changed = {
        name.partition(".")[0] for name, value in result.model.state_dict().items() if not torch.equal(value, fresh[name])
    }
    assert changed <= {"classifier", "pre_classifier", "lm_head"}
    assert changed, "only the head learns, and it does"


@pytest.mark.parametrize(("case", "kept"), [("bert", 32), ("distilbert", 16), ("vit", 32)])
def test_only_what_the_head_reads_is_kept(case: str, kept: int, tmp_path: Path) -> None:
    recipe, rows = recipe_of(case, tmp_path)
    spec, data = prepare_in_memory(recipe, rows)
    result = fit(spec, data, FitContext(steps=1))
    (note,) = (event["message"] for event in result.history if event["kind"] == "note")
    assert data.validation is not None
    examples = len(data.train) + len(data.validation)
    assert note.endswith(f": {examples * kept * 4 / 1e6:,.1f} MB)"), "one position of the sequence"


@pytest.mark.parametrize("judged", [False, True])
def test_the_trunk_runs_once_for_each_example(judged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    never: dict[str, Any] = {"eval_strategy": "no", "load_best_model_at_end": False}
    recipe, rows = recipe_of("bert", tmp_path, num_train_epochs=5, **({} if judged else never))
    seen: list[int] = []
    forward = transformers.BertModel.forward

    def counting(self: Any, input_ids: Any = None, **named: Any) -> Any:
        seen.append(len(input_ids))
        return forward(self, input_ids, **named)

    monkeypatch.setattr(transformers.BertModel, "forward", counting)
    spec, data = prepare_in_memory(recipe, rows)
    result = fit(spec, data, FitContext())
    assert data.validation is not None
    assert sum(event["kind"] == "eval" for event in result.history) == 5 * judged
    held = len(data.validation) + REHEARSED if judged else 0
    assert sum(seen) == len(data.train) + held + 2 * feature_cache.TRIED, "to look what the head reads, and to compare"


@pytest.mark.parametrize("case", CASES)
def test_a_probe_is_judged_on_cached_outputs_as_on_the_trunk(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, rows = recipe_of(case, tmp_path)
    spec, data = prepare_in_memory(recipe, rows)
    result = fit(spec, data, FitContext())
    assert data.validation is not None
    told = [event for event in result.history if event["kind"] == "eval"]
    real = validate(spec, result.model, data.validation, FitContext())
    assert len(told) == 2
    for name, value in real.items():
        assert told[-1][name] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), name
    assert told[0]["loss"] != told[1]["loss"], "the head learned in between"


def cached_and_not(context: FitContext, recipe: Any, rows: Any) -> list[Fitted]:
    found = []
    for most in (feature_cache.MOST_BYTES, -1):
        kept, feature_cache.MOST_BYTES = feature_cache.MOST_BYTES, most
        found.append(fitted(FitContext(rank=context.rank, world_size=context.world_size), recipe, rows))
        feature_cache.MOST_BYTES = kept
    return found


def test_two_ranks_share_the_work_and_agree(tmp_path: Path) -> None:
    recipe, rows = recipe_of("words", tmp_path)
    (cached, plain), (other, _) = on_ranks(2, cached_and_not, recipe, rows)
    np.testing.assert_allclose(cached[0], plain[0], rtol=1e-4)
    for name, value in cached[1].items():
        np.testing.assert_array_equal(value, other[1][name], err_msg=name)
        np.testing.assert_allclose(value, plain[1][name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_outputs_that_take_too_much_memory_are_not_kept_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, rows = recipe_of("bert", tmp_path)
    monkeypatch.setattr(feature_cache, "MOST_BYTES", 1000)
    history = fit(*prepare_in_memory(recipe, rows), FitContext(steps=1)).history
    (note,) = (event["message"] for event in history if event["kind"] == "note")
    assert note.startswith("The trunk is run in every update of the probe, its outputs not cached: they take")


def test_where_both_splits_take_too_much_memory_the_training_split_alone_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, rows = recipe_of("bert", tmp_path)
    spec, data = prepare_in_memory(recipe, rows)
    whole = fit(spec, data, FitContext())
    monkeypatch.setattr(feature_cache, "MOST_BYTES", len(data.train) * 32 * 4)
    alone = fit(spec, data, FitContext())
    notes = [event["message"] for event in alone.history if event["kind"] == "note"]
    assert [one.partition(":")[0] for one in notes] == [
        "The trunk's outputs of the validation split are not cached",
        "Training the head on cached outputs (pooler_output",
    ]
    losses = [[event["loss"] for event in one.history if event["kind"] == "eval"] for one in (whole, alone)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_cache_whose_loss_differs_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, rows = recipe_of("bert", tmp_path)
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda self, indices, output: put(self, indices, output + 1))
    history = fit(*prepare_in_memory(recipe, rows), FitContext(steps=1)).history
    (note,) = (event["message"] for event in history if event["kind"] == "note")
    assert "the loss on them is" in note
