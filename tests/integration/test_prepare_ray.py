"""Ray Data prepares exactly what one process prepares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.data.features import FeatureFile
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import PreparedData
from tunesmith.recipe import Recipe
from tunesmith.tasks import load_task

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray on this machine, unless another fixture has started it."""
    ray = pytest.importorskip("ray")
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    if started:
        ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real fast tokenizer and a BERT config."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertConfig, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        _texts(500), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    BertConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    return folder


def _texts(count: int) -> list[str]:
    rng = np.random.default_rng(3)
    words = ["the", "film", "was", "good", "bad", "long", "short", "actors", "play", "story"]
    return [" ".join(rng.choice(words, size=rng.integers(1, 30))) for _ in range(count)]


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9,000 rows, a few of them bad."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    lines = [f"{'' if i % 1000 == 7 else text},{i % 3},{i}" for i, text in enumerate(_texts(9000))]
    path.write_text("\n".join(["text,label,number", *lines]) + "\n")
    return path


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("named", [False, True], ids=["plain", "domains"])
def test_ray_data_makes_the_same_files_as_one_process(named: bool, tmp_path: Path, model: Path, csv: Path) -> None:
    train: Any = str(csv)
    if named:
        (tmp_path / "more.csv").write_text("text,label,number\n" + "".join(f"a film {i},{i % 3},{i}\n" for i in range(900)))
        train = [{"name": "reviews", "path": str(csv), "weight": 2}, {"name": "more", "path": str(tmp_path / "more.csv")}]
    values = {
        "task": "text-classification",
        "model": {"model_name_or_path": str(model)},
        "data": {"train": train, "max_length": 20, "on_bad_row": "quarantine"},
    }
    recipe = Recipe.from_dict(values, check_paths=False)
    made: dict[str, PreparedData] = {}
    for engine in ("local", "ray"):
        made[engine] = prepare(recipe, load_task(recipe.task), output_dir=str(tmp_path / engine), engine=engine)

    local, ray = made["local"], made["ray"]
    for changing in ("created", "durations"):
        del local.manifest[changing], ray.manifest[changing]
    assert ray.manifest == local.manifest
    assert local.manifest["problems"]["total"] == 9
    for name, split in local.splits.items():
        assert ray.splits[name].ids.equals(split.ids)
        assert ray.splits[name].rows().equals(split.rows())
        for file in ("features.arrow", "rows.arrow"):
            assert (ray.folder / name / file).read_bytes() == (local.folder / name / file).read_bytes()
    assert len(FeatureFile(ray.folder / "train" / "features.arrow")) == len(local.splits["train"])
