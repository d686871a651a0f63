"""Makes the data: handwritten digits as another scanner sees them.

scikit-learn bundles 1,797 handwritten digits of 8 x 8 pixels, bright ink on black paper. The base model in ``base/`` was
pre-trained on half of them. This script takes the *other* half and scans it again, badly: dark ink on light paper, turned by
up to 25 degrees, blurred, and noisy; every second page lies in a scanner with more noise. It writes

    data/train/metadata.csv  file_name, label, noise (low or high), and the images beside it
    data/test/metadata.csv   the same
    data/clean/              the digits of data/test as the base model knows them, unscanned: to see what it forgets
    data/old/                the digits that the base model was trained on: to rehearse them (training.replay)
    data/messy/train/        what really arrives: fewer scans of some digits than of others, with faults planted among them
    data/messy/validation/   scans to choose the checkpoint by, some of which stand in data/messy/train
    data/messy/faults.csv    split, row, fault, of: which faults those are

The same script gives the same files every time. Usage: ``python make_data.py [FOLDER]``
"""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass, replace
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

MOST, RATIO = 48, 6
"""Scans of the commonest digit in data/messy/train before faults are planted, and how many times the rarest has fewer."""
JUDGED = 6
"""Scans of each digit in data/messy/validation before leaks are planted."""
PLANTED = {"duplicate": 25, "near-duplicate": 25, "conflict": 25, "mislabelled": 45, "leak": 12, "near-leak": 12}
"""Faults of each kind; every one is planted in another scan. A conflict is a copy with a wrong label."""


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


@dataclass(frozen=True)
class Scan:
    """One scan of the messy set."""

    image: Image.Image
    label: int
    noise: str
    fault: str = ""
    of: Scan | None = None
    """The scan that this one was made from."""


def altered(image: Image.Image, way: int, random: np.random.Generator) -> Image.Image:
    """Nearly the same image: darker, with less contrast, with a little noise, or saved with losses."""
    pixels = np.asarray(image, dtype=np.float64)
    if way == 3:
        stream = io.BytesIO()
        image.save(stream, "jpeg", quality=60)
        return Image.open(stream).convert("L")
    changed = (pixels * 0.7, 40 + pixels * 0.6, pixels + random.normal(0, 6, pixels.shape))[way]
    return Image.fromarray(changed.clip(0, 255).astype(np.uint8))


def messy(indices: np.ndarray, random: np.random.Generator) -> dict[str, list[Scan]]:
    """Scans of the digits ``indices`` with the faults of ``PLANTED`` among them, in random order, by split."""
    digits = load_digits()

    def scanned(chosen: list[int]) -> list[Scan]:
        kinds = ["high" if count % 2 else "low" for count in range(len(chosen))]
        return [
            Scan(scan(clean_image(digits.images[k]), noise, random), int(digits.target[k]), noise)
            for k, noise in zip(chosen, kinds, strict=True)
        ]

    rarity = random.permutation(10)
    counts = np.round(MOST * RATIO ** (-np.arange(10) / 9)).astype(int)
    train: list[int] = []
    judged: list[int] = []
    for digit, count in zip(rarity, counts, strict=True):
        mine = indices[digits.target[indices] == digit].tolist()
        judged += mine[:JUDGED]
        train += mine[JUDGED : JUDGED + count]
    splits = {"train": scanned(train), "validation": scanned(judged)}
    picks = iter(random.permutation(len(train)))
    for kind, amount in PLANTED.items():
        for number in range(amount):
            place = next(picks)
            scan_ = splits["train"][place]
            wrong = int((scan_.label + random.integers(1, 10)) % 10)
            if kind == "mislabelled":
                splits["train"][place] = replace(scan_, label=wrong, fault=kind)
                continue
            image = altered(scan_.image, number % 4, random) if kind.startswith("near") else scan_.image
            label = wrong if kind == "conflict" else scan_.label
            copy = Scan(image, label, scan_.noise, kind, scan_)
            splits["validation" if kind.endswith("leak") else "train"].append(copy)
    return {name: [scans[k] for k in random.permutation(len(scans))] for name, scans in splits.items()}


def write_messy(folder: Path, splits: dict[str, list[Scan]]) -> None:
    """Each split with its ``metadata.csv``, and ``faults.csv`` with what was planted."""
    faults: list[list[str]] = []
    for name, scans in splits.items():
        names = {id(one): f"{number:04d}.png" for number, one in enumerate(scans)}
        (folder / name).mkdir(parents=True, exist_ok=True)
        with open(folder / name / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["file_name", "label", "noise"])
            for one in scans:
                one.image.save(folder / name / names[id(one)])
                rows.writerow([names[id(one)], one.label, one.noise])
                if one.fault:
                    faults.append([name, names[id(one)], one.fault, names.get(id(one.of), "")])
                if one.fault == "conflict":  # and of the two labels its own is the wrong one
                    faults.append([name, names[id(one)], "mislabelled", ""])
    with open(folder / "faults.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["split", "row", "fault", "of"], *faults])


def main(folder: Path) -> None:
    """Writes the scans, to train on and to test on, the clean digits, and the messy set."""
    seen, unseen = halves()
    test = round(len(unseen) * TEST_SHARE)
    random = np.random.default_rng(1)
    write_split(folder / "test", unseen[:test], random)
    write_split(folder / "train", unseen[test:], random)
    write_clean(folder / "clean", unseen[:test])
    write_clean(folder / "old", seen)
    splits = messy(unseen[test:], np.random.default_rng(2))
    write_messy(folder / "messy", splits)
    print(f"{len(unseen) - test} images to train on and {test} to test on in {folder}")
    print(f"{len(splits['train'])} messy images beside them, with {sum(PLANTED.values())} planted faults")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
