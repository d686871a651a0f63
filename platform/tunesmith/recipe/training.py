"""``training:``: how the model is fine-tuned. Names are those of ``transformers.TrainingArguments`` where one exists."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tunesmith.recipe.adaptation import LoraSection, UnfreezeSection
from tunesmith.recipe.base import Section

Tracker = Literal["mlflow", "tensorboard", "wandb"]


class TrainingSection(Section):
    """The optimisation, its cadence, and the workers it runs on."""

    output_dir: str = "runs"
    """Where run folders are made: a path (relative to the working directory) or a URI that every node reaches."""

    num_workers: int = Field(default=1, ge=1)
    """Data-parallel Ray Train workers."""

    use_gpu: bool | Literal["auto"] = "auto"
    """One GPU for each worker; ``auto`` takes them where the cluster has enough."""

    resources_per_worker: dict[str, float] = Field(default_factory=dict)
    """More that each worker demands from Ray, such as ``{CPU: 4, accelerator_type:A100: 0.01}``. One CPU if not said."""

    max_failures: int = Field(default=3, ge=-1)
    """How often training restarts from its last checkpoint when a worker or node dies; -1 is without limit."""

    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak learning rate."""

    num_train_epochs: float = Field(default=3.0, gt=0)
    """Passes over the training split; fractions are allowed."""

    max_steps: int = Field(default=-1, ge=-1)
    """Updates in all, instead of ``num_train_epochs``; -1 leaves it to the epochs."""

    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Examples a worker sees in one micro-batch, on average (see ``batching``)."""

    per_device_eval_batch_size: int | None = Field(default=None, ge=1)
    """Examples in a batch without gradients; None is twice the training batch."""

    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Micro-batches of each worker in one update."""

    batching: Literal["auto", "tokens", "fixed"] = "auto"
    """``tokens`` makes batches of similar length and equal token count, so that padding is a few per cent; ``fixed`` takes
    the same number of examples each time, in random order. ``auto`` is ``tokens`` where examples differ in length."""

    optim: str = "adamw_torch_fused"
    """``adamw_torch_fused``, ``adamw_torch``, ``adam``, ``sgd``, ``adafactor``, or any class of ``torch.optim`` by name."""

    optim_args: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the optimizer, such as ``{momentum: 0.9, nesterov: true}``."""

    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""

    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the second moment."""

    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay; biases and normalisation weights are spared."""

    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients of an update are scaled down to this global norm; 0 leaves them."""

    lr_scheduler_type: str = "linear"
    """Any schedule of ``transformers.get_scheduler``: ``linear``, ``cosine``, ``constant_with_warmup``, ``polynomial`` …"""

    lr_scheduler_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the schedule."""

    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the updates in which the learning rate rises from 0."""

    warmup_steps: int = Field(default=0, ge=0)
    """The same as a number of updates; wins over ``warmup_ratio`` where it is not 0."""

    label_smoothing_factor: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's mass spread evenly over all classes."""

    adaptation: Literal["full", "linear-probe", "bitfit", "lora"] = "full"
    """Which parameters are trained: ``full`` all of them; ``linear-probe`` the head alone, on the trunk's outputs, which are
    computed once; ``bitfit`` the biases and the head (Ben Zaken et al. 2021); ``lora`` low-rank adapters and the head."""

    lora: LoraSection = Field(default_factory=LoraSection)
    """The adapters, where ``adaptation`` is ``lora``."""

    unfreeze: UnfreezeSection = Field(default_factory=UnfreezeSection)
    """Gradual unfreezing from the head down."""

    layerwise_lr_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer group learns at this share of the rate of the group above it; the head has the full rate. 1 is one rate for
    all, 0.9 is usual for transformers."""

    bf16: bool | Literal["auto"] = "auto"
    """bfloat16 autocast; ``auto`` is on where the GPU supports it and off on a CPU."""

    fp16: bool = False
    """float16 autocast with loss scaling; GPUs only."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    torch_compile: bool = False
    """Compile the model with ``torch.compile``."""

    fsdp: bool = False
    """Shard parameters, gradients and optimizer state over the workers (FSDP2) instead of replicating them. GPUs only."""

    seed: int = 42
    """Seed of the head's initialisation, the order of examples and dropout."""

    eval_strategy: Literal["epoch", "steps", "no"] = "epoch"
    """When the validation split is judged; a checkpoint is saved each time."""

    eval_steps: int | None = Field(default=None, ge=1)
    """Updates between evaluations where ``eval_strategy`` is ``steps``."""

    save_steps: int | None = Field(default=None, ge=1)
    """Checkpoints between evaluations, every so many updates; None saves only where the validation split is judged."""

    save_total_limit: int = Field(default=2, ge=1)
    """Checkpoints kept: the best, and the latest ones."""

    logging_steps: int = Field(default=10, ge=1)
    """Updates between two lines of ``metrics.jsonl``."""

    metric_for_best_model: str | None = None
    """The metric that chooses the checkpoint; None is the task's own, ``loss`` is the validation loss."""

    greater_is_better: bool | None = None
    """Whether more of that metric is better; None knows it for the metrics of Tunesmith."""

    load_best_model_at_end: bool = True
    """Keep the best checkpoint as the run's model; False keeps the last."""

    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after so many evaluations without a better metric; None never stops early."""

    early_stopping_threshold: float = Field(default=0.0, ge=0)
    """How much better counts as better."""

    report_to: list[Tracker] = Field(default_factory=list)
    """Experiment trackers that get every metric."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _no_trackers(cls, value: Any) -> Any:
        """``none``, as Transformers has it, is no tracker at all."""
        return [] if value in ("none", ["none"], None) else value
