"""Names that people bring from elsewhere, and what Tunesmith says instead.

The fields of ``transformers.TrainingArguments`` (5.23, and those that older versions had) which ``training:`` does not take,
the arguments of Transformers' example scripts, and a few names from other trainers. A test holds the table to the real
dataclass: every field is either one of ours or stands here.
"""

from __future__ import annotations

_RAY_TRAIN = "leave it out: Ray Train starts the workers and connects them (training.num_workers, training.use_gpu)"
_DDP = "leave it out: every parameter takes part and gradients are synchronised once per update"
_LOADER = "leave it out: prepared data is memory-mapped, so that batches need no loader processes"
_HUB = "leave it out: the run's model/ is in Hugging Face format; upload it with `hf upload NAME RUN/model`"
_LOG_FILE = "leave it out: the libraries' messages go to train.log in the run's folder"
_STREAMED = "leave it out: evaluation streams its answers and never holds all logits"
_EXACT_RESUME = "leave it out: a run resumes exactly (optimizer, schedule, random numbers, place in the epoch)"
_ATTENTION = "leave it out: Transformers' own kernels are used; model.attn_implementation chooses the attention"
_COMPILE = "write training.torch_compile: true; backend and mode are PyTorch's defaults"
_FSDP = "write training.fsdp: true; it shards parameters, gradients and optimizer state (FSDP2)"
_TRACKERS = "choose trackers with training.report_to: mlflow, tensorboard or wandb"
_CHECKPOINTS = "checkpoints follow training.eval_strategy; training.save_steps adds more between them"
_COUNT = "leave it out: every example weighs the same in the loss, whatever batch or worker it falls in"
_MIXED = "write training.bf16: true or training.fp16: true"
_NO_ADAPTERS = "leave it out: the optimizer takes all parameters that need gradients"
_EVALUATED = "leave it out: during training the model is judged in training's precision, the verdict is in float32"
_SPEED = "leave it out: examples per second are logged anyway, of texts tokens per second too"
_VERB = "leave it out: `tunesmith train` trains and judges, `tunesmith evaluate RUN` judges again"

