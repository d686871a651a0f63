"""Makes the base model in ``base/``: a small ResNet, trained from scratch on clean digits.

It sees one half of scikit-learn's digits, shifted by a pixel or two, and is checked on the other half, which the fine-tuning
example then scans again (see ``make_data.py``). Plain PyTorch, half a minute on two cores. The result is committed, so nobody
needs to run this. Usage: ``python pretrain.py [FOLDER]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from make_data import SIZE, clean_image, halves
from sklearn.datasets import load_digits
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

EPOCHS = 30
BATCH = 64
SEED = 0


def pixels(indices: np.ndarray, processor: ViTImageProcessorPil) -> torch.Tensor:
    """The clean digits as the model takes them, ``[n, 3, SIZE, SIZE]``."""
    images = [clean_image(image).convert("RGB") for image in load_digits().images[indices]]
    return processor(images, return_tensors="pt")["pixel_values"]


def accuracy(model: ResNetForImageClassification, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the inputs whose class is right."""
    model.eval()
    with torch.inference_mode():
        return (model(inputs).logits.argmax(-1) == labels).float().mean().item()


def train(model: ResNetForImageClassification, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """AdamW with one cycle of the learning rate; each batch is shifted by up to two pixels."""
    steps = EPOCHS * (len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH)[: len(inputs) // BATCH]:
            shift = torch.randint(-2, 3, (2,)).tolist()
            loss = model(torch.roll(inputs[batch], shift, dims=(2, 3)), labels=labels[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main(folder: Path) -> None:
    """Trains, checks on the other half, and saves the model with its image processor."""
    torch.manual_seed(SEED)
    names = [str(digit) for digit in range(10)]
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    model = ResNetForImageClassification(config)
    seen, unseen = halves()
    labels = torch.tensor(load_digits().target)
    train(model, pixels(seen, processor), labels[seen])
    print(f"accuracy on clean digits never seen: {accuracy(model, pixels(unseen, processor), labels[unseen]):.3f}")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "base")
