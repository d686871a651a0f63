"""Preparing 1,000,000 short texts: time, peak memory of any process, and how fast a second run finds them ready.

Run it with ``python tests/benchmarks/bench_prepare.py``; it prints one line of JSON. It needs no network: the texts are made,
and the tokenizer (WordPiece, 8,000 pieces) is trained on some of them. Each run is a process of its own, as a command is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

LIMIT_BYTES = 2 << 30
LIMIT_SECONDS = 2.0
CLASSES = 5


def main() -> None:
    """Make the data, prepare it twice, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--worker", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        prepare_once(Path(arguments.worker))
        return
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as name:
        folder = Path(name)
        make_data(folder, arguments.rows)
        make_tokenizer(folder)
        first, second = measured(folder), measured(folder)
    result = {
        "rows": arguments.rows,
        "first_seconds": first["seconds"],
        "first_peak_mib": first["peak_mib"],
        "second_seconds": second["seconds"],
        "second_of_which_prepare": second["prepare"],
        "durations": first["durations"],
        "memory_ok": first["peak_mib"] * 2**20 < LIMIT_BYTES,
        "second_ok": second["seconds"] < LIMIT_SECONDS,
    }
    print(json.dumps(result))


def make_data(folder: Path, rows: int) -> None:
    """Write texts of 3 to 30 words, of a vocabulary with Zipf's frequencies, as CSV."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size=rng.integers(2, 10))) for _ in range(20_000)])
    with (folder / "texts.csv").open("w", encoding="utf-8") as stream:
        stream.write("text,label,source\n")
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            lengths = rng.integers(3, 31, size=count)
            ranks = np.minimum(rng.zipf(1.3, size=int(lengths.sum())) - 1, len(words) - 1)
            parts = np.split(words[ranks], np.cumsum(lengths)[:-1])
            labels = rng.integers(CLASSES, size=count)
            stream.writelines(
                f"{' '.join(part)} {start + i},{label},s{label % 3}\n"
                for i, (part, label) in enumerate(zip(parts, labels, strict=True))
            )


def make_tokenizer(folder: Path) -> None:
    """Train a fast tokenizer on the first texts, and save it with a BERT config beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    with (folder / "texts.csv").open(encoding="utf-8") as stream:
        texts = [next(stream).split(",")[0] for _ in range(20_000)]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=8000, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    model = folder / "model"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=128,
    ).save_pretrained(model)
    BertConfig(vocab_size=8000, hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(model)


def measured(folder: Path) -> dict[str, float]:
    """One run in a process of its own: its seconds from start to end, and the peak resident memory of it and its children."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--worker", str(folder)], stdout=subprocess.PIPE, text=True)
    peak = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.05):
            peak = max([peak, *(resident(pid) for pid in family(process.pid))])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        out, _ = process.communicate(timeout=1800)
    finally:
        stop.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    return {
        **json.loads(out.splitlines()[-1]),
        "seconds": round(time.perf_counter() - start, 2),
        "peak_mib": round(peak / 2**20),
    }


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def resident(pid: int) -> int:
    """Resident memory in bytes; mapped files count too."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def prepare_once(folder: Path) -> None:
    """What a training command does with its data."""
    start = time.perf_counter()
    from tunesmith.data.prepare import prepare
    from tunesmith.recipe import Recipe
    from tunesmith.tasks import load_task

    recipe = Recipe.from_dict(
        {
            "task": "text-classification",
            "model": {"model_name_or_path": str(folder / "model")},
            "data": {"train": str(folder / "texts.csv")},
            "training": {"output_dir": str(folder / "runs")},
        }
    )
    data = prepare(recipe, load_task(recipe.task), output_dir=recipe.training.output_dir)
    features = data.splits["train"].features(np.arange(32))
    if not all(len(one.values["input_ids"]) == one.length for one in features):  # type: ignore[arg-type]
        raise SystemExit("the features are wrong")
    print(json.dumps({"prepare": round(time.perf_counter() - start, 2), "durations": data.manifest["durations"]}))


if __name__ == "__main__":
    main()
