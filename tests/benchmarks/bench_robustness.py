"""What damage to images costs beside the forward passes over the damaged images, in one run.

Fifteen kinds at five severities of some images of 224 pixels square, and the forward passes of a model of ResNet-18's size over
as many; both grow with the number of images, so the ratio of a few is that of 1,000. Usage:

    python tests/benchmarks/bench_robustness.py [IMAGES]
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from tunesmith.evaluation.perturbations import answerable, find, generator

SIDE, BATCH = 224, 64
SEVERITIES = (1, 2, 3, 4, 5)


def pictures(n: int) -> list[np.ndarray]:
    """Smooth colours with a few edges and some grain, uint8 ``[side, side, 3]``."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    made = []
    for _ in range(n):
        waves = rng.uniform(0, 12, (3, 2))
        smooth = np.stack([np.sin(a * x + b * y) * 0.4 + 0.5 for a, b in waves], axis=2)
        smooth[(x - rng.random()) ** 2 + (y - rng.random()) ** 2 < 0.05] *= 0.5
        made.append(np.clip((smooth + rng.normal(0, 0.03, smooth.shape)) * 255, 0, 255).astype(np.uint8))
    return made


def damage(images: list[np.ndarray]) -> dict[str, float]:
    """Seconds of each kind, at all severities over all images."""
    took = {}
    for name, change in find([], "image").items():
        for severity in SEVERITIES:  # tables and textures are made once
            change(images[0], severity, generator(0, "warm", name, severity))
        begun = time.perf_counter()
        for k, image in enumerate(images):
            for severity in SEVERITIES:
                answerable(change(image, severity, generator(0, str(k), name, severity)), "image")
        took[name] = time.perf_counter() - begun
    return took


def passes(n: int) -> float:
    """Seconds that so many images take through the model, extrapolated from ten batches."""
    config = ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=1000
    )
    model = ResNetForImageClassification(config).eval()
    batch = torch.randn(BATCH, 3, SIDE, SIDE)
    with torch.inference_mode():
        model(pixel_values=batch)
        begun = time.perf_counter()
        for _ in range(10):
            model(pixel_values=batch)
    return (time.perf_counter() - begun) / (10 * BATCH) * n


def main() -> None:
    """Prints a table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    took = damage(pictures(n))
    conditions = len(took) * len(SEVERITIES)
    forward, whole = passes(n * conditions), sum(took.values())
    for name, seconds in sorted(took.items(), key=lambda pair: -pair[1]):
        print(f"{name:<18} {1000 * seconds / (n * len(SEVERITIES)):6.2f} ms an image")
    print(f"{'all of them':<18} {1000 * whole / (n * conditions):6.2f} ms an image")
    print(f"{'forward pass':<18} {1000 * forward / (n * conditions):6.2f} ms an image, {torch.get_num_threads()} threads")
    print(f"1,000 images: damage {whole / n * 1000:.0f} s, passes {forward / n * 1000:.0f} s, ratio {whole / forward:.2f}")


if __name__ == "__main__":
    main()
