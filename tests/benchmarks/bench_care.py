"""Data care against planted faults: what of them is found, and how long 1,000,000 texts take.

``python tests/benchmarks/bench_care.py [--seeds 5]`` plants known numbers of faults in texts and in scikit-learn's digits and
prints precision and recall of each kind, mean and range over the seeds, as a table and as one line of JSON; ``--million`` looks
for duplicates among 1,000,000 texts in a process of its own and prints its time and peak memory. No network is needed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

BARS = {"duplicates": 0.99, "near_duplicates": 0.95, "leaks": 0.99, "near_leaks": 0.95, "conflicts": 1.0}
"""Least precision and recall."""
AUDIT_BAR = 0.6
"""Share of k planted label errors among the first 2k suspects."""
LIMIT_SECONDS, LIMIT_BYTES = 180, 3 << 30


def main() -> None:
    """Measure, print, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--million", action="store_true", help="time and memory of 1,000,000 texts")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--worker", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        deduplicate(Path(arguments.worker))
        return
    result = million(arguments.rows) if arguments.million else planted(arguments.seeds)
    print(json.dumps(result))
    raise SystemExit(0 if result["ok"] else 1)


def planted(seeds: int) -> dict[str, Any]:
    """Precision and recall of every kind of fault and the audit's share: mean, least and most over the seeds."""
    from support.planted import planted_digits, planted_texts

    results: dict[str, Any] = {"seeds": seeds}
    ok = True
    for kind, task in (("texts", "text-classification"), ("digits", "image-classification")):
        shares: dict[str, list[float]] = {}
        for seed in range(seeds):
            made = planted_texts(2000, 100, seed) if kind == "texts" else planted_digits(100, seed)
            for name, (found, truth) in detected(made, task).items():
                hit = len(found & truth)
                shares.setdefault(f"{name}, precision", []).append(hit / max(len(found), 1))
                shares.setdefault(f"{name}, recall", []).append(hit / len(truth))
            shares.setdefault("label errors in the first 2k", []).append(audited(kind, task, seed))
            print(f"  {kind}, seed {seed}: done", flush=True)
        results[kind] = {name: _spread(values) for name, values in shares.items()}
        means = {name: one["mean"] for name, one in results[kind].items()}
        ok &= all(means[f"{name}, {what}"] >= bar for name, bar in BARS.items() for what in ("precision", "recall"))
        ok &= means["label errors in the first 2k"] >= AUDIT_BAR
    print("\n| | texts | digits |\n| --- | --- | --- |")
    for name, one in results["texts"].items():
        print(f"| {name} | {_shown(one)} | {_shown(results['digits'][name])} |")
    return {**results, "ok": ok}


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": round(float(np.mean(values)), 4), "least": round(min(values), 4), "most": round(max(values), 4)}


def _shown(one: dict[str, float]) -> str:
    return f"{one['mean']:.3f} ({one['least']:.3f} to {one['most']:.3f})"