TRAINING_ARGUMENTS: dict[str, str] = {
    "optim_target_modules": _NO_ADAPTERS,
    "average_tokens_across_devices": _COUNT,
    "bf16_full_eval": _EVALUATED,
    "fp16_full_eval": _EVALUATED,
    "tf32": "write training.bf16: true, which is faster on the same GPUs",
    "activation_checkpointing": "write training.gradient_checkpointing: true",
    "activation_checkpointing_kwargs": "write training.gradient_checkpointing: true; it has no arguments",
    "gradient_checkpointing_kwargs": "write training.gradient_checkpointing: true; it has no arguments",
    "torch_compile_backend": _COMPILE,
    "torch_compile_mode": _COMPILE,
    "use_liger_kernel": _ATTENTION,
    "liger_kernel_config": _ATTENTION,
    "use_cache": "leave it out: the cache of past keys is off while training",
    "neftune_noise_alpha": "leave it out; training.label_smoothing_factor, model.dropout and training.weight_decay regularise",
    "torch_empty_cache_steps": "leave it out; if memory is short, halve training.per_device_train_batch_size",
    "auto_find_batch_size": "leave it out: when memory runs out, the message names the batch size that would fit",
    "logging_strategy": "write training.logging_steps",
    "logging_first_step": "leave it out: the first update is always logged",
    "log_on_each_node": _LOG_FILE,
    "logging_nan_inf_filter": "leave it out: a loss that is not finite is never hidden",
    "include_num_input_tokens_seen": _SPEED,
    "log_level": _LOG_FILE,
    "log_level_replica": _LOG_FILE,
    "disable_tqdm": "leave it out: the progress bar becomes plain lines where the output is no terminal",
    "run_name": "write name: at the top of the recipe",
    "project": "write name: at the top of the recipe; " + _TRACKERS,
    "trackio_space_id": _TRACKERS,
    "trackio_bucket_id": _TRACKERS,
    "trackio_static_space_id": _TRACKERS,
    "eval_delay": "leave it out; training.eval_steps sets how often the validation split is judged",
    "prediction_loss_only": _STREAMED,
    "eval_on_start": "leave it out: evaluation.baseline judges the model as it was before training",
    "eval_do_concat_batches": _STREAMED,
    "eval_use_gather_object": _STREAMED,
    "eval_accumulation_steps": _STREAMED,
    "include_for_metrics": _STREAMED,
    "batch_eval_metrics": _STREAMED,
    "save_only_model": "leave it out: checkpoints hold all that an exact resume needs, the run's model/ only the model",
    "save_strategy": _CHECKPOINTS,
    "save_on_each_node": "leave it out: checkpoints go to training.output_dir, which every node reaches",
    "enable_jit_checkpoint": "leave it out: a run that is interrupted can be resumed from its last checkpoint",
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "ignore_data_skip": _EXACT_RESUME,
    "restore_callback_states_from_checkpoint": _EXACT_RESUME,
    "full_determinism": "leave it out: training.seed fixes the order of examples, the head and dropout",
    "data_seed": "write training.seed for the order of examples, data.split.seed for the split",
    "use_cpu": "write training.use_gpu: false",
    "accelerator_config": _RAY_TRAIN,
    "parallelism_config": "write training.num_workers for data parallelism, training.fsdp: true to shard the model",
    "dataloader_drop_last": "leave it out: every example is used, and weighs the same",
    "dataloader_num_workers": _LOADER,
    "dataloader_pin_memory": _LOADER,
    "dataloader_persistent_workers": _LOADER,
    "dataloader_prefetch_factor": _LOADER,
    "dataloader_multiprocessing_context": _LOADER,
    "dataloader_in_order": _LOADER,
    "remove_unused_columns": "leave it out: the task takes the columns it needs (data.columns); the others can be slices",
    "label_names": "write data.columns, such as {label: stars}",
    "train_sampling_strategy": "write training.batching: tokens, which makes batches of similar length",
    "length_column_name": "leave it out: lengths are counted when the data is prepared",
    "ddp_find_unused_parameters": _DDP,
    "ddp_bucket_cap_mb": _DDP,
    "ddp_broadcast_buffers": _DDP,
    "ddp_static_graph": _DDP,
    "ddp_backend": "leave it out: NCCL on GPUs, gloo on CPUs",
    "ddp_timeout": _RAY_TRAIN,
    "fsdp_config": _FSDP,
    "deepspeed": _FSDP,
    "debug": "leave it out: `tunesmith --debug` shows tracebacks, train.log has the workers' messages",
    "skip_memory_metrics": "leave it out: peak memory is logged anyway",
    "do_train": _VERB,
    "do_eval": _VERB,
    "do_predict": _VERB,
    "resume_from_checkpoint": "leave it out: `tunesmith train` on the same run resumes it",
    "local_rank": _RAY_TRAIN,
}
"""Fields of ``TrainingArguments`` that ``training:`` does not take → what to do instead."""

FORMER_ARGUMENTS: dict[str, str] = {
    "evaluation_strategy": "write training.eval_strategy",
    "evaluate_during_training": "write training.eval_strategy: epoch",
    "group_by_length": "write training.batching: tokens, which makes batches of similar length",
    "per_gpu_train_batch_size": "write training.per_device_train_batch_size",
    "per_gpu_eval_batch_size": "write training.per_device_eval_batch_size",
    "overwrite_output_dir": "leave it out: every run gets a folder of its own under training.output_dir",
    "logging_dir": "leave it out: logs stand in the run's folder",
    "save_safetensors": "leave it out: models are always saved as safetensors",
    "no_cuda": "write training.use_gpu: false",
    "use_mps_device": "leave it out; training.use_gpu says whether to use GPUs",
    "xpu_backend": "leave it out: NCCL on GPUs, gloo on CPUs",
    "adafactor": "write training.optim: adafactor",
    "fp16_backend": _MIXED,
    "fp16_opt_level": _MIXED,
    "half_precision_backend": _MIXED,
    "sharded_ddp": _FSDP,
    "fsdp_min_num_params": _FSDP,
    "fsdp_transformer_layer_cls_to_wrap": _FSDP,
    "torchdynamo": "write training.torch_compile: true",
    "jit_mode_eval": "write training.torch_compile: true",
    "use_ipex": "leave it out; training.bf16: true speeds up CPUs that have it",
    "past_index": "leave it out: the cache of past keys is off while training",
    "tpu_num_cores": "leave it out: workers run on CPUs and GPUs",
    "tpu_metrics_debug": "leave it out: workers run on CPUs and GPUs",
    "mp_parameters": _RAY_TRAIN,
    "ray_scope": _RAY_TRAIN,
    "dispatch_batches": _LOADER,
    "split_batches": _LOADER,
    "include_inputs_for_metrics": _STREAMED,
    "include_tokens_per_second": _SPEED,
    "push_to_hub_model_id": _HUB,
    "push_to_hub_organization": _HUB,
    "push_to_hub_token": _HUB,
    "model_init": "leave it out; training.seed fixes the head's initialisation",
    "predict_with_generate": _VERB,
    "eval_packing": "write training.batching: tokens, which keeps padding to a few per cent",
}
"""Fields that older versions of Transformers had → what to do instead."""

