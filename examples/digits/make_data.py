"""Makes the data: handwritten digits as another scanner sees them.

scikit-learn bundles 1,797 handwritten digits of 8 x 8 pixels, bright ink on black paper. The base model in ``base/`` was
pre-trained on half of them. This script takes the *other* half and scans it again, badly: dark ink on light paper, turned by
up to 25 degrees, blurred, and noisy; every second page lies in a scanner with more noise. It writes

    data/train/metadata.csv  file_name, label, noise (low or high), and the images beside it
    data/test/metadata.csv   the same
    data/clean/              the digits of data/test as the base model knows them, unscanned: to see what it forgets
    data/old/                the digits that the base model was trained on: to rehearse them (training.replay)

The same script gives the same files every time. Usage: ``python make_data.py [FOLDER]``
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

SIZE = 32
"""Height and width of an image in pixels."""
TEST_SHARE = 0.4
"""Of the digits that the base model never saw; the rest is for fine-tuning."""
ROTATION = 25
"""Largest rotation either way, in degrees."""
NOISE = {"low": 12, "high": 35}
"""Standard deviation of the noise, in grey levels of 255."""


def clean_image(pixels: np.ndarray) -> Image.Image:
    """A digit ``[8, 8]`` with values from 0 to 16 as a grey image of ``SIZE`` pixels: bright ink on black paper."""
    small = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
    return small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def halves() -> tuple[np.ndarray, np.ndarray]:
    """Indices of the digits for pre-training and of those for fine-tuning: disjoint, seeded."""
    order = np.random.default_rng(0).permutation(len(load_digits().target))
    return order[: len(order) // 2], order[len(order) // 2 :]


def scan(image: Image.Image, noise: str, random: np.random.Generator) -> Image.Image:
    """The same digit from the other scanner: turned, blurred, inverted, noisy."""
    turned = image.rotate(random.uniform(-ROTATION, ROTATION), Image.Resampling.BILINEAR)
    blurred = turned.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 1.5)))
    paper = 255.0 - np.asarray(blurred, dtype=np.float64) * random.uniform(0.6, 0.9)
    noisy = paper + random.normal(0, NOISE[noise], paper.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_split(folder: Path, indices: np.ndarray, random: np.random.Generator) -> None:
    """Scans the digits ``indices`` into ``folder``: one PNG each, and ``metadata.csv`` with the labels."""
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file_name", "label", "noise"])
        for count, index in enumerate(indices):
            noise = "high" if count % 2 else "low"
            scan(clean_image(digits.images[index]), noise, random).save(folder / f"{index:04d}.png")
            rows.writerow([f"{index:04d}.png", digits.target[index], noise])


def write_clean(folder: Path, indices: np.ndarray) -> None:
    """The digits ``indices`` as they are: one PNG each, and ``metadata.csv`` with the labels."""
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file_name", "label"])
        for index in indices:
            clean_image(digits.images[index]).save(folder / f"{index:04d}.png")
            rows.writerow([f"{index:04d}.png", digits.target[index]])


def main(folder: Path) -> None:
    """Writes the scans, to train on and to test on, and the clean digits."""
    seen, unseen = halves()
    test = round(len(unseen) * TEST_SHARE)
    random = np.random.default_rng(1)
    write_split(folder / "test", unseen[:test], random)
    write_split(folder / "train", unseen[test:], random)
    write_clean(folder / "clean", unseen[:test])
    write_clean(folder / "old", seen)
    print(f"{len(unseen) - test} images to train on and {test} to test on in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
