"""``serving:``: how the fine-tuned model answers when it is served."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.recipe.base import Section


class ServingSection(Section):
    """The service that ``tunesmith serve`` makes of a run. Nothing here changes an answer (a backend:
    no logit by more than 1e-4), so old runs can be served anew.
    """

    backend: Literal["torch", "openvino"] = "torch"
    """What computes the model's passes. ``openvino`` (Intel's, also fast on AMD's CPUs; ``pip install 'tunesmith[openvino]'``)
    translates the model when the service starts, in float32, and is refused where its logits differ from PyTorch's by more than
    1e-4. On CPUs alone, for tasks that are answered from the model's logits."""

    max_batch_size: int = Field(default=64, ge=1)
    """Most examples of one forward pass."""

    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of one forward pass, padding included, for inputs that differ in length. Null is what serves fastest: 512 on
    a CPU where texts are packed without padding, else 2,048; 16,384 on a GPU."""

    batch_wait_ms: float = Field(default=2.0, ge=0, le=1000)
    """Longest time, in milliseconds, that a request waits for others to share its batch. Only where the batch before had
    company: a lone client never waits."""

    max_queue: int = Field(default=256, ge=1)
    """Most requests for one model that are read, waiting or answered at a time; further ones get 429 and may come again."""

    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds in which a request is answered, or gets 504; its body has as many to come in, or gets 408. A caller may ask for
    less with ``X-Deadline-Seconds``."""

    max_body_mb: float = Field(default=32.0, gt=0)
    """Largest body of a request in MiB; larger ones get 413. Several models share one front door, which takes the largest."""

    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Largest image, width × height; a small file can unpack to gigabytes (a decompression bomb)."""

    num_replicas: int = Field(default=1, ge=1)
    """Copies of the model, each in a process of its own; the least number where there is ``max_replicas``."""

    max_replicas: int | None = Field(default=None, ge=1)
    """Scale up to so many copies while requests wait, as far as there is room; the CPUs' threads are shared out among them all.
    Null keeps ``num_replicas``."""

    num_cpus: float = Field(default=1.0, ge=0)
    """CPUs that a copy asks of the cluster."""

    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs (or a part of one) that a copy asks of the cluster."""

    drain_s: float = Field(default=15.0, ge=0)
    """Seconds that accepted requests have to finish when the service stops or a copy is replaced."""

    @property
    def most_replicas(self) -> int:
        """Copies that there may be at a time."""
        return max(self.num_replicas, self.max_replicas or 0)
