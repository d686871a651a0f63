"""What other libraries make of a run that trained adapters on two workers: Transformers and peft load it as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.evaluation.predictor import Predictor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ASKED = ["word1 word40 word41 word52", "word3 word4 word5", "word31 word2"]


@pytest.mark.usefixtures("ray_local")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it by its old name
def test_adapters_of_a_run_answer_alike_in_transformers_in_peft_and_here(project: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    settings = ["training.adaptation=lora", "training.learning_rate=3e-2", "training.num_train_epochs=5"]
    run = tunesmith.train(str(project / "recipe.yaml"), settings)
    folder = Path(run.file("model"))
    merged = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert not any("lora" in name for name in merged.state_dict())
    base = AutoModelForSequenceClassification.from_pretrained(project / "base", num_labels=2)
    adapted = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    make: Any = AutoTokenizer.from_pretrained
    batch = make(folder)(ASKED, padding=True, return_tensors="pt")

    with torch.no_grad():
        logits = merged(**batch).logits
        torch.testing.assert_close(adapted(**batch).logits, logits, rtol=1e-4, atol=1e-5)
    texts = [{"text": text} for text in ASKED]
    here = torch.tensor([answer["probabilities"] for answer in Predictor.load(folder, device="cpu").predict(texts)])
    torch.testing.assert_close(logits.softmax(-1), here.to(logits.dtype), rtol=1e-4, atol=1e-4)
    assert run.manifest["trained"]["adaptation"] == "lora"
    assert (run.metrics["accuracy"] or 0) > 0.7