def detected(made: Any, task: str) -> dict[str, tuple[set[int], set[int]]]:
    """For each kind of fault the rows that were found and those that were planted, each looked for by itself."""
    from support.planted import cared, left_out

    rows = {"train": made.train, "test": made.test}
    found: dict[str, tuple[set[int], set[int]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-care-") as name:
        folder = Path(name)
        for key, truth in (("duplicates", made.duplicates), ("near_duplicates", made.near), ("conflicts", made.conflicts)):
            off = {"near_duplicates": "off"} if key != "near_duplicates" else {"duplicates": "drop"}
            treated = cared(rows, task, folder / key, clean={**off, key: "drop"}, leakage="off")
            gone = left_out(treated, "train")
            found[key] = (gone - made.duplicates if key == "near_duplicates" else gone, truth)
        treated = cared(rows, task, folder / "leaks", leakage="move")
        near = moved(treated, made)
        found["leaks"] = (left_out(treated, "test") - near, made.leaks)
        found["near_leaks"] = (near, made.near_leaks)
    return found


def moved(treated: Any, made: Any) -> set[int]:
    """The test rows that moved to ``train`` because they are nearly in it."""
    train = treated.given["train"]
    table = train.take(np.arange(len(made.train), train.count))
    return {int(row) - 1 for row in table["__row"].to_pylist()}


def audited(kind: str, task_name: str, seed: int, count: int = 1200, errors: int = 60) -> float:
    """The share of planted label errors among the first suspects, twice as many as there are errors."""
    from support.planted import Words, planted_digits, read
    from tunesmith.data.care.audit import audit
    from tunesmith.recipe.data import DataSection
    from tunesmith.tasks import load_task

    rng = np.random.default_rng(seed)
    words = Words(seed)
    rows = [words.row() for _ in range(count)] if kind == "texts" else planted_digits(0, seed).train[:count]
    labels = sorted({row["label"] for row in rows})
    wrong = rng.choice(count, errors, replace=False)
    for k in wrong:
        rows[k]["label"] = str(rng.choice([label for label in labels if label != rows[k]["label"]]))
    task = load_task(task_name)
    with tempfile.TemporaryDirectory(prefix="bench-care-") as name:
        data = read({"train": rows}, task, Path(name))["train"]
        _, entry = audit(DataSection(train="x", label_errors="report"), task, data, np.arange(data.count))
    first = {one["row"] - 1 for one in entry["examples"][: 2 * errors]}
    return len(first & set(wrong.tolist())) / errors


def million(rows: int) -> dict[str, Any]:
    """Time and peak memory of reading and looking through so many texts, of which 1 % are copies and 1 % nearly."""
    with tempfile.TemporaryDirectory(prefix="bench-care-") as name:
        make_texts(Path(name) / "texts.csv", rows)
        command = [sys.executable, __file__, "--worker", name]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = {"rows": rows, **json.loads(answer.splitlines()[-1])}
    within = result["care_seconds"] < LIMIT_SECONDS and result["peak_mib"] * 2**20 < LIMIT_BYTES
    return {**result, "ok": within and result["near_recall"] >= BARS["near_duplicates"]}


def make_texts(file: Path, rows: int) -> None:
    """Texts of 3 to 30 words with Zipf's frequencies; the last 2 % are copies, half of them with a word more."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size=rng.integers(2, 10))) for _ in range(20_000)])
    fresh = rows - rows // 50
    kept: list[str] = []
    with file.open("w", encoding="utf-8") as stream:
        stream.write("text,label\n")
        for start in range(0, fresh, 10_000):
            count = min(10_000, fresh - start)
            lengths = rng.integers(3, 31, count)
            ids = np.minimum(rng.zipf(1.2, int(lengths.sum())) - 1, len(words) - 1)
            for part, label in zip(np.split(words[ids], np.cumsum(lengths)[:-1]), rng.integers(5, size=count), strict=True):
                text = " ".join(part)
                if len(part) >= 20 and len(kept) < rows // 50:
                    kept.append(f"{text},{label}")
                stream.write(f"{text},{label}\n")
        for number, line in enumerate(kept):
            stream.write(f"extra {line}\n" if number % 2 else f"{line}\n")


def deduplicate(folder: Path) -> None:
    """Read and look through the texts; prints what it took."""
    from tunesmith.data.care.treat import treat
    from tunesmith.data.ingest import ingest
    from tunesmith.data.problems import Problems
    from tunesmith.data.sources import resolve
    from tunesmith.recipe.data import DataSection
    from tunesmith.tasks import load_task

    task = load_task("text-classification")
    begun = time.perf_counter()
    with Problems("error", folder / "quarantine.jsonl") as problems:
        sources = resolve(str(folder / "texts.csv"), "auto", str(folder), "train")["train"]
        data = ingest("train", sources, task, {}, problems, folder / "rows", lambda *_: None)
    read = time.perf_counter()
    section = DataSection(train="texts.csv", clean={"duplicates": "drop", "near_duplicates": "drop"})  # type: ignore[arg-type]
    treated = treat(section, task, {"train": data}, folder / "moved")
    done = time.perf_counter()
    stays = np.zeros(data.count, dtype=bool)
    stays[treated.kept["train"]] = True
    planted = np.arange(data.count - data.count // 50, data.count)
    print(
        json.dumps(
            {
                "read_seconds": round(read - begun, 1),
                "care_seconds": round(done - read, 1),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "duplicates": treated.found["duplicates"]["rows"],
                "near_duplicates": treated.found["near_duplicates"]["rows"],
                "copy_recall": round(1 - float(stays[planted[::2]].mean()), 4),
                "near_recall": round(1 - float(stays[planted[1::2]].mean()), 4),
                "complete": treated.found["near_duplicates"]["looked_for"]["complete"],
            }
        )
    )


if __name__ == "__main__":
    main()
