"""``training:``: how the model is fine-tuned. Names are those of ``transformers.TrainingArguments`` where one exists."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tunesmith.recipe.adaptation import LoraSection, UnfreezeSection
from tunesmith.recipe.base import Section
from tunesmith.recipe.forgetting import ReplaySection

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
    """The same as a number of updates; not together with ``warmup_ratio``."""

    label_smoothing_factor: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's mass spread evenly over all classes."""

    loss: str = "cross_entropy"
    """``cross_entropy``, ``focal`` (rare, hard examples), ``symmetric_cross_entropy`` (noisy labels), or the path of your own.
    That is ``package.module.Name`` of a function ``(logits, targets) -> losses`` (one for each example) or a class, installed
    on every worker, or in a file beside the recipe that all can read. Verdicts go by the plain log loss."""

    loss_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the loss: ``gamma`` of ``focal``; ``alpha``, ``beta`` and ``log_zero`` of ``symmetric_cross_entropy``;
    those of your own."""

    class_weights: Literal["none", "inverse", "effective"] | dict[str, float] = "none"
    """How much more a unit of a rare class counts in the loss: ``inverse`` to its number, by its ``effective`` number of
    examples (gentler), or ``{class: weight}`` with 1 for classes not named. Scaled to mean 1 over the training labels."""

    class_weights_args: dict[str, float] = Field(default_factory=dict)
    """``{beta: 0.999}`` of ``effective``: 0 weighs no class, towards 1 it becomes ``inverse``."""

    sampling: Literal["none", "balanced"] = "none"
    """``balanced`` draws as many examples of each class in every epoch, which stays as long as it is: rare ones come several
    times, common ones take turns over the epochs."""

    l2_sp: float = Field(default=0.0, ge=0)
    """Pull of every pre-trained parameter towards its value in the base: alpha of L2-SP (Li et al. 2018), whose penalty
    alpha/2 · ‖w - w₀‖² is added to each update's mean loss. 0.01 to 0.1 are usual; 0 is none."""

    l2_sp_head: float = Field(default=0.0, ge=0)
    """Pull of the fresh head towards zero: beta of L2-SP, beta/2 · ‖w‖². ``weight_decay`` works beside both."""

    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Judge and keep an exponential moving average of the weights, such as 0.999, instead of the last ones; early on the decay
    is at most (1 + updates) / (10 + updates). None keeps the weights themselves."""

    wise_ft: float | list[float] | None = None
    """Keep (1 - alpha) · base + alpha · fine-tuned in place of the fine-tuned model (WiSE-FT, Wortsman et al. 2022): a share
    such as 0.5, or a list of them to choose from on the validation split. A fresh head stays fine-tuned."""

    replay: ReplaySection = Field(default_factory=ReplaySection)
    """Old data that is mixed into the new."""

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
    """Compile the model with ``torch.compile``, which on a CPU takes minutes before the first update."""

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
    """Updates between two lines of ``metrics.jsonl``; the first and the last have one anyway."""

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

    @field_validator("class_weights", mode="before")
    @classmethod
    def _classes_are_texts(cls, value: Any) -> Any:
        """Nothing at all is ``none``; YAML takes classes such as 0 or true for numbers and truth values."""
        if isinstance(value, dict):
            value = {str(name).lower() if isinstance(name, bool) else str(name): weight for name, weight in value.items()}
        return "none" if value in (None, {}) else value