SAME_AS: dict[str, str] = {
    # Transformers' example scripts (run_glue.py, run_ner.py, run_image_classification.py)
    "config_name": "model.model_name_or_path",
    "tokenizer_name": "model.processor_name_or_path",
    "image_processor_name": "model.processor_name_or_path",
    "feature_extractor_name": "model.processor_name_or_path",
    "model_revision": "model.revision",
    "train_file": "data.train",
    "train_dir": "data.train",
    "train_data_dir": "data.train",
    "dataset_name": "data.train",
    "validation_file": "data.validation",
    "validation_dir": "data.validation",
    "test_file": "data.test",
    "text_column": "data.columns",
    "text_column_name": "data.columns",
    "text_column_names": "data.columns",
    "label_column": "data.columns",
    "label_column_name": "data.columns",
    "image_column_name": "data.columns",
    "max_seq_length": "data.max_length",
    "max_seq_len": "data.max_length",
    "train_val_split": "data.split.validation",
    "num_labels": "data.labels",
    "stratify": "data.split.by",
    "test_size": "data.split.test",
    "val_size": "data.split.validation",
    # words of other trainers
    "datasets": "data.train",
    "lr": "training.learning_rate",
    "epochs": "training.num_train_epochs",
    "num_epochs": "training.num_train_epochs",
    "max_epochs": "training.num_train_epochs",
    "steps": "training.max_steps",
    "batch_size": "training.per_device_train_batch_size",
    "train_batch_size": "training.per_device_train_batch_size",
    "eval_batch_size": "training.per_device_eval_batch_size",
    "optimizer": "training.optim",
    "scheduler": "training.lr_scheduler_type",
    "lr_scheduler": "training.lr_scheduler_type",
    "gradient_clip_val": "training.max_grad_norm",
    "max_norm": "training.max_grad_norm",
    "accumulate_grad_batches": "training.gradient_accumulation_steps",
    "grad_accum": "training.gradient_accumulation_steps",
    "early_stopping": "training.early_stopping_patience",
    "patience": "training.early_stopping_patience",
    "label_smoothing": "training.label_smoothing_factor",
    "gpus": "training.use_gpu",
    "devices": "training.num_workers",
    "workers": "training.num_workers",
    "world_size": "training.num_workers",
    "val": "data.validation",
    "valid": "data.validation",
    "dev": "data.validation",
    "base_model": "model.model_name_or_path",
    "pretrained_model_name_or_path": "model.model_name_or_path",
    "path": "model.model_name_or_path",
    "id": "model.model_name_or_path",
}
"""Other names for our own keys → the dotted key."""

SCHEDULES: tuple[str, ...] = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)
"""``transformers.SchedulerType``, in its order."""

SCHEDULES_BY_METRIC = ("reduce_lr_on_plateau", "greedy")
"""Those that are stepped by the validation metric, not by the update."""

ATTENTIONS: tuple[str, ...] = (
    "sdpa",
    "eager",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
    "paged|eager",
)
"""Values of ``attn_implementation`` that Transformers knows."""

KERNEL = r"[^/:]+/[^/:]+(@[^/:]+)?(:[^/:]+)?"
"""What it takes for the Hub's name of a kernel, which is as good: ``kernels-community/flash-attn2``."""

OPTIMIZERS: tuple[str, ...] = ("adamw_torch_fused", "adamw_torch", "adam", "sgd", "adafactor")
"""The optimizers with a name of their own, after ``transformers.training_args.OptimizerNames``."""

TORCH_OPTIMIZERS: tuple[str, ...] = (
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
)
"""The classes of ``torch.optim``."""

UNUSABLE_OPTIMIZERS: dict[str, str] = {
    "LBFGS": "it evaluates the model several times per update, which data-parallel workers cannot",
    "SparseAdam": "it takes sparse gradients only, which fine-tuned models do not have",
    "Muon": "it takes matrices only; models also have biases and norms",
}
"""Classes of ``torch.optim`` that cannot fine-tune a model here → why."""

LOWER_IS_BETTER: frozenset[str] = frozenset(
    {"loss", "log_loss", "brier", "ece", "error_rate", "wer", "cer", "mae", "mse", "rmse"}
)
"""Metrics of which less is better."""
