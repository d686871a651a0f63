"""Tiny models with random weights, in Hugging Face's layout: made in a second, of real architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = [f"word{i}" for i in range(60)]


def tiny_tokenizer(folder: Path, words: list[str] = WORDS) -> None:
    """A word-level tokenizer over ``words``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    make: Any = PreTrainedTokenizerFast  # untyped
    make(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


def tiny_bert(
    folder: Path,
    *,
    dropout: float = 0.0,
    layers: int = 2,
    hidden: int = 32,
    labels: list[str] | None = None,
    spread: float = 0.02,
) -> Path:
    """A BERT of a few thousand parameters, with its tokenizer; with a head for ``labels`` where they are given.

    ``spread`` is the standard deviation of its weights: 0.2 lets so small a model learn within a few steps.
    """
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=spread,
    )
    if labels is None:
        BertModel(config).save_pretrained(folder)
    else:
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
        BertForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


def tiny_fnet(folder: Path) -> Path:
    """An FNet: it mixes tokens by a Fourier transform, has no attention mask, and so reads its padding."""
    from transformers import FNetConfig, FNetModel

    torch.manual_seed(0)
    config = FNetConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    FNetModel(config).save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


def tiny_masked_lm(folder: Path, *, words: list[str] = WORDS) -> Path:
    """A BERT that fills masks, with random weights wide enough that its candidates differ."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tiny_tokenizer(folder, words)
    return folder


def tiny_vit(
    folder: Path, *, side: int = 16, spread: float = 0.02, dropout: float = 0.0, layers: int = 2, hidden: int = 32
) -> Path:
    """A ViT for images of ``side`` × ``side``; it has no batch norm, so that batches may be cut in any way."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        image_size=side,
        patch_size=4,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=spread,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def tiny_resnet(folder: Path, *, side: int = 16, labels: list[str] | None = None) -> Path:
    """A ResNet with batch norm."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    if labels is not None:
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def tiny_detr(folder: Path, *, side: int = 24) -> Path:
    """A YOLOS: a ViT with five object queries, no convolutions, no matching outside the loss."""
    from transformers import ViTImageProcessor, YolosConfig, YolosForObjectDetection

    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=[side, side],
        patch_size=4,
        num_detection_tokens=5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    YolosForObjectDetection(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def tiny_wav2vec2(folder: Path) -> Path:
    """A Wav2Vec2 with an output for every 32 samples, and layer norms, so that padding changes nothing."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    none: dict[str, Any] = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout", "layerdrop"), 0.0
    )
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16),
        conv_kernel=(16, 4),
        conv_stride=(8, 4),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        mask_time_prob=0.0,
        **none,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    extractor: Any = Wav2Vec2FeatureExtractor  # untyped
    extractor(return_attention_mask=True).save_pretrained(folder)
    return folder
