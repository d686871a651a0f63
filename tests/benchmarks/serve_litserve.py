"""LitServe's side of ``bench_serve.py``: batches of up to 32 texts, a wait of 5 ms, tokenizer and model without the pipeline.

Without the pipeline, as LitServe's own examples have it: it is faster.
"""

from __future__ import annotations

from typing import Any

import litserve as ls
import torch


class Classifier(ls.LitAPI):  # type: ignore[misc]
    """The model in LitServe's worker."""

    folder: str
    threads: int

    def setup(self, device: str) -> None:
        """Load it."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(self.threads)
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(self.folder).eval()

    def decode_request(self, request: dict[str, str], **_: Any) -> str:
        """The text."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """The texts of a batch, as they are."""
        return inputs

    def predict(self, texts: list[str], **_: Any) -> list[tuple[int, float]]:
        """The best class of each, and its probability."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        tokens.pop("token_type_ids", None)
        with torch.inference_mode():
            best = self.model(**tokens).logits.softmax(-1).max(-1)
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    def unbatch(self, output: list[tuple[int, float]]) -> list[tuple[int, float]]:
        """They are apart already."""
        return output

    def encode_response(self, output: tuple[int, float], **_: Any) -> dict[str, Any]:
        """Label and score."""
        return {"label": self.model.config.id2label[output[0]], "score": output[1]}


def serve(model: str, port: int, threads: int) -> None:
    """Serve until killed."""
    api = Classifier(max_batch_size=32, batch_timeout=0.005)
    api.folder, api.threads = model, threads
    server = ls.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning")
