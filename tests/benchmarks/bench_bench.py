"""The test bench itself: a million predictions judged, with 1,000 resamples behind every interval.

    python tests/benchmarks/bench_bench.py [EXAMPLES]

The bar is 60 s and 2 GiB at the peak, of a process that reads ``predictions.parquet`` and has nothing else to do.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EXAMPLES, CLASSES, SAMPLES = 1_000_000, 10, 1000
SECONDS, GIB = 60, 2


def make(place: Path, n: int) -> None:
    """Predictions as a text classification leaves them, nine of ten right."""
    rng = np.random.default_rng(0)
    labels = np.array([f"class {k}" for k in range(CLASSES)])
    with pq.ParquetWriter(place, schema()) as writer:
        for start in range(0, n, 100_000):
            count = min(100_000, n - start)
            gold = rng.integers(0, CLASSES, count)
            logits = rng.normal(size=(count, CLASSES)) + 3.2 * np.eye(CLASSES)[gold]
            p = np.exp(logits)
            p /= p.sum(axis=1, keepdims=True)
            said = p.argmax(axis=1)
            columns = {
                "id": pa.array([f"{k:016x}" for k in range(start, start + count)]),
                "reference": pa.array(labels[gold]),
                "prediction": pa.array(labels[said]),
                "correct": pa.array(said == gold),
                "confidence": pa.array(p.max(axis=1)),
                "loss": pa.array(-np.log(p[np.arange(count), gold])),
                "probabilities": pa.ListArray.from_arrays(np.arange(0, count * CLASSES + 1, CLASSES), p.ravel()),
            }
            writer.write_table(pa.table(columns, schema=schema()))


def schema() -> pa.Schema:
    """The columns of ``predictions.parquet``."""
    kinds = {"id": pa.string(), "reference": pa.string(), "prediction": pa.string(), "correct": pa.bool_()}
    return pa.schema({**kinds, "confidence": pa.float64(), "loss": pa.float64(), "probabilities": pa.list_(pa.float64())})


def judge(place: str) -> None:
    """Read and judge, and print seconds, GiB and a few intervals."""
    from tunesmith.evaluation.predictions import read_predictions
    from tunesmith.evaluation.sides import Side
    from tunesmith.tasks import load_task

    start = time.perf_counter()
    state = {"labels": [f"class {k}" for k in range(CLASSES)], "multi_label": False}
    records = read_predictions(place)
    side = Side("it", "", records, task=load_task("text-classification"), state=state)
    found = side.judged(records, SAMPLES, 42).estimates()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(records):,} predictions of {CLASSES} classes, {len(found)} intervals of {SAMPLES:,} resamples")
    print(f"{seconds:.1f} s (at most {SECONDS}), {peak:.2f} GiB at the peak (at most {GIB})")
    for name in ("accuracy", "f1_macro", "roc_auc", "log_loss", "ece"):
        print(f"  {name:10} {found[name].value:.5f} ({found[name].low:.5f} to {found[name].high:.5f})")


def main() -> None:
    """Make the predictions, and judge them in a process of their own."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "predictions.parquet")
        make(place, n)
        subprocess.run([sys.executable, __file__, "--judge", str(place)], check=True)


if __name__ == "__main__":
    judge(sys.argv[2]) if sys.argv[1:2] == ["--judge"] else main()
